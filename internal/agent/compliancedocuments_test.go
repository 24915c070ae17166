package agent

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/compliance/oscap"
	"touchstone.dev/touchstone/internal/protocol"
)

// documentLink takes documents; the report ends what was asked for.
type documentLink struct {
	scanLink
	got map[string]string
	err error
}

func (l *documentLink) SendScanDocument(_ context.Context, kind string, b []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return err
	}
	text, err := io.ReadAll(z)
	l.got[kind] = string(text)
	return errors.Join(err, l.err)
}

// TestDocuments: documents are made and sent, before the scan, when they are wanted and only then; nothing of them stays on the worker.
func TestDocuments(t *testing.T) {
	cfg := Defaults()
	cfg.StateDir = t.TempDir()
	link := &documentLink{scanLink: scanLink{reports: make(chan *protocol.ComplianceReport, 9)}, got: map[string]string{}}
	s := newScanner(&cfg, slog.New(slog.DiscardHandler), time.Now)
	s.scan = func(context.Context, string) (*oscap.Outcome, error) {
		for _, name := range documentFiles {
			if s.keep == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(s.keep, name), []byte(name), 0o600); err != nil {
				return nil, err
			}
		}
		return outcome(), nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { s.run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	scan := func(asked int64, documents bool, want int) {
		t.Helper()
		clear(link.got)
		s.attested("w", link, Report{Attestation: &protocol.Attestation{Next: protocol.Challenge{Scan: asked, ScanDocuments: documents}}})
		select {
		case r := <-link.reports:
			if r.Error != "" || len(link.got) != want || want > 0 && link.got[protocol.DocumentHTML] != "report.html" {
				t.Errorf("scan %d: got %+v, documents %q; want %d", asked, r, link.got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("scan %d: no report", asked)
		}
	}
	scan(0, false, 0)
	scan(1, true, 2)
	scan(2, false, 0)
	link.err = errors.New("AIAS is full")
	scan(3, true, 2) // the scan counts without them
	if left, _ := filepath.Glob(filepath.Join(cfg.StateDir, "scan-*")); len(left) > 0 {
		t.Errorf("left on the worker: %q", left)
	}
}
