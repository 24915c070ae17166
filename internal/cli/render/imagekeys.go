package render

import (
	"io"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
)

// ImageKeys draws the keys of encrypted images.
func (s Style) ImageKeys(w io.Writer, keys []protocol.ImageKey, now time.Time) {
	rows := make([]row, len(keys))
	for i := range keys {
		k := &keys[i]
		state := cell{"released", func(text string) string { return s.Status(appraisal.Pass, text) }}
		if !k.Revoked.IsZero() {
			state = cell{"revoked", func(text string) string { return s.Status(appraisal.Fail, text) }}
		}
		class := k.Class
		if class == "" {
			class = "(conditions)"
		}
		rows[i] = row{cells: []cell{plain(Clean(k.ID)), plain(Clean(class)), state, plain(Span(now.Sub(k.Created))), plain(Clean(k.Image))}, note: s.below(string(k.Conditions))}
	}
	s.list(w, "no image keys: encrypt an image with `touchstone image encrypt SRC DST --trust-class NAME`", []string{"id", "class", "state", "age", "image"}, rows)
}

// Classes draws trust classes.
func (s Style) Classes(w io.Writer, classes []protocol.Class) {
	rows := make([]row, len(classes))
	for i := range classes {
		c := &classes[i]
		rows[i] = row{cells: []cell{plain(Clean(c.Name)), plain(Clean(c.By)), plain(Clean(string(c.Conditions)))}}
	}
	s.list(w, "AIAS knows no trust classes: in a cluster the controller brings each TrustClass, else use `touchstone class set NAME FILE`", []string{"class", "set by", "demands"}, rows)
}
