package sigma

import (
	"container/list"
	"encoding/binary"
	"time"
)

// MaxGroups is how many groups a Correlator keeps when its maker names no other number.
const MaxGroups = 4096

// Correlator is what correlations remember of one source of events. It is bounded: when there are more groups than it may keep, the one that
// has been quiet for longest goes. It is for one goroutine.
type Correlator struct {
	set     *Set
	max     int
	groups  map[string]*list.Element // of *group
	recent  *list.List               // most recent first
	kept    int                      // times and values over all groups
	evicted uint64
	last    time.Time
	key     []byte
	bytes   [][]byte
}

// group is what one correlation knows of one group.
type group struct {
	key   string
	times []time.Time          // event_count: of the newest matches; temporal: of each rule
	start []time.Time          // temporal_ordered: when the newest chain up to each rule began
	seen  map[string]time.Time // value_count: when each value was seen last
}

// size is what a group costs, in times and values.
func (g *group) size() int { return 1 + len(g.times) + len(g.start) + len(g.seen) }

// keptPerGroup bounds the times and values that all groups together keep: this many for each group that there may be.
const keptPerGroup = 16

// NewCorrelator makes one for a source of events; groups of 0 means MaxGroups.
func NewCorrelator(s *Set, groups int) *Correlator {
	if groups <= 0 {
		groups = MaxGroups
	}
	return &Correlator{set: s, max: groups, groups: map[string]*list.Element{}, recent: list.New()}
}

// Evicted is how many groups had to go before their time was over: what they would have become is not known.
func (c *Correlator) Evicted() uint64 { return c.evicted }

// Add tells of a match of a rule at a time, and calls fire with each correlation that is complete with it. Time that goes back stands still.
func (c *Correlator) Add(rule int, ev Event, at time.Time, fire func(rule int)) {
	if at.After(c.last) {
		c.last = at
	}
	c.add(rule, ev, c.last, fire)
}

func (c *Correlator) add(rule int, ev Event, at time.Time, fire func(int)) {
	for _, i := range c.set.children[rule] {
		cc := c.set.rules[i].corr
		for k, n := range cc.rules {
			if n == rule && c.one(i, cc, k, ev, at) {
				fire(i)
				c.add(i, ev, at, fire)
			}
		}
	}
}

// one adds a match of the k-th rule of a correlation, and reports whether that makes it complete. It then begins anew.
func (c *Correlator) one(i int, cc *compiled, k int, ev Event, at time.Time) bool {
	g := c.group(i, cc, k, ev)
	before := g.size()
	done := false
	switch cc.kind {
	case eventCount:
		g.times = append(after(g.times, at.Add(-cc.span)), at)
		done = len(g.times) >= cc.least
	case valueCount:
		done = c.count(cc, g, k, ev, at)
	case temporal:
		g.resize(len(cc.rules))
		g.times[k] = at
		n := 0
		for _, t := range g.times {
			if !t.IsZero() && at.Sub(t) <= cc.span {
				n++
			}
		}
		done = n >= cc.least
	case temporalOrdered:
		done = g.ordered(cc, k, at)
	}
	c.kept += g.size() - before
	if done {
		c.drop(c.groups[g.key])
	}
	c.shrink()
	return done
}

func (g *group) resize(n int) {
	if g.times == nil {
		g.times = make([]time.Time, n)
	}
}

// ordered moves the newest chain on: its part before rule k must have begun within the span.
func (g *group) ordered(cc *compiled, k int, at time.Time) bool {
	if g.start == nil {
		g.start = make([]time.Time, len(cc.rules))
	}
	if k == 0 {
		g.start[0] = at
	} else if s := g.start[k-1]; !s.IsZero() && at.Sub(s) <= cc.span {
		g.start[k] = s
	} else {
		return false
	}
	return k == len(cc.rules)-1
}

// count adds the values of an event.
func (c *Correlator) count(cc *compiled, g *group, k int, ev Event, at time.Time) bool {
	if g.seen == nil {
		g.seen = map[string]time.Time{}
	}
	c.bytes = ev.Append(c.bytes[:0], cc.value[k].ID, -1)
	for _, v := range c.bytes {
		g.seen[string(v[:min(len(v), maxText)])] = at
	}
	if len(g.seen) >= cc.least {
		for v, t := range g.seen {
			if at.Sub(t) > cc.span {
				delete(g.seen, v)
			}
		}
	}
	return len(g.seen) >= cc.least
}

// after returns the times that are not before from; they are in order.
func after(times []time.Time, from time.Time) []time.Time {
	n := 0
	for n < len(times) && times[n].Before(from) {
		n++
	}
	return append(times[:0], times[n:]...)
}

// group returns the group of an event, which then is the most recent one.
func (c *Correlator) group(i int, cc *compiled, k int, ev Event) *group {
	c.key = binary.AppendUvarint(c.key[:0], uint64(i))
	for _, f := range cc.by[k] {
		c.bytes = ev.Append(c.bytes[:0], f.ID, -1)
		var v []byte
		if len(c.bytes) > 0 {
			v = c.bytes[0][:min(len(c.bytes[0]), maxText)]
		}
		c.key = binary.AppendUvarint(c.key, uint64(len(v)))
		c.key = append(c.key, v...)
	}
	if e, ok := c.groups[string(c.key)]; ok {
		c.recent.MoveToFront(e)
		return e.Value.(*group)
	}
	g := &group{key: string(c.key)}
	c.groups[g.key] = c.recent.PushFront(g)
	c.kept += g.size()
	return g
}

// shrink lets the quietest groups go until there are no more than may be. The most recent one stays.
func (c *Correlator) shrink() {
	for len(c.groups) > c.max || c.kept > c.max*keptPerGroup && len(c.groups) > 1 {
		c.drop(c.recent.Back())
		c.evicted++
	}
}

func (c *Correlator) drop(e *list.Element) {
	g := c.recent.Remove(e).(*group)
	delete(c.groups, g.key)
	c.kept -= g.size()
}
