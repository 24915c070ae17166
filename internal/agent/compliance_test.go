package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/compliance/oscap"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
	"touchstone.dev/touchstone/internal/protocol"
)

// scanLink is a Link that takes reports.
type scanLink struct {
	Link
	reports chan *protocol.ComplianceReport
	refuse  chan error // one for each try; empty: taken
}

func (l *scanLink) SendCompliance(_ context.Context, r *protocol.ComplianceReport) (*protocol.ComplianceAnswer, error) {
	select {
	case err := <-l.refuse:
		return nil, err
	default:
	}
	l.reports <- r
	return &protocol.ComplianceAnswer{}, nil
}

func outcome() *oscap.Outcome {
	return &oscap.Outcome{
		TestResult: []byte("<TestResult/>"), Content: "c0ffee", Version: "1.3.7",
		Result:    &xccdf.TestResult{End: time.Now(), Rules: []xccdf.RuleResult{{ID: "a", Outcome: xccdf.Fail}, {ID: "b", Outcome: xccdf.Pass}}},
		Catalogue: &xccdf.Catalogue{Rules: []xccdf.Rule{{ID: "a", Title: "A", Fix: "mend a"}, {ID: "b", Title: "B"}}},
	}
}

func TestScanner(t *testing.T) {
	cfg := Defaults()
	cfg.StateDir = t.TempDir()
	link := &scanLink{reports: make(chan *protocol.ComplianceReport, 9), refuse: make(chan error, 9)}
	fails := make(chan error, 1)
	start := func() (*scanner, func()) {
		s := newScanner(&cfg, slog.New(slog.DiscardHandler), time.Now)
		s.scan = func(context.Context, string) (*oscap.Outcome, error) {
			select {
			case err := <-fails:
				return nil, err
			default:
				return outcome(), nil
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { s.run(ctx); close(done) }()
		return s, func() { cancel(); <-done }
	}
	attested := func(s *scanner, asked int64) {
		s.attested("w", link, Report{Attestation: &protocol.Attestation{Next: protocol.Challenge{Scan: asked}}})
	}
	next := func(what string) *protocol.ComplianceReport {
		t.Helper()
		select {
		case r := <-link.reports:
			return r
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: no report", what)
			return nil
		}
	}
	s, stop := start()
	attested(s, 0)
	r := next("first")
	if len(r.TestResult) == 0 || r.Content != "c0ffee" || len(r.Words) != 1 || r.Words["a"].Fix != "mend a" {
		t.Errorf("first report: got %+v, want the result and words on the rule that fails", r)
	}
	fails <- errors.New("the canary died")
	attested(s, 7)
	if r = next("asked"); r.Asked != 7 || r.Error != "the canary died" || len(r.TestResult) > 0 {
		t.Errorf("asked: got %+v, want the error as answer to 7", r)
	}
	attested(s, 7)
	time.Sleep(100 * time.Millisecond)
	stop()
	first := s.stated()
	s, stop = start()
	if again := s.stated(); len(first) != 1 || !maps.EqualFunc(first, again, bytes.Equal) {
		t.Errorf("stated: %x, after a restart %x; want the one result, over a scan that came to none", first, again)
	}
	defer stop()
	attested(s, 7) // answered before the restart, and the interval is not over
	select {
	case r := <-link.reports:
		t.Errorf("a scan that nobody asked for: %+v", r)
	case <-time.After(500 * time.Millisecond):
	}
	link.refuse <- &Refusal{Problem: protocol.Problem{Status: 422, Title: "no"}}
	attested(s, 8)
	time.Sleep(200 * time.Millisecond)
	attested(s, 9)
	if got := s.stated(); len(got) != 2 {
		t.Errorf("after a refusal: stated %x, want the result that AIAS has and the new one", got)
	}
	if r = next("after a refusal"); r.Asked != 9 {
		t.Errorf("after a refusal: got %+v, want the answer to 9", r)
	}
	for deadline := time.Now().Add(10 * time.Second); len(s.stated()) != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("when AIAS took one: stated %x, want it alone", s.stated())
		}
	}
	if _, err := os.Stat(filepath.Join(cfg.StateDir, "compliance.json")); err != nil {
		t.Error(err)
	}
}
