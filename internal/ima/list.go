package ima

import (
	"fmt"
	"strings"

	"touchstone.dev/touchstone/internal/tpm"
)

// List walks over a list, entry by entry, without an allocation for each. It checks no hash: that is what [Verify] does.
type List struct {
	b      []byte
	paths  strings.Builder // paths of the entries, so that they need few allocations
	chunk  int             // size of the last buffer of paths
	at     int             // where the next entry starts in b
	count  int             // entries walked over
	from   State
	order  ByteOrder
	last   *template
	first  string // user-defined template of the first entry of all, "" when it is another
	custom []*template
	rec    record // of the current entry
	entry  Entry
	err    error
}

// NewList starts at the beginning of b, whose first entry is the one that follows from (the zero State: the first of all).
func NewList(b []byte, from State) *List {
	l := &List{b: b, from: from, first: from.Template}
	l.order = from.Order
	return l
}

// Next reads the next entry and tells whether there was one. It is false at the end of the list and on an error; see Err.
func (l *List) Next() bool {
	if l.err != nil || l.at == len(l.b) {
		return false
	}
	if l.err = l.record(); l.err != nil {
		return false
	}
	l.fill(&l.entry)
	return true
}

// read reads the next entries into some and returns how many there were.
func (l *List) read(some []Entry) int {
	n := 0
	for n < len(some) && l.err == nil && l.at < len(l.b) {
		if l.err = l.record(); l.err == nil {
			l.fill(&some[n])
			n++
		}
	}
	return n
}

// Entry returns the current entry. It is overwritten by Next.
func (l *List) Entry() *Entry { return &l.entry }

// Err returns what ended the walk, or nil at the end of the list. It wraps ErrMalformed.
func (l *List) Err() error { return l.err }

// Parse calls fn for each entry of a whole list, in order. The entry is only valid during the call. It stops at the first
// error of fn, which it returns, or at the first entry that cannot be read (ErrMalformed). It checks no hash.
func Parse(b []byte, fn func(*Entry) error) error {
	l := NewList(b, State{})
	for l.Next() {
		if err := fn(l.Entry()); err != nil {
			return err
		}
	}
	return l.Err()
}

// record is where the parts of one entry are in the list.
type record struct {
	index            uint64
	pcr              uint32
	start, data, end int // offsets in b
	tmpl             *template
}

// record reads the frame of the next entry into rec and moves on behind it.
func (l *List) record() error {
	r := &l.rec
	r.index, r.start = l.from.Entries+uint64(l.count), l.at
	b := l.b[l.at:]
	if l.count >= MaxEntries {
		return l.malformed(r, "more than %d entries", MaxEntries)
	}
	if len(b) < 28 {
		return l.malformed(r, "%d bytes left: the list is cut within an entry", len(b))
	}
	if l.order == UnknownOrder && !l.detect(b) {
		return l.malformed(r, "PCR index %x is none in either byte order", b[:4])
	}
	r.pcr = l.order.uint32(b)
	name := l.order.uint32(b[24:])
	if name == 0 || name > MaxTemplateName || int(name) > len(b)-28 {
		return l.malformed(r, "template name of %d bytes (%d are left, %d allowed)", name, len(b)-28, MaxTemplateName)
	}
	r.tmpl = l.template(b[28 : 28+name])
	at := 28 + int(name)
	size := uint32(24)
	if len(b)-at < 4 {
		return l.malformed(r, "the list is cut within an entry")
	}
	if !r.tmpl.old {
		size = l.order.uint32(b[at:])
		at += 4
	} else if len(b)-at < 24 {
		return l.malformed(r, "the list is cut within an entry")
	} else if n := l.order.uint32(b[at+20:]); n <= oldNameMax {
		size += n
	} else {
		return l.malformed(r, "path of %d bytes in the template ima: at most %d", n, oldNameMax)
	}
	if size > MaxData || int(size) > len(b)-at {
		return l.malformed(r, "template data of %d bytes (%d are left, %d allowed)", size, len(b)-at, MaxData)
	}
	r.data = l.at + at
	r.end = r.data + int(size)
	l.at = r.end
	l.count++
	return nil
}

// oldNameMax is the longest path in the template "ima" (the kernel's IMA_EVENT_NAME_LEN_MAX).
const oldNameMax = 255

// detect finds the byte order from the PCR index and the length of the template name of the first entry.
func (l *List) detect(b []byte) bool {
	for _, o := range []ByteOrder{LittleEndian, BigEndian} {
		if n := o.uint32(b[24:]); o.uint32(b) < tpm.NumPCRs && n > 0 && n <= MaxTemplateName {
			l.order = o
			return true
		}
	}
	return false
}

func (l *List) malformed(r *record, format string, args ...any) error {
	return fmt.Errorf("%w: entry %d at byte %d: %s", ErrMalformed, r.index, l.from.Offset+uint64(r.start), fmt.Sprintf(format, args...))
}

// fill makes the current entry in e. It sets field by field, because copying a whole Entry costs more than parsing it.
func (l *List) fill(e *Entry) {
	*e = Entry{}
	r := &l.rec
	e.Index, e.Offset, e.PCR = r.index, int(l.from.Offset)+r.start, int(r.pcr)
	e.TemplateHash = l.b[r.start+4 : r.start+24 : r.start+24]
	e.Template = r.tmpl.name
	e.Data = l.b[r.data:r.end:r.end]
	e.Violation = [20]byte(e.TemplateHash) == [20]byte{}
	if r.tmpl.custom && r.index > 0 && r.tmpl.name != l.first && r.tmpl.problem == "" {
		e.Problem = fmt.Sprintf("user-defined template %.80q is not that of the first entry", r.tmpl.name)
		return
	}
	e.fields(r.tmpl, l)
	if r.tmpl.custom && r.index == 0 && e.isAggregate() {
		l.first = r.tmpl.name
	}
}

// Sizes of the buffers that hold paths: they grow, so that a list of few entries needs little.
const (
	firstChunk = 1 << 10
	lastChunk  = 16 << 10
)

// path keeps b as a string. One buffer holds the paths of many entries.
func (l *List) path(b []byte) string {
	if l.paths.Cap()-l.paths.Len() < len(b) {
		l.chunk = min(max(firstChunk, 2*l.chunk), lastChunk)
		l.paths = strings.Builder{}
		l.paths.Grow(max(len(b), min(l.chunk, len(l.b)-l.at+len(b))))
	}
	l.paths.Write(b)
	s := l.paths.String()
	return s[len(s)-len(b):]
}
