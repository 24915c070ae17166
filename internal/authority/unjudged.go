package authority

import (
	"fmt"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/detect"
	"touchstone.dev/touchstone/internal/claims"
)

// unjudged is a way in which events escape the rules. It is kept as a detection, so that it is seen, judged, counted and cleared as those are.
type unjudged struct {
	rule, title, cause, remedy string
}

var (
	unreadable = unjudged{"unreadable-events", "Audit events that cannot be read were not looked at",
		"records of a kernel that is newer than AIAS", "touchstone audit search NODE --format raw shows them; update AIAS, or find out who writes into the agent's spool"}
	forgotten = unjudged{"forgotten-correlations", "A storm of events made AIAS forget groups of correlations: misuse that shows only in several events may have been missed",
		"a busy worker", "look at the events of that time: touchstone audit search NODE; a storm may be meant to hide something"}
)

// unjudgedTime is how long it counts after it was seen last.
const unjudgedTime = 24 * time.Hour

// skip counts n things that were not judged around an entry. at is when that entry was taken in.
func (w *watch) skip(u *unjudged, n uint64, e *chain.Entry, now time.Time, st *watchStep) {
	id := detectionID(u.rule, "")
	k := w.kept[id]
	if k == nil {
		k = &detection{Detection: claims.Detection{ID: id, Rule: u.rule, First: e.Time}, FirstSeq: e.Seq}
		w.kept[id], st.put[id], st.news = k, true, true
	}
	if k.Chain != w.chain || k.FirstSeq > e.Seq {
		k.FirstSeq = e.Seq // a chain that begins anew
	}
	k.Count += n
	k.Last, k.Event, k.Seen = e.Time, chain.EventID(e.Body), now
	k.Chain, k.Seq = w.chain, e.Seq
	k.Severity, k.Effect, k.Lifetime, k.Until = "medium", detect.Warn, unjudgedTime, "24h after it was seen last"
	k.What, k.Who = fmt.Sprintf("%s: %d", u.title, k.Count), fmt.Sprintf("in entries %d to %d of chain %s", k.FirstSeq, k.Seq, k.Chain)
	k.Harmless, k.Remedy = u.cause, u.remedy
	w.dirty[id] = true
	w.gone = keepOut(w.gone, id)
}

// evicted returns how many groups of correlations had to go since the last call.
func (w *watch) evicted() uint64 {
	groups, _ := w.node.Lost()
	was := w.groups
	w.groups = groups
	if groups < was { // other rules came, and with them a new count
		was = 0
	}
	return groups - was
}
