package agent

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/oscap"
	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
	"touchstone.dev/touchstone/internal/protocol"
)

// ComplianceConfig says how the agent scans the worker with OpenSCAP.
type ComplianceConfig struct {
	// Content is the path of an SCAP source data stream, or "baseline": that of the product; empty: the worker is not scanned.
	Content string `json:"content"`
	// Profile is the id of a profile of the content, or of the tailoring; of the baseline, empty is that for workers.
	Profile string `json:"profile"`
	// Tailoring is the path of an XCCDF tailoring; empty: none.
	Tailoring string `json:"tailoring"`
	// Interval is the time between two scans, give or take a tenth.
	Interval Duration `json:"interval"`
	// Timeout ends a scan that takes longer.
	Timeout Duration `json:"timeout"`
	// KeepDir is a folder for the whole results (ARF) and the report (HTML) of the newest scan; empty: they are not kept.
	KeepDir string `json:"keepDir"`
}

const (
	scanRetry    = time.Minute // between two tries to send a report, and after a scan that failed because AIAS was away
	maxTailoring = 4 << 20     // bytes
)

// scanner scans the worker on schedule and when AIAS asks, one scan at a time, and sends what came of it.
type scanner struct {
	cfg   ComplianceConfig
	root  string // HostRoot
	state string // file
	log   *slog.Logger
	now   func() time.Time
	scan  func(ctx context.Context, node string) (*oscap.Outcome, error) // a field, so that tests need no oscap

	given *protocol.Tailoring // by AIAS, for the scan at hand; nil: none
	keep  string              // folder for the documents of the scan at hand; empty: none are made

	mu      sync.Mutex
	wish    scanWish
	results [][]byte // SHA-256 of results: the one that AIAS took last, and those made since
	wake    chan struct{}
}

// scanWish is what the newest attestation said.
type scanWish struct {
	node      string
	link      Link
	asked     int64
	tailoring string // SHA-256; empty: none
	documents bool   // of the scan that is asked for
}

// scanState is what the agent remembers of its scans over a restart.
type scanState struct {
	At    time.Time `json:"at"`    // start of the newest
	Asked int64     `json:"asked"` // newest number that was answered
	// Tailoring is the SHA-256 of the policy's tailoring that was used; empty: none.
	Tailoring string `json:"tailoring,omitempty"`
	// Results are the SHA-256 of the result that AIAS took last, and of those made since.
	Results [][]byte `json:"results,omitempty"`
}

func newScanner(cfg *Config, log *slog.Logger, now func() time.Time) *scanner {
	s := &scanner{
		cfg: cfg.Compliance, root: cfg.HostRoot, state: filepath.Join(cfg.StateDir, "compliance.json"), log: log, now: now, wake: make(chan struct{}, 1),
	}
	s.scan, s.results = s.oscap, s.load().Results
	return s
}

// attested takes note of the connection, which is good now, and of what AIAS asks for.
func (s *scanner) attested(node string, link Link, r Report) {
	if r.Err != nil {
		return
	}
	s.mu.Lock()
	s.wish = scanWish{node, link, max(s.wish.asked, r.Attestation.Next.Scan), r.Attestation.Next.Tailoring, r.Attestation.Next.ScanDocuments}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *scanner) wished() scanWish {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wish
}

// run scans until ctx ends. The first scan waits for the first attestation: before it AIAS takes none.
func (s *scanner) run(ctx context.Context) {
	st := s.load()
	interval := jitter(time.Duration(s.cfg.Interval), 0.1)
	for {
		timer := time.NewTimer(max(time.Second, st.At.Add(interval).Sub(s.now())))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-s.wake:
			timer.Stop()
		}
		w := s.wished()
		due := !s.now().Before(st.At.Add(interval)) || st.At.After(s.now()) || st.Tailoring != w.tailoring
		if w.link == nil || !due && w.asked <= st.Asked {
			continue
		}
		w.documents = w.documents && w.asked > st.Asked
		st = scanState{At: s.now(), Asked: w.asked, Tailoring: w.tailoring}
		report, result := s.once(ctx, &w)
		if ctx.Err() != nil {
			return
		}
		s.made(&st, result)
		s.save(&st)
		if s.send(ctx, report) && len(result) > 0 {
			s.delivered(&st)
			s.save(&st)
		}
		interval = jitter(time.Duration(s.cfg.Interval), 0.1)
	}
}

