package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/oscap"
	"touchstone.dev/touchstone/internal/compliance/tailoring"
	"touchstone.dev/touchstone/internal/protocol"
)

// tailorLink hands out a tailoring.
type tailorLink struct {
	scanLink
	given *protocol.Tailoring
	err   error
}

func (l *tailorLink) Tailoring(context.Context) (*protocol.Tailoring, error) { return l.given, l.err }

func tailored(document string) (*protocol.Tailoring, string) {
	sum := sha256.Sum256([]byte(document))
	return &protocol.Tailoring{Profile: "p", Document: []byte(document)}, hex.EncodeToString(sum[:])
}

// TestTailoringFromAIAS: another tailoring is reason for a scan at once; one that is not what the challenge named is not used.
func TestTailoringFromAIAS(t *testing.T) {
	cfg := Defaults()
	cfg.StateDir = t.TempDir()
	link := &tailorLink{scanLink: scanLink{reports: make(chan *protocol.ComplianceReport, 9)}}
	s := newScanner(&cfg, slog.New(slog.DiscardHandler), time.Now)
	s.scan = func(context.Context, string) (*oscap.Outcome, error) {
		out := outcome()
		if s.given != nil {
			out.Tailoring = s.given.SHA256
		}
		return out, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { s.run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	attested := func(digest string) *protocol.ComplianceReport {
		t.Helper()
		s.attested("w", link, Report{Attestation: &protocol.Attestation{Next: protocol.Challenge{Tailoring: digest}}})
		select {
		case r := <-link.reports:
			return r
		case <-time.After(10 * time.Second):
			t.Fatal("no report")
			return nil
		}
	}
	if r := attested(""); r.Tailoring != "" || r.Error != "" {
		t.Errorf("without: got %+v", r)
	}
	var digest string
	link.given, digest = tailored("<a/>")
	if r := attested(digest); r.Tailoring != digest {
		t.Errorf("with one: got %+v, want %s", r, digest)
	}
	if r := attested(strings.Repeat("ab", 32)); len(r.TestResult) > 0 || !strings.Contains(r.Error, "changed on the way") {
		t.Errorf("one that AIAS did not name: got %+v, want an error", r)
	}
	link.err = errors.New("away")
	if r := attested(strings.Repeat("cd", 32)); len(r.TestResult) > 0 || !strings.Contains(r.Error, "away") {
		t.Errorf("none to be had: got %+v, want an error", r)
	}
	if r := attested(""); r.Tailoring != "" || r.Error != "" {
		t.Errorf("without, again: got %+v", r)
	}
}

// TestScanByTailoring: the host is scanned by the tailoring of the policy, by the installed oscap.
func TestScanByTailoring(t *testing.T) {
	cfg := Defaults()
	cfg.StateDir, cfg.Compliance.Content, cfg.Compliance.Tailoring = t.TempDir(), content.Name, "/of/the/worker"
	rule := func(name string) tailoring.Change {
		return tailoring.Change{ID: strings.Replace(content.Worker, "profile_worker", "rule_"+name, 1)}
	}
	tailor := &tailoring.Tailoring{Profile: content.Worker, Deselect: []tailoring.Change{rule("no_telnet")}, Select: []tailoring.Change{rule("no_compilers")}}
	s := newScanner(&cfg, slog.New(slog.DiscardHandler), time.Now)
	s.given = &protocol.Tailoring{Profile: tailor.ID(), Document: tailor.Document(), SHA256: tailor.Digest()}
	out, err := s.oscap(t.Context(), "w")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range out.Result.Rules {
		got[r.ID] = string(r.Outcome)
	}
	if got[rule("no_telnet").ID] != "notselected" || got[rule("no_compilers").ID] == "notselected" || out.Tailoring != tailor.Digest() {
		t.Errorf("got telnet %s, compilers %s, tailoring %s", got[rule("no_telnet").ID], got[rule("no_compilers").ID], out.Tailoring)
	}
}
