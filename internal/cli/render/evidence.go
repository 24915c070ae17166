package render

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"touchstone.dev/touchstone/internal/evidence"
)

// Evidence draws what a document says, with the events of the firmware log and the entries of the IMA list when they are wanted.
func (s Style) Evidence(w io.Writer, title string, v *evidence.View, events, list bool) {
	fmt.Fprintf(w, "%s %s\n\n", s.Bold(Clean(title)), s.Dim("(as sent, not verified)"))
	const indent = 2
	field := func(label, text string) { s.Field(w, indent, label, Clean(text)) }
	field("node", v.Node)
	field("nonce", v.Nonce)
	field("key", strings.TrimSpace(v.AK.Type+" "+v.AK.Name+" "+v.AK.Problem))
	for i := range v.Quotes {
		q := &v.Quotes[i]
		field("quote", quoteText(q))
	}
	field("log", logText(&v.EventLog))
	field("ima", imaText(&v.IMA))
	field("ek certs", Count(len(v.EKCerts), "certificate"))
	if t := v.AssetTag; t != nil {
		field("asset tag", tagText(t))
	}
	for _, f := range v.Facts {
		text := strings.TrimSpace(f.Text)
		if text == "" || strings.Contains(text, "\n") {
			text = fmt.Sprintf("%d bytes", f.Size)
		}
		field("fact", f.Name+": "+text)
	}
	if events {
		fmt.Fprintln(w)
		s.events(w, v.EventLog.Events)
	}
	if list {
		fmt.Fprintln(w)
		s.entries(w, v.IMA.Entries)
	}
}

func quoteText(q *evidence.QuoteView) string {
	parts := []string{q.Signature}
	for bank, pcrs := range q.Selected {
		parts = append(parts, bank+":"+pcrs)
	}
	slices.Sort(parts[1:])
	parts = append(parts, fmt.Sprintf("reset %d, restart %d", q.ResetCount, q.RestartCount))
	if q.Problem != "" {
		parts = append(parts, "problem: "+q.Problem)
	}
	return strings.Join(parts, ", ")
}

func tagText(t *evidence.TagView) string {
	if t.Problem != "" {
		return strings.TrimSpace("NV index "+t.Index) + ", cannot be read: " + t.Problem
	}
	return fmt.Sprintf("NV index %s: serial %d, issued %s, for EK %s", t.Index, t.Serial, t.Issued, t.EKSHA256)
}

func logText(l *evidence.LogView) string {
	switch {
	case l.Problem != "":
		return fmt.Sprintf("%d bytes, cannot be read: %s", l.Size, l.Problem)
	case l.Size > 0:
		return fmt.Sprintf("%d bytes, %s", l.Size, Count(len(l.Events), "event"))
	case l.Unchanged != "":
		return "left out, unchanged: sha256 " + l.Unchanged
	}
	return "none"
}

func imaText(l *evidence.IMAView) string {
	text := fmt.Sprintf("%d bytes, %s", l.Size, Count(len(l.Entries), "entry"))
	if l.Offset > 0 {
		text += fmt.Sprintf(", from byte %d on", l.Offset)
	}
	if l.Problem != "" {
		text += ", cannot be read further: " + l.Problem
	}
	return text
}

// Count writes a number of things: "1 entry", "2 entries". what is one of them.
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if rest, ok := strings.CutSuffix(what, "y"); ok {
		what = rest + "ie"
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func (s Style) events(w io.Writer, events []evidence.EventView) {
	rows := make([]row, len(events))
	for i, e := range events {
		pcr := strconv.Itoa(e.PCR)
		if e.PCR < 0 {
			pcr = "-"
		}
		rows[i] = row{cells: []cell{plain(strconv.Itoa(e.Index)), plain(pcr), plain(Clean(e.Type)), plain(Clean(e.Description))}}
	}
	s.list(w, "the firmware log has no events", []string{"event", "pcr", "type", "description"}, rows)
}

func (s Style) entries(w io.Writer, entries []evidence.IMAEntryView) {
	rows := make([]row, len(entries))
	for i, e := range entries {
		note := e.Problem
		switch {
		case e.Violation:
			note = "violation"
		case note == "" && e.Signed:
			note = "signed"
		}
		rows[i] = row{cells: []cell{plain(strconv.FormatUint(e.Index, 10)), plain(s.cut(e.Digest, 23)), plain(Clean(note)), plain(Clean(e.Path))}}
	}
	s.list(w, "the IMA list has no entries", []string{"entry", "digest", "note", "path"}, rows)
}
