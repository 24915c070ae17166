package render

import (
	"io"
	"strconv"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/protocol"
)

// Ledger draws entries of the ledger.
func (s Style) Ledger(w io.Writer, entries []ledger.Numbered) {
	rows := make([]row, len(entries))
	for i := range entries {
		e := &entries[i]
		what := e.Decision
		if e.Subject != "" {
			what = strings.TrimSpace(what + " " + e.Subject)
		}
		if e.Repeated > 0 {
			what += " (and " + strconv.Itoa(e.Repeated) + " times more)"
		}
		rows[i] = row{cells: []cell{
			plain(strconv.FormatUint(e.Index, 10)), plain(e.Time.UTC().Format(time.RFC3339)), plain(Clean(string(e.Kind))), plain(Clean(e.Node)), plain(Clean(e.Actor)),
			plain(Clean(what)),
		}, note: s.under(e.Reason)}
	}
	s.list(w, "the ledger has no such entry", []string{"#", "time", "kind", "worker", "by", "what"}, rows)
}

// Keys draws the key-encryption keys of AIAS.
func (s Style) Keys(w io.Writer, l *protocol.KeyList) {
	rows := make([]row, len(l.Keys))
	for i, k := range l.Keys {
		state := plain("older")
		switch {
		case k.Current:
			state = cell{"current", func(text string) string { return s.Status(appraisal.Pass, text) }}
		case k.Missing:
			state = cell{"missing", func(text string) string { return s.Status(appraisal.Fail, text) }}
		}
		rows[i] = row{cells: []cell{plain(Clean(k.ID)), plain(Clean(k.Kind)), plain(k.Created.UTC().Format(time.RFC3339)), plain(strconv.Itoa(k.Secrets)), state}}
	}
	if l.Moving && len(rows) > 0 {
		rows[len(rows)-1].note = s.below("the configuration names another place: `touchstone keys rotate` moves there")
	}
	s.list(w, "AIAS has no key-encryption key", []string{"key", "kind", "created", "secrets", "state"}, rows)
}
