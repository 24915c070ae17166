package record

import (
	"bytes"
	"time"
)

// Defaults of Options.
const (
	DefaultTimeout   = 2 * time.Second
	DefaultMaxOpen   = 4096
	DefaultOpenBytes = 64 << 20
)

// Options of a Coalescer.
type Options struct {
	// Emit is called with each event when it has ended. The event and its bytes are the Coalescer's: valid until Emit returns.
	Emit func(e *Event)
	// Malformed is called with each line that is no record, and where it began; nil: they are only counted. A line that was too long is
	// cut to MaxLine.
	Malformed func(line []byte, at int64)
	// Timeout is how long an event may stay open without an end, by the records' own clock and by that of Tick.
	Timeout time.Duration
	// MaxOpen events, and OpenBytes in all of them, may be open. The oldest is ended early when there are more.
	MaxOpen   int
	OpenBytes int
}

// Stats counts what a Coalescer did.
type Stats struct {
	Records, Events, Partial, Malformed uint64
}

// Coalescer puts the records of events together, which lie interleaved in a log and among netlink messages. Records belong together
// when node, time and serial are the same. An event ends with EOE (netlink) or PROCTITLE (the last record of a system call in a log), at
// once when its type stands alone, else after the timeout.
//
// In the steady state it allocates nothing. It is not safe for concurrent use.
type Coalescer struct {
	Options
	stats Stats
	open  openSet
	nodes map[string]string
	node  string // of the last record

	newest int64 // latest time in any record, in milliseconds
	out    Event // what Emit is given

	offset  int64 // of the next byte that Write gets
	carry   []byte
	skip    bool // the line that is being read is too long
	carryAt int64
}

// NewCoalescer returns a Coalescer with the defaults for what o leaves zero.
func NewCoalescer(o Options) *Coalescer {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.MaxOpen <= 0 {
		o.MaxOpen = DefaultMaxOpen
	}
	if o.OpenBytes <= 0 {
		o.OpenBytes = DefaultOpenBytes
	}
	return &Coalescer{Options: o, open: newOpenSet(o.MaxOpen), nodes: map[string]string{}}
}

// Stats returns what was done so far.
func (c *Coalescer) Stats() Stats { return c.stats }

// Write takes the next bytes of a log, cut anywhere. It never fails.
func (c *Coalescer) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			c.keep(p)
			c.offset += int64(len(p))
			break
		}
		line, at := p[:end], c.offset
		if len(c.carry) > 0 || c.skip {
			c.keep(line)
			line, at = c.carry, c.carryAt
		}
		c.offset += int64(end + 1)
		if c.skip {
			c.malformed(line, at)
		} else {
			c.Line(line, at)
		}
		c.carry, c.skip = c.carry[:0], false
		p = p[end+1:]
	}
	return n, nil
}

// keep holds the beginning of a line until its end comes.
func (c *Coalescer) keep(p []byte) {
	if len(c.carry) == 0 && !c.skip {
		c.carryAt = c.offset
	}
	room := MaxLine - len(c.carry)
	if len(p) > room {
		c.skip, p = true, p[:room]
	}
	c.carry = append(c.carry, p...)
}

// Restart makes Write begin anew at offset, as after a change of files: a line without end is malformed. Open events stay open.
func (c *Coalescer) Restart(offset int64) {
	if len(c.carry) > 0 {
		c.malformed(c.carry, c.carryAt)
	}
	c.carry, c.skip, c.offset = c.carry[:0], false, offset
}

// Safe returns the offset before which all lines belong to events that were emitted: where another reader may take over.
func (c *Coalescer) Safe() int64 {
	safe := c.offset
	if len(c.carry) > 0 {
		safe = c.carryAt
	}
	for i := c.open.oldest; i != none; i = c.open.slots[i].newer {
		safe = min(safe, c.open.slots[i].at)
	}
	return safe
}

// Line takes one line of a log, without its end, that began at the offset at.
func (c *Coalescer) Line(line []byte, at int64) {
	if len(line) > MaxLine {
		c.malformed(line[:MaxLine], at)
		return
	}
	node, id, rec, err := parseLine(line)
	if err != nil {
		c.malformed(line, at)
		return
	}
	if c.node != string(node) {
		c.node = c.intern(node)
	}
	id.Node = c.node
	c.add(id, rec, at)
}

