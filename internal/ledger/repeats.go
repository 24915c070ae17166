package ledger

import (
	"maps"
	"sync"
	"time"
)

// RepeatWindow is how long a refusal that repeats itself is only counted.
const RepeatWindow = 10 * time.Second

// Bounds of what one window writes: this many different refusals of one node, and of all nodes. Those beyond are counted by node, and beyond
// maxNodes all together.
const (
	maxOfNode = 8
	maxOfAll  = 512
	maxNodes  = 512
)

// refusal is what tells refusals apart.
type refusal struct{ node, actor, subject, decision, reason string }

type repeat struct {
	entry Entry // the last one
	since time.Time
	count int
}

// repeats counts refusals that are not written one by one.
type repeats struct {
	mu      sync.Mutex
	now     func() time.Time
	seen    map[refusal]*repeat
	of      map[string]int // different refusals in seen, by node
	further map[string]*repeat
}

func newRepeats(now func() time.Time) *repeats {
	return &repeats{now: now, seen: map[refusal]*repeat{}, of: map[string]int{}, further: map[string]*repeat{}}
}

// count tells whether e is to be written, with the number of those before it that were not.
func (r *repeats) count(e Entry) (before int, write bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	s, fresh := r.find(e)
	if fresh {
		s.entry, s.since = e, now
		return 0, true
	}
	if now.Sub(s.since) < RepeatWindow {
		s.count++
		s.entry = e
		return 0, false
	}
	before, s.count, s.since = s.count, 0, now
	return before, true
}

// find returns what counts e, and whether that is new.
func (r *repeats) find(e Entry) (s *repeat, fresh bool) {
	key := refusal{e.Node, e.Actor, e.Subject, e.Decision, e.Reason}
	if s = r.seen[key]; s != nil {
		return s, false
	}
	if len(r.seen) < maxOfAll && r.of[e.Node] < maxOfNode {
		s = new(repeat)
		r.seen[key] = s
		r.of[e.Node]++
		return s, true
	}
	node := e.Node
	if s = r.further[node]; s == nil && len(r.further) >= maxNodes {
		node = ""
		s = r.further[node]
	}
	if s != nil {
		return s, false
	}
	s = new(repeat)
	r.further[node] = s
	return s, true
}

// settle ends the windows that are over, or all, and returns an entry for each that counted something.
func (r *repeats) settle(all bool) (out []Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	over := func(s *repeat) bool {
		if !all && now.Sub(s.since) < RepeatWindow {
			return false
		}
		if s.count > 0 {
			s.entry.Repeated = s.count - 1 // the entry stands for one of them
			out = append(out, s.entry)
		}
		return true
	}
	for key, s := range r.seen {
		if over(s) {
			delete(r.seen, key)
			if r.of[key.node]--; r.of[key.node] == 0 {
				delete(r.of, key.node)
			}
		}
	}
	maps.DeleteFunc(r.further, func(_ string, s *repeat) bool { return over(s) })
	return out
}
