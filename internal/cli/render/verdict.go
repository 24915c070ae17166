package render

import (
	"fmt"
	"io"
	"strings"

	"touchstone.dev/touchstone/internal/appraisal"
)

// Verdict draws a verdict: a headline, the five levels, and in full each finding that is no pass.
func (s Style) Verdict(w io.Writer, title string, v *appraisal.Verdict) {
	word, st := "is trusted", appraisal.Pass
	if !v.Trusted {
		word, st = "is not trusted", appraisal.Fail
	}
	fmt.Fprintf(w, "%s %s\n\n", s.Bold(Clean(title)), s.Status(st, word))
	for i := range v.Levels {
		s.level(w, &v.Levels[i])
	}
	for i := range v.Levels {
		for j := range v.Levels[i].Findings {
			if f := &v.Levels[i].Findings[j]; f.Status != appraisal.Pass {
				fmt.Fprintln(w)
				s.Finding(w, f)
			}
		}
	}
}

// level draws "✗ 5 runtime      1 of 9 checks failed".
func (s Style) level(w io.Writer, l *appraisal.Level) {
	count := map[appraisal.Status]int{}
	for i := range l.Findings {
		count[l.Findings[i].Status]++
	}
	var parts []string
	for _, k := range []struct {
		status appraisal.Status
		one    string
	}{{appraisal.Fail, "failed"}, {appraisal.Unknown, "unknown"}, {appraisal.Warn, "to look at"}, {appraisal.Pass, "passed"}} {
		if n := count[k.status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, k.one))
		}
	}
	mark := s.Mark(l.Status)
	pad := ""
	if !s.Unicode {
		pad = strings.Repeat(" ", max(0, len("ok")-len(mark)))
	}
	fmt.Fprintf(w, "  %s%s %d %-12s %s\n", s.Status(l.Status, mark), pad, l.Level, l.Name, s.Dim(strings.Join(parts, ", ")))
}

// Finding draws one finding with all it knows.
func (s Style) Finding(w io.Writer, f *appraisal.Finding) {
	mark := s.Mark(f.Status)
	head := s.Bold(Clean(f.Rule))
	if f.Provenance != "" {
		head += s.Dim(" (" + Clean(f.Provenance) + ")")
	}
	fmt.Fprintf(w, "  %s %s\n", s.Status(f.Status, mark), head)
	const indent = 4
	s.Paragraph(w, indent, Clean(f.Message))
	s.Field(w, indent, "event", Clean(EventText(f.Event)))
	s.Field(w, indent, "expected", Clean(f.Expected))
	s.Field(w, indent, "observed", Clean(f.Observed))
	s.Field(w, indent, "cause", Clean(f.Cause))
	s.Field(w, indent, "remedy", Clean(f.Remedy))
}

// EventText says where an event stands: "IMA entry 12, PCR 10: /bin/unk".
func EventText(e *appraisal.Event) string {
	if e == nil {
		return ""
	}
	what := "event"
	switch e.Log {
	case "firmware":
		what = "firmware event"
	case "ima":
		what = "IMA entry"
	}
	text := fmt.Sprintf("%s %d, PCR %d", what, e.Index, e.PCR)
	if e.Type != "" && !strings.HasPrefix(e.Description, e.Type) {
		text += ", " + e.Type
	}
	if e.Description != "" {
		text += ": " + e.Description
	}
	return text
}

// Worst returns the first finding of the worst status that costs trust, and its level; nil when every finding passes or warns.
func Worst(v *appraisal.Verdict) (*appraisal.Level, *appraisal.Finding) {
	for _, want := range []appraisal.Status{appraisal.Fail, appraisal.Unknown} {
		for i := range v.Levels {
			for j := range v.Levels[i].Findings {
				if f := &v.Levels[i].Findings[j]; f.Status == want {
					return &v.Levels[i], f
				}
			}
		}
	}
	return nil, nil
}
