package rules

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/audit/record"
)

// Keeper is what an agent runs beside reading events: it tells how the kernel's rules differ from those that are meant, and keeps keys
// within their budget. It is for one goroutine.
type Keeper struct {
	Governor
	Agent string        // the agent's program
	Every time.Duration // how often rules are compared; default one minute
	last  time.Time
	drift string
}

// Note is what a Keeper has to say: a change by the Governor, or how the rules stand now, when that is otherwise than before.
type Note struct {
	Change *Change
	Drift  string // "": as meant
}

// String returns the note in words.
func (n Note) String() string {
	switch {
	case n.Change != nil:
		return n.Change.String()
	case n.Drift == "":
		return "the audit rules are as meant"
	}
	return "the audit rules are not as meant: " + n.Drift
}

// Count takes note of an event.
func (k *Keeper) Count(e *record.Event) { k.Governor.Count(e) }

// Tick is to be called every second or so. changed tells that the kernel's rules changed (source.AlarmRules): they are compared at once.
func (k *Keeper) Tick(ctx context.Context, now time.Time, changed bool) []Note {
	var notes []Note
	for _, c := range k.Governor.Tick(ctx, now) {
		notes = append(notes, Note{Change: &c})
		changed = true
	}
	every := k.Every
	if every <= 0 {
		every = time.Minute
	}
	if !changed && now.Sub(k.last) < every && !now.Before(k.last) {
		return notes
	}
	k.last = now
	drift := ""
	report, err := Check(ctx, k.Ctl, k.Agent)
	if err != nil {
		drift = err.Error()
	} else {
		drift = report.words(k.Out())
	}
	if drift != k.drift {
		k.drift = drift
		notes = append(notes, Note{Drift: drift})
	}
	return notes
}

// Drift returns how the rules differ from those that are meant, as of the last comparison; "": they do not.
func (k *Keeper) Drift() string { return k.drift }

// words tells of the drift, the keys left out that a Governor took out; at most a handful of rules by name.
func (r *Report) words(out []string) string {
	var all []string
	for _, f := range r.Drift() {
		if slices.Contains(out, f.Rule.Key) && f.State == StateMissing || len(out) > 0 && f.Rule.Key == keyNarrowed {
			continue
		}
		all = append(all, fmt.Sprintf("%s: %s", f.State, f.Rule))
	}
	const most = 5
	if n := len(all); n > most {
		all = append(all[:most], fmt.Sprintf("and %d more", n-most))
	}
	return strings.Join(all, "; ")
}
