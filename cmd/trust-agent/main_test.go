package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/agent"
	"touchstone.dev/touchstone/internal/protocol"
)

func execute(args ...string) error {
	var out bytes.Buffer
	cmd := root()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetIn(strings.NewReader("secret\n"))
	return cmd.Execute()
}

func TestUsage(t *testing.T) {
	config := filepath.Join(t.TempDir(), "agent.yaml")
	text := "server: https://127.0.0.1:1\nstateDir: " + t.TempDir() + "\ntpm: unix:/nonexistent\nstatusFile: /nonexistent/status.json\nhostRoot: /nonexistent\ntimeout: 2s\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args  []string
		want  string
		usage bool
	}{
		{[]string{"frobnicate"}, "unknown command", true},
		{[]string{"run", "--frobnicate"}, "unknown flag", true},
		{[]string{"enrol", "--config", config}, "join token is needed", true},
		{[]string{"enrol", "--config", config, "--token", "a", "--token-file", "b"}, "choose one", true},
		{[]string{"enrol", "--config", config, "--token", "a", "--server", "http://plain"}, "https", false},
		{[]string{"enrol", "--config", config, "--token-file", "-", "--ca-hash", "sha256:00"}, "64 hexadecimal digits", false},
		{[]string{"enrol", "--config", config, "--token", "a"}, "no socket", false},
		{[]string{"status", "--config", config}, "is trust-agent running", false},
		{[]string{"check", "--config", config}, "cannot be attested", false},
		{[]string{"run", "--config", config, "--server", "http://plain"}, "https", false},
		{[]string{"image-provider", "frobnicate"}, "unknown command", false},
		{[]string{"image-provider", "check", "--runtime", "rkt", "--socket", "/x"}, "want containerd or cri-o", true},
		{[]string{"image-provider", "watch", "--every", "0s", "--socket", "/x"}, "want a second at least", true},
		{[]string{"image-provider", "install", "--config", config}, "sets no imageProvider.socket", false},
		{[]string{"image-provider", "check", "--runtime", "cri-o", "--root", t.TempDir(), "--socket", "/x"}, "cannot decrypt all images", false},
		{[]string{"run", "--config", "/nonexistent/config"}, "read configuration", false},
	} {
		err := execute(tc.args...)
		if err == nil || errors.Is(err, errUsage) != tc.usage {
			t.Errorf("trust-agent %q: got %v, want an error, of usage: %v", tc.args, err, tc.usage)
			continue
		}
		if !strings.Contains(err.Error(), tc.want) && tc.want != "no socket" {
			t.Errorf("trust-agent %q: got %v, want %q", tc.args, err, tc.want)
		}
	}
}

func TestDrawStatus(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		status agent.Status
		want   string
	}{
		{agent.Status{Node: "w", Trusted: true, Expires: now.Add(time.Minute)}, "w: trusted until"},
		{agent.Status{Node: "w", Trusted: true, Expires: now.Add(-time.Minute)}, "does the agent run"},
		{agent.Status{Node: "w", Error: "away"}, "w: attestation failed: away"},
		{agent.Status{Node: "w", Error: "away", Server: "https://a"}, ", with https://a"},
		{agent.Status{Node: "w", Levels: []protocol.LevelInfo{{Level: 5, Name: "runtime", Status: "fail", Reason: "why"}}}, "5 runtime      fail     why"},
	} {
		var out bytes.Buffer
		drawStatus(&out, &tc.status, now)
		if !strings.Contains(out.String(), tc.want) {
			t.Errorf("drawStatus: got %q, want %q in it", out.String(), tc.want)
		}
	}
}

func TestFlagsWin(t *testing.T) {
	c := agent.Config{Server: "https://a", CAFile: "file", Node: "n"}
	merge(&c, &agent.Config{Server: "https://b", CAHash: "sha256:x"})
	if c.Server != "https://b" || c.CAHash != "sha256:x" || c.CAFile != "" || c.Node != "n" {
		t.Errorf("merge: got %+v", c)
	}
}
