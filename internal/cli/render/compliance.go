package render

import (
	"fmt"
	"io"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	scan "touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/protocol"
)

// complianceState is the newest scan of a node in a word.
func complianceState(n *protocol.NodeCompliance) (appraisal.Status, string) {
	switch {
	case n.Error != "":
		return appraisal.Unknown, "error"
	case n.Scan == nil:
		return appraisal.Unknown, "no scan"
	case len(n.Problems) > 0:
		return appraisal.Fail, "not as demanded"
	case len(n.Waived) > 0:
		return appraisal.Warn, "waived"
	}
	return appraisal.Pass, "as demanded"
}

// Compliances prints a line for each node.
func (s Style) Compliances(w io.Writer, all []protocol.NodeCompliance) {
	var rows []row
	for i := range all {
		n := &all[i]
		st, word := complianceState(n)
		at, summary := "", ""
		if n.Scan != nil {
			at, summary = n.Scan.At.Local().Format(time.DateTime), n.Scan.Summary()
		}
		r := row{cells: []cell{plain(Clean(n.Node)), {word, func(text string) string { return s.Status(st, text) }}, plain(at), plain(summary)}}
		if n.Error != "" {
			r.note = s.beneath([]string{Clean(n.Error)})
		}
		rows = append(rows, r)
	}
	s.list(w, "no worker is enrolled", []string{"node", "state", "scanned", "rules"}, rows)
}

// Compliance prints the newest scan of a node: what fails and how to mend it, what is waived, what changed.
func (s Style) Compliance(w io.Writer, n *protocol.NodeCompliance) {
	st, word := complianceState(n)
	fmt.Fprintf(w, "%s %s: %s\n", s.Mark(st), s.Bold(Clean(n.Node)), s.Status(st, word))
	if n.Error != "" {
		s.Field(w, 2, "error", fmt.Sprintf("%s (%s)", Clean(n.Error), n.ErrorAt.Local().Format(time.DateTime)))
	}
	if !n.Asked.IsZero() {
		s.Field(w, 2, "asked", "a scan was asked for at "+n.Asked.Local().Format(time.DateTime))
	}
	if n.Scan == nil {
		return
	}
	s.Field(w, 2, "rules", n.Scan.Summary())
	s.Field(w, 2, "profile", Clean(n.Scan.Profile))
	s.Field(w, 2, "content", "sha256:"+Clean(n.Scan.Content))
	if n.Scan.Tailoring != "" {
		s.Field(w, 2, "tailoring", "sha256:"+Clean(n.Scan.Tailoring))
	}
	s.Field(w, 2, "scanned", fmt.Sprintf("%s by oscap %s", n.Scan.At.Local().Format(time.DateTime), Clean(n.Scan.Tool)))
	for _, part := range []struct {
		status   appraisal.Status
		problems []scan.Problem
	}{{appraisal.Fail, n.Problems}, {appraisal.Warn, n.Waived}, {appraisal.Pass, n.Within}} {
		for i := range part.problems {
			s.problem(w, part.status, &part.problems[i])
		}
	}
	if len(n.Drift) > 0 {
		fmt.Fprintln(w)
		s.Drift(w, n)
	}
}

func (s Style) problem(w io.Writer, st appraisal.Status, p *scan.Problem) {
	fmt.Fprintf(w, "\n%s %s\n", s.Mark(st), Clean(p.Message))
	for _, f := range []struct{ label, text string }{{"expected", p.Expected}, {"observed", p.Observed}, {"cause", p.Cause}, {"remedy", p.Remedy}} {
		if f.text != "" {
			s.Field(w, 4, f.label, Clean(f.text))
		}
	}
}

// Drift prints what changed since the scan before.
func (s Style) Drift(w io.Writer, n *protocol.NodeCompliance) {
	if n.Before.IsZero() {
		fmt.Fprintln(w, "there is no scan before to compare with")
		return
	}
	fmt.Fprintf(w, "since %s: %d rules changed\n", n.Before.Local().Format(time.DateTime), len(n.Drift))
	for i := range n.Drift {
		c := &n.Drift[i]
		st := appraisal.Pass
		if c.Worse() {
			st = appraisal.Fail
		}
		fmt.Fprintf(w, "%s %s: %s -> %s\n", s.Mark(st), Clean(c.ID), outcome(string(c.Was)), outcome(string(c.Now)))
		if c.Worse() && c.Fix != "" {
			s.Field(w, 4, "remedy", Clean(c.Fix))
		}
	}
}

func outcome(o string) string {
	if o == "" {
		return "not judged"
	}
	return Clean(o)
}