// once makes one scan and the report on it, and returns the result that the report carries, too; nil: none.
func (s *scanner) once(ctx context.Context, w *scanWish) (*protocol.ComplianceReport, []byte) {
	var out *oscap.Outcome
	err := s.tailor(ctx, w)
	if err == nil {
		defer s.keepFor(w)()
		out, err = s.scan(ctx, w.node)
	}
	if err == nil {
		if w.documents {
			s.sendDocuments(ctx, w)
		}
		var report *protocol.ComplianceReport
		if report, err = NewComplianceReport(out); err == nil {
			report.Asked = w.asked
			s.log.Info("scanned for compliance", "profile", out.Result.Profile, "took", out.Took.Round(time.Millisecond), "resident", out.MaxRSS)
			return report, out.TestResult
		}
	}
	s.log.Error("the compliance scan came to no result", "error", err)
	text := strings.ToValidUTF8(err.Error(), "?")
	return &protocol.ComplianceReport{Error: text[:min(len(text), protocol.MaxScanError)], At: s.now().UTC(), Asked: w.asked}, nil
}

// oscap scans the host.
func (s *scanner) oscap(ctx context.Context, node string) (*oscap.Outcome, error) {
	r := &oscap.Runner{Time: time.Duration(s.cfg.Timeout), HostRoot: s.root}
	scan := oscap.Scan{Content: s.cfg.Content, Profile: content.ProfileOr(s.cfg.Profile, s.cfg.Content, content.Worker), Target: protocol.ScanTarget(node)}
	if s.given != nil {
		scan.Profile, scan.Tailoring = s.given.Profile, s.given.Document
	} else if s.cfg.Tailoring != "" {
		b, err := readBounded(s.cfg.Tailoring, maxTailoring)
		if err != nil {
			return nil, fmt.Errorf("read the tailoring: %w", err)
		}
		scan.Tailoring = b
	}
	if d := s.keep; d != "" {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("folder for results: %w", err)
		}
		scan.ARF, scan.HTML = filepath.Join(d, documentFiles[protocol.DocumentARF]), filepath.Join(d, documentFiles[protocol.DocumentHTML])
	}
	return r.Scan(ctx, scan)
}

// send sends a report until AIAS takes or refuses it. A newer scan makes it pointless, but there is none before this one is gone.
// It reports whether AIAS took it.
func (s *scanner) send(ctx context.Context, report *protocol.ComplianceReport) bool {
	for {
		answer, err := s.wished().link.SendCompliance(ctx, report)
		var r *Refusal
		switch {
		case ctx.Err() != nil:
			return false
		case err == nil:
			s.log.Info("compliance scan judged", "trusted", answer.Trusted, "summary", answer.Summary, "problems", len(answer.Problems))
			return true
		case errors.As(err, &r) && r.Status/100 == 4 && !lostIdentity(err) && r.RetryAfter == 0:
			s.log.Error("AIAS does not take the compliance scan", "error", err)
			return false
		}
		s.log.Warn("the compliance scan could not be sent", "error", err, "trying again in", scanRetry)
		if !sleep(ctx, jitter(scanRetry, 0.1)) {
			return false
		}
	}
}

func (s *scanner) load() scanState {
	var st scanState
	b, err := readBounded(s.state, maxConfig)
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("when the last compliance scan was is not known: scanning at once", "error", err)
		return scanState{}
	}
	return st
}

func (s *scanner) save(st *scanState) {
	b, err := json.Marshal(st)
	if err == nil {
		err = writeAtomic(s.state, append(b, '\n'), 0o600)
	}
	if err != nil {
		s.log.Warn("the time of the compliance scan could not be written", "error", err)
	}
}

// NewComplianceReport packs a scan for AIAS: the TestResult as it is, and from the content the words on rules that did not pass.
func NewComplianceReport(out *oscap.Outcome) (*protocol.ComplianceReport, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = z.Write(out.TestResult)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("pack the result: %w", err)
	}
	r := &protocol.ComplianceReport{
		TestResult: b.Bytes(), Content: out.Content, Tailoring: out.Tailoring, Tool: out.Version, At: out.Result.End, Words: map[string]verdict.Words{},
	}
	for i := range out.Result.Rules {
		x := &out.Result.Rules[i]
		switch x.Outcome {
		case xccdf.Fail, xccdf.Error, xccdf.Unknown, xccdf.NotChecked:
		case xccdf.Pass, xccdf.Fixed, xccdf.NotApplicable, xccdf.NotSelected, xccdf.Informational:
			continue
		}
		if rule := out.Catalogue.Rule(x.ID); rule != nil && len(r.Words) < protocol.MaxRuleWords && len(x.ID) < protocol.MaxWords/2 {
			r.Words[x.ID] = verdict.Words{Title: cut(rule.Title, protocol.MaxWords/2), Fix: cut(rule.Fix, protocol.MaxWords)}
		}
	}
	return r, nil
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-3], "") + "..."
}
