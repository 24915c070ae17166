// Package breaker decides when falls of nodes are too many to be true: a wrong policy, a fault of AIAS, a cut network. It is pure.
//
// Placement is never its matter: nodes that fall take no new pods, always. What it holds is the removal of what runs: the taint's
// NoExecute and evictions. Two kinds of fall differ. A node that AIAS has judged and found wanting fell by a verdict; a node that was
// silent, or whose AIAS was, fell by silence, and that says nothing about the node. Silence is held as soon as those that fell and those that
// are about to are too many; a verdict on no more than MinNodes nodes is carried out whatever else happens.
package breaker

import (
	"fmt"
	"time"
)

// Config bounds what falls at once.
type Config struct {
	MaxShare int // per cent of the nodes that have or had trust
	MinNodes int // so many may always fall
	Window   time.Duration
}

// Default is what holds without a TrustEnforcement.
func Default() Config { return Config{MaxShare: 30, MinNodes: 1, Window: time.Minute} }

// Node is one node that has trust, or had it.
type Node struct {
	Name string
	// FellAt is when it lost trust, or a class that it had; zero while it has all.
	FellAt  time.Time
	Silence bool      // it fell because nothing newer came
	Since   time.Time // when trust came back last
	Issued  time.Time // of its newest result
	Expires time.Time
}

// State is what is kept between decisions, in TrustEnforcement.status.
type State struct {
	Held   bool
	HoldID string
	Since  time.Time // when this state began; zero at first
}

// Outcome is a decision.
type Outcome struct {
	State
	Nodes   map[string]bool // held: nothing that runs there is removed
	Fallen  int             // nodes that count as fallen at once
	Limit   int             // so many may
	Message string
	// Wake is when to decide again though nothing changes; zero for never.
	Wake time.Time
}

// Decide takes the state before and all nodes. A hold begins when too many nodes fall within the window. It ends when confirm names it, when
// no node is left, or when few are and none has come back for a window: then the rest is carried out.
func Decide(c Config, s State, confirm string, nodes []Node, now time.Time, newID func() string) Outcome {
	t := tally(c, s, nodes, now)
	switch {
	case s.Held && confirm != "" && confirm == s.HoldID:
		return Outcome{State: State{Since: now.Truncate(time.Second)}, Limit: t.limit, Message: fmt.Sprintf("hold %s was confirmed: what was held is carried out", s.HoldID)}
	case !s.Held && !t.over(c):
		return Outcome{State: s, Fallen: t.fallen(), Limit: t.limit}
	case !s.Held:
		// The window reaches back: what fell in it is part of the same event. It is counted anew, as it will be from now on.
		s = State{Held: true, HoldID: newID(), Since: now.Truncate(time.Second)}
		t = tally(c, s, nodes, now)
	case t.fallen() == 0:
		return Outcome{State: State{Since: now.Truncate(time.Second)}, Limit: t.limit, Message: "trust returned: hold " + s.HoldID + " has ended"}
	case !t.over(c) && !now.Before(t.quiet(c, s)):
		return Outcome{State: State{Since: now.Truncate(time.Second)}, Limit: t.limit,
			Message: fmt.Sprintf("hold %s has ended: %d nodes are left, which is not too many", s.HoldID, t.fallen())}
	}
	o := Outcome{State: s, Nodes: map[string]bool{}, Fallen: t.fallen(), Limit: t.limit, Wake: t.quiet(c, s)}
	for _, n := range t.silent {
		o.Nodes[n] = true
	}
	if len(t.judged) > c.MinNodes {
		for _, n := range t.judged {
			o.Nodes[n] = true
		}
	}
	o.Message = fmt.Sprintf("%d of %d nodes fell at once (%d are about to), more than %d: nothing that runs there is removed until they are trusted again, or spec.confirm is %s",
		t.fallen(), t.base, t.doomed, t.limit, s.HoldID)
	return o
}

// count is what a decision is made from.
type count struct {
	judged, silent []string // fell by a verdict, by silence
	doomed         int      // have trust, and are about to fall by silence
	base, limit    int
	returned       time.Time // last return of trust
}

func (t *count) fallen() int { return len(t.judged) + len(t.silent) }

// over says whether it is too many to be true.
func (t *count) over(c Config) bool {
	return len(t.judged) > c.MinNodes && t.fallen() > t.limit || len(t.silent) > 0 && t.fallen()+t.doomed > t.limit
}

// quiet is when a hold may end though nodes are left.
func (t *count) quiet(c Config, s State) time.Time {
	last := s.Since
	if t.returned.After(last) {
		last = t.returned
	}
	return last.Add(c.Window)
}

// tally counts the falls that belong together: those of the window, while a hold lasts those since the window before it. What fell before the
// state began was decided then.
func tally(c Config, s State, nodes []Node, now time.Time) count {
	from := now.Add(-c.Window)
	if s.Held {
		from = s.Since.Add(-c.Window)
	} else if from.Before(s.Since) {
		from = s.Since.Add(time.Second)
	}
	from = from.Truncate(time.Second) // times of falls are kept to the second
	var t count
	for _, n := range nodes {
		if n.FellAt.IsZero() {
			t.base++
			if about(n, now) {
				t.doomed++
			}
			if n.Since.After(t.returned) {
				t.returned = n.Since
			}
			continue
		}
		if n.FellAt.Before(from) {
			continue
		}
		t.base++
		if n.Silence {
			t.silent = append(t.silent, n.Name)
		} else {
			t.judged = append(t.judged, n.Name)
		}
	}
	t.limit = max(c.MinNodes, t.base*c.MaxShare/100)
	return t
}

// about says whether a trusted node is so late with its next result that silence is near: a quarter of the last one's life is left. Nodes attest
// at least twice in that life.
func about(n Node, now time.Time) bool {
	life := n.Expires.Sub(n.Issued)
	return life > 0 && n.Expires.Sub(now) <= life/4
}
