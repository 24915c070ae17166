package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// Status is what `trust-agent status` shows: how the last attestation went. It is for people; AIAS decides.
type Status struct {
	Node    string               `json:"node"`
	Server  string               `json:"server"`
	At      time.Time            `json:"at"`
	Trigger Trigger              `json:"trigger"`
	Trusted bool                 `json:"trusted"`
	Levels  []protocol.LevelInfo `json:"levels,omitempty"`
	Expires time.Time            `json:"expires,omitzero"` // of the verdict
	Bytes   int                  `json:"bytes"`            // of the Evidence
	Error   string               `json:"error,omitempty"`
}

func newStatus(c *Config, r Report) *Status {
	s := &Status{Node: r.Node, Server: c.Server, At: r.Time.UTC(), Trigger: r.Trigger, Bytes: r.Bytes}
	if r.Err != nil {
		s.Error = r.Err.Error()
		return s
	}
	s.Trusted, s.Levels, s.Expires = r.Attestation.Trusted, r.Attestation.Levels, r.Attestation.Expires
	return s
}

// Save writes the status file, readable for everyone: nothing in it is secret.
func (s *Status) Save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // for everyone to read
		return fmt.Errorf("make the folder of the status file: %w", err)
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the status: %w", err)
	}
	return writeAtomic(path, append(data, '\n'), 0o644)
}

// LoadStatus reads the status file of a running agent.
func LoadStatus(path string) (*Status, error) {
	data, err := readBounded(path, maxEnrolment)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no attestation yet (%s is not there): is trust-agent running?", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the status: %w", err)
	}
	s := &Status{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("read the status %s: %w", path, err)
	}
	return s, nil
}

// levelLine writes five levels in one short line: "1 pass, 2 pass, 3 pass, 4 fail, 5 pass".
func levelLine(levels []protocol.LevelInfo) string {
	parts := make([]string, len(levels))
	for i, l := range levels {
		parts[i] = fmt.Sprintf("%d %s", l.Level, l.Status)
	}
	return strings.Join(parts, ", ")
}

// statusLine is what `systemctl status` shows.
func statusLine(r Report) string {
	switch {
	case r.Err != nil:
		return "attestation failed: " + strings.ReplaceAll(r.Err.Error(), "\n", "; ")
	case r.Attestation.Trusted:
		return "trusted"
	}
	return "not trusted: " + levelLine(r.Attestation.Levels)
}
