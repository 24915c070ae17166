package rules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Ctl runs auditctl with arguments and returns what it printed. An error holds what it said.
type Ctl func(ctx context.Context, args ...string) (string, error)

// Auditctl is the real one.
func Auditctl(ctx context.Context, args ...string) (string, error) {
	program, err := exec.LookPath("auditctl")
	if err != nil {
		program = "/usr/sbin/auditctl"
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // rules are shipped, or parsed before
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || strings.Contains(err.Error(), "no such file") {
			return "", errors.New("there is no auditctl: apt-get install auditd")
		}
		if text := strings.TrimSpace(complaint.String() + out.String()); text != "" {
			return "", errors.New(strings.Join(strings.Fields(text), " "))
		}
		return "", fmt.Errorf("auditctl: %w", err)
	}
	return out.String(), nil
}

// Loaded returns the rules that the kernel has now, in its order.
func Loaded(ctx context.Context, ctl Ctl) ([]Rule, error) {
	out, err := ctl(ctx, "-l")
	if err != nil {
		return nil, fmt.Errorf("listing audit rules: %w", err)
	}
	var loaded []Rule
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if line == "" || line == "No rules" {
			continue
		}
		r, err := ParseRule(line)
		if err != nil { // a kind of rule that we do not ship: keep it as it is
			r = Rule{Args: strings.Fields(line)}
		}
		loaded = append(loaded, r)
	}
	return loaded, nil
}
