package chain

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Kind says what an entry tells.
type Kind uint8

// The kinds of entries. The zero value is none.
const (
	KindEvent  Kind = 1 // Body: the records of one audit event, as the kernel wrote them
	KindGap    Kind = 2 // Body: a Gap
	KindStatus Kind = 3 // Body: a Status
	KindStart  Kind = 4 // Body: a Begin
)

var kindNames = map[Kind]string{KindEvent: "event", KindGap: "gap", KindStatus: "status", KindStart: "start"}

// String returns the name of the kind.
func (k Kind) String() string {
	if n, ok := kindNames[k]; ok {
		return n
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Limits on one entry, in bytes. MaxBody is that of an event (record.MaxEvent); what is longer is a gap.
const (
	MaxBody    = 8 << 20
	MaxContext = 4 << 10
	MaxEntry   = entryHead + MaxContext + MaxBody
)

// entryHead is the fixed part of an entry: version, kind, number, time, length of the context.
const entryHead = 1 + 1 + 8 + 8 + 2

const entryVersion = 1

// Entry is one entry of a chain.
type Entry struct {
	Seq     uint64
	Time    time.Time // when the worker took it in, by its clock
	Kind    Kind
	Context Context // where an event comes from, as the agent found out; empty for others
	Body    []byte
}

// Append writes the entry in its one form behind b. Errors wrap ErrEntry: a part is larger than allowed.
func (e *Entry) Append(b []byte) ([]byte, error) {
	if _, ok := kindNames[e.Kind]; !ok || e.Seq == 0 {
		return b, fmt.Errorf("%w: %v with number %d", ErrEntry, e.Kind, e.Seq)
	}
	context, err := e.Context.encode()
	if err != nil {
		return b, err
	}
	if len(e.Body) > MaxBody {
		return b, fmt.Errorf("%w: a body of %d bytes, at most %d", ErrEntry, len(e.Body), MaxBody)
	}
	b = append(b, entryVersion, byte(e.Kind))
	b = binary.BigEndian.AppendUint64(b, e.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time.UnixNano())) //nolint:gosec // read back as it is written
	b = binary.BigEndian.AppendUint16(b, uint16(len(context)))      //nolint:gosec // at most MaxContext
	return append(append(b, context...), e.Body...), nil
}

// Parse reads one entry, which is all of b. Body aliases b. Errors wrap ErrEntry. Context is checked by its size only: Append wrote it,
// and who shows it reads it with ParseContext.
func Parse(b []byte) (Entry, error) {
	context, e, err := split(b)
	if err == nil {
		e.Context, err = ParseContext(context)
	}
	return e, err
}

// split reads an entry but for its context, which it returns raw.
func split(b []byte) (context []byte, e Entry, err error) {
	if len(b) < entryHead || len(b) > MaxEntry {
		return nil, e, fmt.Errorf("%w: %d bytes", ErrEntry, len(b))
	}
	e.Kind = Kind(b[1])
	e.Seq = binary.BigEndian.Uint64(b[2:])
	e.Time = time.Unix(0, int64(binary.BigEndian.Uint64(b[10:]))).UTC() //nolint:gosec // written so
	n := int(binary.BigEndian.Uint16(b[18:]))
	if _, ok := kindNames[e.Kind]; !ok || b[0] != entryVersion || e.Seq == 0 || n > MaxContext || n > len(b)-entryHead {
		return nil, e, fmt.Errorf("%w: version %d, %v, number %d, a context of %d bytes", ErrEntry, b[0], e.Kind, e.Seq, n)
	}
	context, e.Body = b[entryHead:entryHead+n], b[entryHead+n:]
	if len(e.Body) > MaxBody {
		return nil, e, fmt.Errorf("%w: a body of %d bytes, at most %d", ErrEntry, len(e.Body), MaxBody)
	}
	return context, e, nil
}

// Seq reads the number of an entry without the rest.
func Seq(entry []byte) uint64 {
	if len(entry) < entryHead {
		return 0
	}
	return binary.BigEndian.Uint64(entry[2:])
}
