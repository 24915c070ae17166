package eventlog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"touchstone.dev/touchstone/internal/tpm"
)

// Why a log is refused. Each comes inside a *ParseError that says where.
var (
	ErrEmpty     = errors.New("event log is empty")
	ErrTooLarge  = errors.New("event log exceeds a limit")
	ErrTruncated = errors.New("event is cut short")
	ErrSpecID    = errors.New("bad Spec ID event")
	ErrPCRIndex  = errors.New("PCR index out of range")
	ErrDigests   = errors.New("bad digest list")
	ErrLocality  = errors.New("bad StartupLocality event")
	// ErrTrailing matches whenever the bytes after an event aren't an event: padding, rubbish, or an event cut short. A parser
	// can't tell these apart, and none of them is covered by a quote.
	ErrTrailing = errors.New("bytes after the last event are not an event")
)

// ParseError says which event of a log is malformed, and why. It unwraps to one of the errors above, and to ErrTrailing too when an event came
// before and these bytes aren't one.
type ParseError struct {
	Index  int // of the event
	Offset int // bytes from the start of the log to the event
	Err    error
}

// Error names the event, its offset and the cause.
func (e *ParseError) Error() string {
	return fmt.Sprintf("event %d at byte %d: %v", e.Index, e.Offset, e.Err)
}

// Unwrap returns the cause, and ErrTrailing where it applies.
func (e *ParseError) Unwrap() []error {
	for _, event := range []error{ErrTooLarge, ErrSpecID, ErrLocality} {
		if e.Index == 0 || errors.Is(e.Err, event) {
			return []error{e.Err}
		}
	}
	return []error{e.Err, ErrTrailing}
}

// Parse reads a whole log. The log must end with an event: padding and any other trailing bytes are refused. Errors are *ParseError,
// or ErrEmpty and ErrTooLarge for the log as a whole.
//
// A second Spec ID header is refused, and so is a StartupLocality event that is a second one, stands outside PCR 0, comes after the
// first measurement into PCR 0, or names another locality than 0, 3 or 4 (PFP 10.4.5.3): nothing tells which reading is the right one.
func Parse(b []byte) (*Log, error) {
	if len(b) == 0 {
		return nil, ErrEmpty
	}
	if len(b) > MaxLog {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(b), MaxLog)
	}
	// Real events take some 300 bytes each: with this guess the list seldom grows, and a hostile log gains nothing by it.
	guess := min(len(b)/256+16, MaxEvents)
	p := &parser{buf: b, tail: tail(b), guess: guess, log: &Log{
		Locality: NoLocality, Algs: []tpm.Alg{tpm.AlgSHA1}, Events: make([]Event, 0, guess),
	}}
	for p.off < len(b) {
		start := p.off
		if err := p.next(); err != nil {
			return nil, &ParseError{Index: len(p.log.Events), Offset: start, Err: err}
		}
	}
	return p.log, nil
}

// bank is an algorithm that the header declares, and the size of its digests.
type bank struct {
	alg   tpm.Alg
	size  int
	known bool
}

type parser struct {
	buf   []byte
	off   int
	tail  int // where the padding starts, if there is any
	guess int // number of events
	log   *Log
	banks []bank
	// arena is the unused part of a block of digests: one allocation serves many events.
	arena []Digest
	// measured is set by the first measurement into PCR 0.
	measured bool
	locality bool
}

// next reads one event at p.off and appends it.
func (p *parser) next() error {
	if len(p.log.Events) == MaxEvents {
		return fmt.Errorf("%w: more than %d events", ErrTooLarge, MaxEvents)
	}
	if p.off >= p.tail {
		return fmt.Errorf("%w: %d bytes of padding", ErrTrailing, len(p.buf)-p.off)
	}
	e := Event{Index: len(p.log.Events), Offset: p.off}
	index, err := p.uint32()
	if err != nil {
		return err
	}
	typ, err := p.uint32()
	if err != nil {
		return err
	}
	e.Type = Type(typ)
	if e.PCR, err = pcrIndex(index, e.Type); err != nil {
		return err
	}
	if p.log.Agile {
		err = p.digests(&e)
	} else {
		err = p.sha1(&e)
	}
	if err != nil {
		return err
	}
	if e.Data, err = p.data(); err != nil {
		return err
	}
	if err := p.inspect(&e); err != nil {
		return err
	}
	p.log.Events = append(p.log.Events, e)
	return nil
}

