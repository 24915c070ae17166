package agent

import (
	"log/slog"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/protocol"
)

// TestScanByBaseline: with no more than "content: baseline" the agent scans the host by the product's baseline, and reports its digest.
func TestScanByBaseline(t *testing.T) {
	cfg := Defaults()
	cfg.Server, cfg.CAHash, cfg.StateDir = "https://a", "sha256:0000000000000000000000000000000000000000000000000000000000000000", t.TempDir()
	cfg.Compliance.Content = "other.xml"
	if cfg.Validate() == nil {
		t.Error("content of others without a profile is taken")
	}
	cfg.Compliance.Content = content.Name
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	out, err := newScanner(&cfg, slog.New(slog.DiscardHandler), time.Now).oscap(t.Context(), "w")
	if err != nil {
		t.Fatal(err)
	}
	report, err := NewComplianceReport(out)
	if err != nil {
		t.Fatal(err)
	}
	if report.Content != content.Digest() || out.Result.Profile != content.Worker || out.Result.Fact("urn:xccdf:fact:identifier") != protocol.ScanTarget("w") {
		t.Errorf("got content %s, profile %s", report.Content, out.Result.Profile)
	}
}
