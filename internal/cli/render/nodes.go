package render

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
)

// Nodes draws the fleet: one line a node with its five levels, and below it why it is not trusted.
func (s Style) Nodes(w io.Writer, nodes []protocol.Node, now time.Time) {
	if len(nodes) == 0 {
		s.Paragraph(w, 0, "no nodes yet: make a token with `touchstone token create` and enrol a worker with it")
		return
	}
	rows := make([]row, len(nodes))
	for i := range nodes {
		rows[i] = s.node(&nodes[i], now)
	}
	heads := append([]string{"node", "trust"}, appraisal.LevelNames[:]...)
	heads = append(heads, "age")
	if s.nodesWidth(nodes) > s.width() {
		heads = []string{"node", "trust", "1", "2", "3", "4", "5", "age"}
		defer s.Paragraph(w, 0, "levels: 1 firmware, 2 secure-boot, 3 boot-loader, 4 kernel, 5 runtime")
	}
	s.table(w, heads, rows)
}

// nodesWidth is how wide the table is with the names of the levels as headings.
func (s Style) nodesWidth(nodes []protocol.Node) int {
	name := len("node")
	for i := range nodes {
		name = max(name, columns(Clean(nodes[i].Name)))
	}
	return name + len("untrusted") + len("never") + 2*7 + len(strings.Join(appraisal.LevelNames[:], ""))
}

func (s Style) node(n *protocol.Node, now time.Time) row {
	trust := appraisal.Status("unknown")
	switch n.Trust {
	case protocol.Trusted:
		trust = appraisal.Pass
	case protocol.Untrusted:
		trust = appraisal.Fail
	}
	r := row{cells: []cell{plain(Clean(n.Name)), {Clean(n.Trust), func(t string) string { return s.Status(trust, t) }}}}
	for i := range 5 {
		st := appraisal.Unknown
		if i < len(n.Levels) {
			st = appraisal.Status(n.Levels[i].Status)
		}
		r.cells = append(r.cells, cell{s.Mark(st), func(t string) string { return s.Status(st, t) }})
	}
	r.cells = append(r.cells, cell{strings.TrimSuffix(Age(n.Attested, now), " ago"), s.Dim})
	if n.Trust != protocol.Trusted {
		r.note = s.reason(n.Levels, n.Reason)
	} else {
		r.note = s.below(TagLine(n))
	}
	return r
}

// reason draws the line below a node that is not trusted: the first level that costs trust, or what AIAS says of it.
func (s Style) reason(levels []protocol.LevelInfo, reason string) string {
	text := ""
	for _, want := range []appraisal.Status{appraisal.Fail, appraisal.Unknown} {
		for _, l := range levels {
			if text == "" && l.Status == string(want) && l.Reason != "" {
				text = fmt.Sprintf("%d %s: %s", l.Level, l.Name, l.Reason)
			}
		}
	}
	silent := !slices.ContainsFunc(levels, func(l protocol.LevelInfo) bool { return l.Status != string(appraisal.Unknown) })
	if reason != "" && (text == "" || silent) { // what holds for all levels is not the fault of the first
		text = reason
	}
	return s.below(text)
}

// below draws a remark under the row of a table; nothing for empty text.
func (s Style) below(text string) string {
	if text == "" {
		return ""
	}
	return s.Dim("  " + s.elbow() + s.cut(Clean(text), s.width()-5))
}

// under draws a remark under the row of a table, whole: there is no other place to read it.
func (s Style) under(text string) string {
	lines := wrap(Clean(text), s.width()-5)
	for i, l := range lines {
		mark := s.elbow()
		if i > 0 {
			mark = strings.Repeat(" ", columns(mark))
		}
		lines[i] = s.Dim("  " + mark + l)
	}
	return strings.Join(lines, "\n")
}

func (s Style) elbow() string {
	if s.Unicode {
		return "└ "
	}
	return "`- "
}

// History draws changes of verdicts, in the order given.
func (s Style) History(w io.Writer, changes []protocol.Change) {
	if len(changes) == 0 {
		fmt.Fprintln(w, "nothing has happened yet")
		return
	}
	rows := make([]row, len(changes))
	for i, c := range changes {
		st := appraisal.Unknown
		switch c.To {
		case protocol.Trusted:
			st = appraisal.Pass
		case protocol.Untrusted:
			st = appraisal.Fail
		}
		to := c.To
		if to == "" {
			to = "removed"
		}
		rows[i] = row{
			cells: []cell{
				{c.At.Local().Format(time.DateTime), s.Dim}, plain(Clean(c.Node)),
				{Clean(to), func(t string) string { return s.Status(st, t) }}, plain(Clean(c.Cause)),
			},
			note: s.under(c.Reason),
		}
	}
	s.table(w, []string{"time", "node", "verdict", "cause"}, rows)
}

// Age says how long ago a moment was, in one unit: "now", "12s ago", "3d ago"; "never" for the zero time.
func Age(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	text := Span(now.Sub(t))
	if text == "0s" {
		return "now"
	}
	return text + " ago"
}

// Span writes a duration in one unit: "12s", "5m", "3h", "9d". A negative one is "0s".
func Span(d time.Duration) string {
	switch {
	case d < time.Second:
		return "0s"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + "d"
}