// tail returns where the run of zeros or ones at the end of b begins: what firmware or a driver leaves behind the last event. An
// event that starts inside the run is none (PCR 0, EV_PREBOOT_CERT, zeros only). It is found once, so that a log made of zeros
// costs no more than any other.
func tail(b []byte) int {
	i := len(b)
	if last := b[i-1]; last == 0 || last == 0xff {
		for i > 0 && b[i-1] == last {
			i--
		}
	}
	return i
}

// pcrIndex checks the PCR index of an event of type t. 0xffffffff is allowed for EV_NO_ACTION, which extends nothing.
func pcrIndex(i uint32, t Type) (int, error) {
	if i < tpm.NumPCRs {
		return int(i), nil
	}
	if i == 0xffffffff && t == NoAction {
		return NoPCR, nil
	}
	return 0, fmt.Errorf("%w: %#x in an event of type %v, want 0 to %d", ErrPCRIndex, i, t, tpm.NumPCRs-1)
}

// sha1 reads the single digest of a TCG_PCR_EVENT.
func (p *parser) sha1(e *Event) error {
	sum, err := p.take(tpm.AlgSHA1.Size())
	if err != nil {
		return err
	}
	e.Digests = append(p.room(1), Digest{Alg: tpm.AlgSHA1, Sum: sum})
	return nil
}

// digests reads TPML_DIGEST_VALUES: each algorithm must be declared by the header and come once. A bank may be left out (some
// firmware declares banks that it doesn't extend); Replay refuses that bank then.
func (p *parser) digests(e *Event) error {
	count, err := p.uint32()
	if err != nil {
		return err
	}
	if count == 0 && e.Extends() || count > uint32(len(p.banks)) {
		return fmt.Errorf("%w: %d digests in a log of %d banks", ErrDigests, count, len(p.banks))
	}
	list := p.room(int(count))
	var seen uint32
	for range count {
		id, err := p.uint16()
		if err != nil {
			return err
		}
		i := p.bank(tpm.Alg(id))
		if i < 0 || seen&(1<<i) != 0 {
			return fmt.Errorf("%w: algorithm %v is not declared by the header, or comes twice", ErrDigests, tpm.Alg(id))
		}
		seen |= 1 << i
		sum, err := p.take(p.banks[i].size)
		if err != nil {
			return err
		}
		if p.banks[i].known {
			list = append(list, Digest{Alg: tpm.Alg(id), Sum: sum})
		}
	}
	e.Digests = list
	return nil
}

// bank returns the place of algorithm a in the header, or -1.
func (p *parser) bank(a tpm.Alg) int {
	for i := range p.banks {
		if p.banks[i].alg == a {
			return i
		}
	}
	return -1
}

// room returns an empty slice for n digests, cut from the arena so that appending n never reaches a neighbour.
func (p *parser) room(n int) []Digest {
	if len(p.arena) < n {
		p.arena = make([]Digest, max(n, max(p.guess-len(p.log.Events), 16)*len(p.log.Algs)))
	}
	list := p.arena[:0:n]
	p.arena = p.arena[n:]
	return list
}

// data reads the size and the data of an event.
func (p *parser) data() ([]byte, error) {
	size, err := p.uint32()
	if err != nil {
		return nil, err
	}
	// The length is compared before it becomes an int, which may have 32 bits.
	if left := len(p.buf) - p.off; uint64(size) > uint64(left) {
		return nil, fmt.Errorf("%w: %d bytes of data wanted at byte %d, %d left", ErrTruncated, size, p.off, left)
	}
	if size > MaxData {
		return nil, fmt.Errorf("%w: %d bytes of event data, at most %d", ErrTooLarge, size, MaxData)
	}
	return p.take(int(size))
}

// take returns the next n bytes.
func (p *parser) take(n int) ([]byte, error) {
	if n > len(p.buf)-p.off {
		return nil, fmt.Errorf("%w: %d bytes wanted at byte %d, %d left", ErrTruncated, n, p.off, len(p.buf)-p.off)
	}
	b := p.buf[p.off : p.off+n : p.off+n]
	p.off += n
	return b, nil
}

func (p *parser) uint16() (uint16, error) {
	b, err := p.take(2)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint16(b), nil
}

func (p *parser) uint32() (uint32, error) {
	b, err := p.take(4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}
