package detect

import (
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/detect/sigma"
	"touchstone.dev/touchstone/internal/audit/record"
)

// Limits of what one node can make us keep.
const (
	budgetSubjects = 20 // new subjects of a rule in a minute; the others are counted together
	budgetTime     = time.Minute
	maxText        = 300 // bytes of one value that a detection shows
)

// More is the subject of what was over the budget of a rule.
const More = "(more)"

// Detection is one match of a rule.
type Detection struct {
	Rule    *Rule
	At      time.Time // as the kernel stamped it
	Event   string    // "1795000336.990:769606"
	Subject string    // "exe=/tmp/x"; "" when the rule names none; More
	Facts   []Fact    // fields of the event that the rule shows
	Process record.Process
	Exe     string
	Where   chain.Context
	Over    bool // the budget of the rule is used up: only the number counts
}

// Fact is one field of an event.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Outcome is what an event came to.
type Outcome struct {
	Detections []Detection
	Fixed      []string // names of rules whose detections have ended
}

// Node is what is remembered of one node. Methods may be called by several goroutines; events count in the order of the calls.
type Node struct {
	set     *Set
	mu      sync.Mutex
	corr    *sigma.Correlator
	budgets map[int]*budget
	over    uint64
}

// budget is how much a rule said within a minute.
type budget struct {
	from     time.Time
	subjects map[string]bool
}

// NewNode begins with a node.
func (s *Set) NewNode() *Node {
	return &Node{set: s, corr: sigma.NewCorrelator(s.rules, 0), budgets: map[int]*budget{}}
}

// Set returns the rules that the node is watched with.
func (n *Node) Set() *Set { return n.set }

// Lost returns how many groups of correlations had to be forgotten, and how many matches were over a budget.
func (n *Node) Lost() (groups, matches uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.corr.Evicted(), n.over
}

// scratch is what looking at one event needs.
type scratch struct {
	view    view
	matcher sigma.Matcher
	hits    []int
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// skew is how far ahead of our clock a worker's may be.
const skew = 5 * time.Minute

// Event looks at one event, taken in with a context at a time.
func (n *Node) Event(e *record.Event, c *chain.Context, now time.Time) Outcome {
	sc := scratches.Get().(*scratch)
	defer scratches.Put(sc)
	sc.view.set(n.set.schema, e, c)
	sc.hits = sc.hits[:0]
	sc.matcher.Match(n.set.rules, &sc.view, func(i int) { sc.hits = append(sc.hits, i) })
	var out Outcome
	if len(sc.hits) == 0 {
		return out
	}
	// What a clock ahead stamps would make windows of time end too early for all that follows.
	at := e.ID.Time()
	if at.After(now.Add(skew)) {
		at = now
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	all := slices.Clone(sc.hits)
	for _, i := range sc.hits {
		n.corr.Add(i, &sc.view, at, func(i int) { all = append(all, i) })
	}
	for _, i := range all {
		n.hit(i, &sc.view, at, now, &out)
	}
	return out
}

func (n *Node) hit(i int, v *view, at, now time.Time, out *Outcome) {
	r := &n.set.list[i]
	for _, f := range r.fixes {
		out.Fixed = append(out.Fixed, n.set.list[f].Doc.Key())
	}
	if n.set.rules.Silent(i) || len(r.fixes) > 0 && r.Effect.Effect == None {
		return
	}
	d := Detection{Rule: r, At: at, Event: v.ev.ID.String(), Subject: v.text(r.subject, " "), Where: *v.context}
	if !n.within(i, d.Subject, now) {
		n.over++
		d.Subject, d.Over = More, true
		out.Detections = append(out.Detections, d)
		return
	}
	for _, c := range r.show {
		if value := v.text([]column{c}, ""); value != "" {
			d.Facts = append(d.Facts, Fact{Name: c.name, Value: value})
		}
	}
	d.Process, _ = v.ev.Process()
	d.Exe = v.text([]column{{id: fieldExe}}, "")
	out.Detections = append(out.Detections, d)
}

// within takes a detection out of the budget of its rule. Subjects that were seen within the minute cost nothing: they are counted only.
func (n *Node) within(i int, subject string, now time.Time) bool {
	b := n.budgets[i]
	if b == nil || now.Sub(b.from) >= budgetTime || now.Before(b.from) {
		b = &budget{from: now, subjects: map[string]bool{}}
		n.budgets[i] = b
	}
	if b.subjects[subject] {
		return true
	}
	if len(b.subjects) >= budgetSubjects {
		return false
	}
	b.subjects[subject] = true
	return true
}

// text returns the values of fields as a person reads them: name=value when between is not empty.
func (v *view) text(columns []column, between string) string {
	var parts []string
	for _, c := range columns {
		var values []string
		for _, b := range v.Append(nil, c.id, -1) {
			if s := printable(b); !slices.Contains(values, s) && len(values) < 8 {
				values = append(values, s)
			}
		}
		if len(values) == 0 {
			continue
		}
		s := strings.Join(values, ", ")
		if between != "" {
			s = c.name + "=" + s
		}
		parts = append(parts, clip(s))
	}
	return strings.Join(parts, between)
}

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "..."
}

// printable keeps what a program called itself from playing with a terminal.
func printable(b []byte) string {
	if len(b) > maxText+utf8.UTFMax {
		b = b[:maxText+utf8.UTFMax]
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, string(b))
}
