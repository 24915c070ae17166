package render

import (
	"io"
	"strconv"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/protocol"
)

// Tokens draws join tokens.
func (s Style) Tokens(w io.Writer, tokens []protocol.Token, now time.Time) {
	rows := make([]row, len(tokens))
	for i, t := range tokens {
		node := t.Node
		if node == "" {
			node = "any"
		}
		rows[i] = row{cells: []cell{
			plain(Clean(t.ID)), plain(Clean(node)), plain(strconv.Itoa(t.Left)), plain(left(t.Expires, now)), plain(Clean(t.Note)),
		}}
	}
	s.list(w, "no join tokens: make one with `touchstone token create`", []string{"id", "node", "uses", "valid", "note"}, rows)
}

// EKs draws the allow-list of endorsement keys.
func (s Style) EKs(w io.Writer, eks []protocol.EK) {
	rows := make([]row, len(eks))
	for i, e := range eks {
		from := "api"
		if e.File {
			from = "file"
		}
		rows[i] = row{cells: []cell{plain(Clean(e.SHA256)), plain(from), plain(Clean(e.Note))}}
	}
	s.list(w, "the allow-list is empty: endorsement keys are recognised by their certificates", []string{"sha256", "from", "note"}, rows)
}

// References draws imported sources.
func (s Style) References(w io.Writer, refs []protocol.Reference) {
	rows := make([]row, len(refs))
	for i, r := range refs {
		rows[i] = row{cells: []cell{
			plain(Clean(r.Kind)), plain(r.Imported.Local().Format(time.DateOnly)), plain(Clean(r.Name)), plain(Clean(r.Version)),
		}, note: s.below(r.Note)}
	}
	s.list(w, "no references yet: `touchstone reference import *.deb` into the reference folder of AIAS, then `touchstone reload`", []string{"kind", "imported", "name", "version"}, rows)
}

func (s Style) list(w io.Writer, empty string, heads []string, rows []row) {
	if len(rows) == 0 {
		s.Paragraph(w, 0, empty)
		return
	}
	s.table(w, heads, rows)
}

func left(t, now time.Time) string {
	if !now.Before(t) {
		return "over"
	}
	return Span(t.Sub(now))
}

// Tags draws the asset tags of nodes.
func (s Style) Tags(w io.Writer, states []protocol.TagState) {
	rows := make([]row, len(states))
	for i := range states {
		t := &states[i]
		proven := cell{"yes", func(text string) string { return s.Status(appraisal.Pass, text) }}
		if !t.Proven {
			proven = cell{"not yet", func(text string) string { return s.Status(appraisal.Warn, text) }}
		}
		rows[i] = row{cells: []cell{plain(Clean(t.Node)), plain(strconv.FormatUint(t.Serial, 10)), proven, plain(Clean(assettag.Text(t.Tags)))}, note: s.below(t.Reason)}
	}
	s.list(w, "no worker has asset tags: give it some with `touchstone tag set NODE NAME=VALUE...`", []string{"node", "serial", "proven", "tags"}, rows)
}

// TagLine is the asset tags of a node in one line; "" when it has none.
func TagLine(n *protocol.Node) string {
	if len(n.Tags) == 0 {
		return ""
	}
	text := assettag.Text(n.Tags)
	if !n.TagsProven {
		text += " (not proven)"
	}
	return text
}
