package oscap

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

// Exit codes of `oscap xccdf eval`.
const (
	allGood   = 0
	someWrong = 2 // at least one rule failed or is unknown
)

// evaluate runs the checklist and reads what came out.
func (w *work) evaluate(ctx context.Context) (*Outcome, error) {
	args := []string{"xccdf", "eval", "--progress", "--skip-validation", "--profile", w.Profile, "--results", w.inside("results.xml")}
	if len(w.Tailoring) > 0 {
		args = append(args, "--tailoring-file", w.inside("tailoring.xml"))
	}
	if w.ARF != "" {
		args = append(args, "--results-arf", w.inside("arf.xml"))
	}
	if w.HTML != "" {
		args = append(args, "--report", w.inside("report.html"))
	}
	reported := map[string]int{}
	done := 0
	run, err := w.oscap(ctx, func(line string) {
		i := strings.LastIndexByte(line, ':')
		if i <= 0 {
			return
		}
		reported[line]++
		done++
		if w.Progress != nil {
			w.Progress(line[:i], xccdf.Outcome(line[i+1:]), done)
		}
	}, append(args, w.inside("content.xml"))...)
	if err != nil {
		return nil, err
	}
	if err := run.said(ToolError); err != nil {
		return nil, w.blame(err)
	}
	if run.code != allGood && run.code != someWrong {
		return nil, w.blame(failed(ToolError, "oscap ended with %d: %s", run.code, run.words()))
	}
	out := &w.out
	out.MaxRSS, out.Warnings, out.Catalogue = run.maxRSS, run.warnings(), w.catalogue
	if err := w.readResult(out); err != nil {
		return nil, err
	}
	if err := w.agrees(out.Result, reported, run.code); err != nil {
		return nil, err
	}
	return out, w.keep()
}

// blame tells an error in the tailoring from others.
func (w *work) blame(err error) error {
	var e *Error
	if len(w.Tailoring) > 0 && errors.As(err, &e) && strings.Contains(strings.ToLower(e.Text), "tailoring") {
		e.Kind = BadTailoring
	}
	return err
}

// readResult reads the TestResult out of the results.
func (w *work) readResult(out *Outcome) error {
	f, err := os.Open(filepath.Join(w.dir, "results.xml"))
	if err != nil {
		return failed(BadOutput, "oscap wrote no results: %v", err)
	}
	defer f.Close() //nolint:errcheck // read only
	if out.TestResult, err = xccdf.Extract(f); err != nil {
		return failed(BadOutput, "the results of oscap cannot be read: %v", err)
	}
	if out.Result, err = xccdf.Parse(out.TestResult); err != nil {
		return failed(BadOutput, "the results of oscap cannot be read: %v", err)
	}
	out.Version = out.Result.Fact(xccdf.FactScannerVersion)
	if out.Version == "" {
		_, out.Version, _ = strings.Cut(out.Result.TestSystem, "openscap:")
	}
	return nil
}

// agrees holds the results against what was asked for and what oscap reported while it ran.
func (w *work) agrees(r *xccdf.TestResult, reported map[string]int, code int) error {
	if r.Profile != w.Profile {
		return failed(BadOutput, "the results are for profile %q, asked for was %q", r.Profile, w.Profile)
	}
	if got := r.Fact(xccdf.FactIdentifier); w.Target != "" && got != "" && got != w.Target {
		return failed(BadOutput, "the results are for target %q, asked for was %q", got, w.Target)
	}
	for i := range r.Rules {
		rule := &r.Rules[i]
		if rule.Outcome == xccdf.NotSelected {
			continue
		}
		line := rule.ID + ":" + string(rule.Outcome)
		if reported[line] == 0 {
			return failed(BadOutput, "the results have %s, which oscap did not report while it ran", line)
		}
		reported[line]--
	}
	for line, n := range reported {
		if n > 0 && !strings.HasSuffix(line, ":"+string(xccdf.NotSelected)) {
			return failed(BadOutput, "oscap reported %s, which is not in its results", line)
		}
	}
	bad := r.Count(xccdf.Fail, xccdf.Unknown)
	if judged := r.Count(xccdf.Pass, xccdf.Fail, xccdf.Fixed); judged == 0 {
		return failed(NothingJudged, "no rule of profile %s passed or failed (%d do not apply): is the content (%s) for another system?",
			w.Profile, r.Count(xccdf.NotApplicable), w.catalogue.ID)
	}
	if code == allGood && bad > 0 {
		return failed(BadOutput, "oscap ended as if all was good, and its results have %d rules that are not", bad)
	}
	return nil
}

// keep moves the documents that were asked for to where they were.
func (w *work) keep() error {
	for name, to := range map[string]string{"arf.xml": w.ARF, "report.html": w.HTML} {
		if to == "" {
			continue
		}
		if err := copyFile(filepath.Join(w.dir, name), to); err != nil {
			return failed(BadOutput, "keep %s: %v", to, err)
		}
	}
	return nil
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