// maxNodes is how many names of nodes are kept. One log has one, a collector's as many as it has senders.
const maxNodes = 4096

func (c *Coalescer) intern(node []byte) string {
	name, ok := c.nodes[string(node)]
	if !ok {
		if len(c.nodes) >= maxNodes {
			clear(c.nodes)
		}
		name = string(node)
		c.nodes[name] = name
	}
	return name
}

// Message takes one netlink message. It may change text, see ParseMessage.
func (c *Coalescer) Message(t Type, text []byte) {
	id, rec, err := ParseMessage(t, text)
	if err != nil {
		c.malformed(text, 0)
		return
	}
	c.add(id, rec, 0)
}

func (c *Coalescer) malformed(line []byte, at int64) {
	c.stats.Malformed++
	if c.Malformed != nil {
		c.Malformed(line, at)
	}
}

func (c *Coalescer) add(id ID, rec Record, at int64) {
	c.stats.Records++
	if t := id.Sec*1000 + int64(id.Milli); t > c.newest {
		c.newest = t
		c.late()
	}
	if rec.Type.Alone() {
		c.out.ID, c.out.Records, c.out.Partial = id, append(c.out.Records[:0], rec), false
		c.emit()
		return
	}
	i := c.open.find(id)
	if rec.Type == TypeEOE {
		if i != none {
			c.end(i, true)
		}
		return
	}
	if i != none {
		if s := &c.open.slots[i]; len(s.spans) == MaxRecords || len(s.buf)+len(rec.Body)+len(rec.Enriched) > MaxEvent-len(s.spans)*lineOverhead {
			c.end(i, false)
			i = none
		}
	}
	if i == none {
		if c.open.full() {
			c.end(c.open.oldest, false)
		}
		i = c.open.insert(id, at, c.newest)
	}
	c.open.append(i, rec)
	if rec.Type == TypeProctitle {
		c.end(i, true)
		return
	}
	for c.open.bytes > c.OpenBytes && c.open.oldest != none {
		c.end(c.open.oldest, false)
	}
}

// lineOverhead bounds what a line of Raw has beyond body and names.
const lineOverhead = MaxNode + 128

// Tick ends what has been open for longer than the timeout by the clock of whoever calls it. The first Tick after a record came starts
// its time, so that Tick is to be called several times per timeout.
func (c *Coalescer) Tick(now time.Time) {
	c.expire(func(s *slot) bool {
		if s.ticked.IsZero() || now.Before(s.ticked) {
			s.ticked = now
		}
		return now.Sub(s.ticked) >= c.Timeout
	})
}

// late ends what has been open for longer than the timeout by the records' clock. What counts is when an event's first record came: its
// own time is that of the begin of a system call, which may have slept for hours.
func (c *Coalescer) late() {
	for i := c.open.oldest; i != none && c.newest-c.open.slots[i].opened > c.Timeout.Milliseconds(); i = c.open.oldest {
		c.end(i, false)
	}
}

// expire ends the oldest events, as long as old says so.
func (c *Coalescer) expire(old func(*slot) bool) {
	for i := c.open.oldest; i != none; {
		next := c.open.slots[i].newer
		if old(&c.open.slots[i]) {
			c.end(i, false)
		}
		i = next
	}
}

// Flush ends all open events: no more records will come.
func (c *Coalescer) Flush() {
	c.Restart(c.offset)
	for c.open.oldest != none {
		c.end(c.open.oldest, false)
	}
}

// Open returns how many events are open.
func (c *Coalescer) Open() int { return c.open.n }

// end emits the event of slot i. ended tells that its own end was seen.
func (c *Coalescer) end(i int32, ended bool) {
	s := &c.open.slots[i]
	c.out.ID, c.out.Records = s.id, c.out.Records[:0]
	for _, sp := range s.spans {
		r := Record{Type: sp.t, Body: s.buf[sp.from:sp.body:sp.body]}
		if sp.end > sp.body {
			r.Enriched = s.buf[sp.body:sp.end:sp.end]
		}
		c.out.Records = append(c.out.Records, r)
	}
	c.out.Partial = incomplete(&c.out, ended)
	c.open.remove(i)
	c.emit()
}

func (c *Coalescer) emit() {
	c.stats.Events++
	if c.out.Partial {
		c.stats.Partial++
	}
	if c.Emit != nil {
		c.Emit(&c.out)
	}
}
