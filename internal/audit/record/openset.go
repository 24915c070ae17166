package record

import "time"

// none is no slot.
const none int32 = -1

// slot is an event that has not ended.
type slot struct {
	id           ID
	at           int64 // offset of its first line
	opened       int64 // the newest time when it began
	ticked       time.Time
	buf          []byte
	spans        []span
	older, newer int32
}

// span is where a record lies in its slot's bytes.
type span struct {
	t               Type
	from, body, end int
}

// openSet holds open events in the order in which they began, findable by ID. All of it is made once; slots keep their memory.
type openSet struct {
	slots          []slot
	free           []int32
	table          []int32 // open addressing; len is a power of two
	oldest, newest int32
	last           int32 // found last: most records follow one of the same event
	n, bytes       int
}

func newOpenSet(limit int) openSet {
	size := 4
	for size < 4*limit {
		size *= 2
	}
	s := openSet{table: make([]int32, size), oldest: none, newest: none, last: none}
	for i := range s.table {
		s.table[i] = none
	}
	s.slots = make([]slot, limit)
	s.free = make([]int32, limit)
	for i := range s.free {
		s.free[i] = int32(limit - 1 - i)
	}
	return s
}

func (s *openSet) full() bool { return len(s.free) == 0 }

func (s *openSet) home(id *ID) int {
	h := (id.Serial<<10 ^ uint64(id.Sec)<<1 ^ uint64(id.Milli)) * 0x9e3779b97f4a7c15
	return int(h>>33) & (len(s.table) - 1)
}

func same(a, b *ID) bool {
	return a.Serial == b.Serial && a.Milli == b.Milli && a.Sec == b.Sec && a.Node == b.Node
}

func (s *openSet) find(id ID) int32 {
	if s.last != none && same(&s.slots[s.last].id, &id) {
		return s.last
	}
	for h := s.home(&id); ; h = (h + 1) & (len(s.table) - 1) {
		i := s.table[h]
		if i == none {
			return none
		}
		if same(&s.slots[i].id, &id) {
			s.last = i
			return i
		}
	}
}

// insert makes an open event; there must be room.
func (s *openSet) insert(id ID, at int64, opened int64) int32 {
	i := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	sl := &s.slots[i]
	sl.id, sl.at, sl.opened, sl.ticked = id, at, opened, time.Time{}
	sl.older, sl.newer = s.newest, none
	if s.newest == none {
		s.oldest = i
	} else {
		s.slots[s.newest].newer = i
	}
	s.newest, s.last = i, i
	s.n++
	h := s.home(&id)
	for s.table[h] != none {
		h = (h + 1) & (len(s.table) - 1)
	}
	s.table[h] = i
	return i
}

// append copies a record into slot i.
func (s *openSet) append(i int32, r Record) {
	sl := &s.slots[i]
	from := len(sl.buf)
	sl.buf = append(sl.buf, r.Body...)
	body := len(sl.buf)
	sl.buf = append(sl.buf, r.Enriched...)
	sl.spans = append(sl.spans, span{t: r.Type, from: from, body: body, end: len(sl.buf)})
	s.bytes += len(sl.buf) - from
}

// keptBytes and keptSpans are what a slot keeps for its next event. Few events are larger.
const (
	keptBytes = 16 << 10
	keptSpans = 32
)

// remove takes slot i out. Its bytes stay valid until the slot is used again.
func (s *openSet) remove(i int32) {
	sl := &s.slots[i]
	s.unlink(i)
	s.bytes -= len(sl.buf)
	s.n--
	if s.last == i {
		s.last = none
	}
	sl.buf, sl.spans = sl.buf[:0], sl.spans[:0]
	if cap(sl.buf) > keptBytes {
		sl.buf = nil
	}
	if cap(sl.spans) > keptSpans {
		sl.spans = nil
	}
	s.free = append(s.free, i)
}

func (s *openSet) unlink(i int32) {
	sl := &s.slots[i]
	if sl.older == none {
		s.oldest = sl.newer
	} else {
		s.slots[sl.older].newer = sl.newer
	}
	if sl.newer == none {
		s.newest = sl.older
	} else {
		s.slots[sl.newer].older = sl.older
	}
	mask := len(s.table) - 1
	hole := s.home(&sl.id)
	for s.table[hole] != i {
		hole = (hole + 1) & mask
	}
	// Close the hole: what was pushed behind it moves up, so that find may stop at the first empty place.
	for h := (hole + 1) & mask; s.table[h] != none; h = (h + 1) & mask {
		home := s.home(&s.slots[s.table[h]].id)
		if (h-home)&mask >= (h-hole)&mask {
			s.table[hole] = s.table[h]
			hole = h
		}
	}
	s.table[hole] = none
}
