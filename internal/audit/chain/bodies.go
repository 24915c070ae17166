package chain

import (
	"fmt"
	"time"
)

// Why events are missing. The agent's words for where they were lost.
const (
	GapSpoolFull = "spool-full" // the spool had no room: AIAS was away for long, or more happened than can be sent
	GapDisk      = "disk"       // the disk of the spool was full or failed
	GapKernel    = "kernel"     // the kernel's counter of lost records went up
	GapOverrun   = "overrun"    // the agent did not keep up with the kernel
	GapSerial    = "serial"     // numbers of events are missing
	GapRotated   = "rotated"    // auditd removed a log that was not read
	GapStopped   = "stopped"    // auditing was off, or nobody read it
	GapTooLong   = "too-long"   // an event larger than MaxBody
	GapOther     = "other"
)

// Gap says that events are missing at this place of the chain.
type Gap struct {
	Why     string `cbor:"1,keyasint" json:"why"`
	Events  uint64 `cbor:"2,keyasint,omitempty" json:"events,omitempty"`   // number; 0: not known
	AtLeast bool   `cbor:"3,keyasint,omitempty" json:"atLeast,omitempty"`  // there may be more
	First   string `cbor:"4,keyasint,omitempty" json:"first,omitempty"`    // first event that is missing, or the one before: "1795000336.990:769606"
	Last    string `cbor:"5,keyasint,omitempty" json:"last,omitempty"`     // and the last
	From    int64  `cbor:"6,keyasint,omitempty" json:"from,omitempty"`     // when it began, in milliseconds since 1970
	To      int64  `cbor:"7,keyasint,omitempty" json:"to,omitempty"`       // and ended
	Detail  string `cbor:"8,keyasint,omitempty" json:"detail,omitempty"`   // for people
	Records bool   `cbor:"9,keyasint,omitempty" json:"records,omitempty"`  // Events counts records, of which an event has several
	Lost    uint64 `cbor:"10,keyasint,omitempty" json:"counter,omitempty"` // the kernel's counter, where it told of the gap
}

// Status is what the kernel says of its audit system.
type Status struct {
	Enabled     uint32 `cbor:"1,keyasint" json:"enabled"` // 0 off, 1 on, 2 on until the next boot
	PID         uint32 `cbor:"2,keyasint,omitempty" json:"pid"`
	Lost        uint64 `cbor:"3,keyasint,omitempty" json:"lost"`
	Backlog     uint32 `cbor:"4,keyasint,omitempty" json:"backlog"`
	Limit       uint32 `cbor:"5,keyasint,omitempty" json:"backlogLimit"`
	RulesDigest []byte `cbor:"6,keyasint,omitempty" json:"rulesDigest,omitempty"` // of the loaded rules
	Drift       string `cbor:"7,keyasint,omitempty" json:"drift,omitempty"`       // how they differ from the intended ones
	Alarm       string `cbor:"8,keyasint,omitempty" json:"alarm,omitempty"`       // why this was written before its time
}

// Begin is written whenever an agent starts to write, the first entry of a chain among them.
type Begin struct {
	BootID   string `cbor:"1,keyasint,omitempty" json:"bootID,omitempty"`
	Agent    string `cbor:"2,keyasint,omitempty" json:"agent,omitempty"`  // version
	Source   string `cbor:"3,keyasint,omitempty" json:"source,omitempty"` // how events are read
	Previous []byte `cbor:"4,keyasint,omitempty" json:"previous,omitempty"`
	// Why says why a chain was begun anew; Previous is the chain before, and Seq where it ended.
	Why string `cbor:"5,keyasint,omitempty" json:"why,omitempty"`
	Seq uint64 `cbor:"6,keyasint,omitempty" json:"seq,omitempty"`
}

// maxSmall bounds the bodies that are no events, in bytes.
const maxSmall = 4 << 10

// EncodeBody writes a Gap, Status or Begin. Errors wrap ErrEntry.
func EncodeBody(v any) ([]byte, error) {
	b, err := encoder.Marshal(v)
	if err == nil && len(b) > maxSmall {
		err = fmt.Errorf("%d bytes, at most %d", len(b), maxSmall)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEntry, err)
	}
	return b, nil
}

// DecodeBody reads a Gap, Status or Begin into v. Errors wrap ErrEntry.
func DecodeBody(b []byte, v any) error {
	if len(b) > maxSmall {
		return fmt.Errorf("%w: a body of %d bytes, at most %d", ErrEntry, len(b), maxSmall)
	}
	if err := decoder.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrEntry, err)
	}
	return nil
}

// join takes another gap at the same place into g.
func (g *Gap) join(o *Gap) {
	if g.Why == "" {
		*g = *o
		return
	}
	if g.Why != o.Why {
		g.Why, g.Detail = GapOther, ""
	}
	g.Events += o.Events
	g.AtLeast = g.AtLeast || o.AtLeast
	if g.First == "" {
		g.First = o.First
	}
	if o.Last != "" {
		g.Last = o.Last
	}
	if g.From == 0 {
		g.From = o.From
	}
	g.To = max(g.To, o.To)
}

// milli is a time as gaps carry it.
func milli(t time.Time) int64 { return t.UnixMilli() }
