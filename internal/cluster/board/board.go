// Package board is what the controller knows of all nodes at this moment, and what the breaker makes of it. Everything on it can be made again
// from the objects in the API server and the stream of AIAS: it is a view, kept because a decision must see all falls before the first is
// carried out.
package board

import (
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"touchstone.dev/touchstone/internal/cluster/breaker"
	"touchstone.dev/touchstone/internal/cluster/class"
	"touchstone.dev/touchstone/internal/cluster/verdict"
)

// Entry is one node.
type Entry struct {
	Name    string
	UID     types.UID
	Verdict verdict.Verdict
	Class   class.Node // what classes are held against
	// Classes are those that the node meets, sorted; Lost those that it met once and does not any more, with the time when it lost them.
	Classes []string
	Lost    map[string]time.Time
	// FellAt is when it last lost trust or a class; zero while it has all that it ever had.
	FellAt time.Time
	// Since is when it became trusted, or stopped to be, last.
	Since time.Time
	// Until is when something changes by itself: the result ends, or gets too old for a class.
	Until time.Time
}

// Enforcement is how verdicts are enforced.
type Enforcement struct {
	Breaker breaker.Config
	// Stay leaves pods without a class where they are.
	Stay    bool
	Confirm string
}

// Board is safe for concurrent use.
type Board struct {
	now       func() time.Time
	mu        sync.RWMutex
	nodes     map[string]*Entry
	rules     Enforcement
	loaded    bool
	outcome   breaker.Outcome
	onNode    []func(name string)
	onOutcome []func()
}

// New makes an empty board.
func New(now func() time.Time) *Board {
	return &Board{now: now, nodes: map[string]*Entry{}, rules: Enforcement{Breaker: breaker.Default()}}
}

// OnNode calls fn when something that others act on changed for a node: what it meets, its trust, or whether it is held. OnOutcome calls fn when
// the breaker's state changed. Both are to be called before the first entry, and must not call back.
func (b *Board) OnNode(fn func(name string)) { b.onNode = append(b.onNode, fn) }

// OnOutcome is described at OnNode.
func (b *Board) OnOutcome(fn func()) { b.onOutcome = append(b.onOutcome, fn) }

// Load begins: with all nodes, and the state that the breaker had. Decisions are made from then on.
func (b *Board) Load(entries []Entry, rules Enforcement, state breaker.State) {
	b.mu.Lock()
	for i := range entries {
		b.nodes[entries[i].Name] = &entries[i]
	}
	b.rules, b.outcome.State, b.loaded = rules, state, true
	b.mu.Unlock()
	b.Decide()
}

// Loaded says whether Load was called.
func (b *Board) Loaded() bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.loaded
}

// SetRules changes how verdicts are enforced.
func (b *Board) SetRules(rules Enforcement) {
	b.mu.Lock()
	changed := b.rules != rules
	stay := b.rules.Stay != rules.Stay
	b.rules = rules
	names := []string{}
	if stay {
		for name := range b.nodes {
			names = append(names, name)
		}
	}
	b.mu.Unlock()
	if changed {
		b.Decide()
	}
	b.tell(names)
}

// Rules returns how verdicts are enforced.
func (b *Board) Rules() Enforcement {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.rules
}

// Get returns a node's entry.
func (b *Board) Get(name string) (Entry, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	e, ok := b.nodes[name]
	if !ok {
		return Entry{}, false
	}
	return *e, true
}

// All returns every entry, in no order.
func (b *Board) All() []Entry {
	b.mu.RLock()
	defer b.mu.RUnlock()
	all := make([]Entry, 0, len(b.nodes))
	for _, e := range b.nodes {
		all = append(all, *e)
	}
	return all
}

// Set replaces a node's entry by what change makes of it, in one step: two that look at one node at the same time do not lose a fall. A nil entry is
// given for a node that is new.
func (b *Board) Set(name string, change func(old *Entry) Entry) Entry {
	b.mu.Lock()
	old := b.nodes[name]
	e := change(old)
	b.nodes[name] = &e
	falls := old == nil || !old.FellAt.Equal(e.FellAt) || old.Verdict.Trusted != e.Verdict.Trusted || old.Verdict.Silence != e.Verdict.Silence
	tell := falls || !slices.Equal(old.Classes, e.Classes) || !maps.Equal(old.Lost, e.Lost)
	b.mu.Unlock()
	if falls {
		b.Decide()
	}
	if tell {
		b.tell([]string{name})
	}
	return e
}

// Remove forgets a node that is no more.
func (b *Board) Remove(name string) {
	b.mu.Lock()
	_, had := b.nodes[name]
	delete(b.nodes, name)
	b.mu.Unlock()
	if had {
		b.Decide()
		b.tell([]string{name})
	}
}

// Held says whether the breaker holds what a node's fall would remove.
func (b *Board) Held(name string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.outcome.Nodes[name]
}

// Outcome is what the breaker decided last.
func (b *Board) Outcome() breaker.Outcome {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.outcome
}

// Decide asks the breaker again.
func (b *Board) Decide() {
	b.mu.Lock()
	if !b.loaded {
		b.mu.Unlock()
		return
	}
	nodes := make([]breaker.Node, 0, len(b.nodes))
	for name, e := range b.nodes {
		if e.FellAt.IsZero() && !e.Verdict.Trusted {
			continue // never had trust: nothing to fall from
		}
		n := breaker.Node{Name: name, FellAt: e.FellAt, Silence: e.Verdict.Silence, Since: e.Since}
		if r := e.Verdict.Result; r != nil {
			n.Issued, n.Expires = r.Issued, r.Expires
		}
		nodes = append(nodes, n)
	}
	old := b.outcome
	b.outcome = breaker.Decide(b.rules.Breaker, old.State, b.rules.Confirm, nodes, b.now(), holdID)
	var changed []string
	for name := range b.nodes {
		if old.Nodes[name] != b.outcome.Nodes[name] {
			changed = append(changed, name)
		}
	}
	state := old.State != b.outcome.State || old.Fallen != b.outcome.Fallen
	b.mu.Unlock()
	b.tell(changed)
	if state {
		for _, fn := range b.onOutcome {
			fn()
		}
	}
}

func (b *Board) tell(names []string) {
	for _, name := range names {
		for _, fn := range b.onNode {
			fn(name)
		}
	}
}

// holdID is what a person repeats: short, and no word that another hold had.
func holdID() string { return strings.ToLower(rand.Text()[:8]) }
