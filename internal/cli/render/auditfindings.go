package render

import (
	"fmt"
	"io"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// AuditFindings shows what is odd about a chain.
func AuditFindings(r *protocol.AuditReport) func(io.Writer) {
	return func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d entries, head %s\n", Clean(r.Node), r.At.Seq, r.At.Head)
		for _, f := range r.Findings {
			state := "open"
			if !f.Accepted.IsZero() {
				state = "accepted by " + f.By
			}
			fmt.Fprintf(w, "%s at entry %d (%s): expected %s, observed %s; %s\n", f.Kind, f.Seq, f.At.Format(time.RFC3339), Clean(f.Expected), Clean(f.Observed), Clean(state))
		}
	}
}
