package render

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
)

// Detections shows misuse that was found in audit events, the worst of each node first.
func (s Style) Detections(w io.Writer, list []protocol.Detection, now time.Time) {
	rows := make([]row, len(list))
	for i := range list {
		d := &list[i]
		status := appraisal.Pass
		switch d.Effect {
		case "fail":
			status = appraisal.Fail
		case "warn":
			status = appraisal.Warn
		}
		effect := cell{d.Effect, func(text string) string { return s.Status(status, text) }}
		until := d.Until
		if !d.Ends.IsZero() {
			until = d.Ends.UTC().Format(time.RFC3339)
		}
		note := fmt.Sprintf("%s; %s", d.What, d.Who)
		if len(d.Techniques) > 0 {
			note += " [" + strings.Join(d.Techniques, ", ") + "]"
		}
		rows[i] = row{cells: []cell{plain(Clean(d.Node)), plain(d.ID), plain(Clean(d.Rule)), plain(d.Severity), effect, plain(strconv.FormatUint(d.Count, 10)),
			plain(Age(d.Last, now)), plain(Clean(until))}, note: s.below(note)}
	}
	s.list(w, "no misuse was found that still counts", []string{"node", "id", "rule", "severity", "effect", "count", "last", "until"}, rows)
}
