package record

import (
	"bytes"
	"fmt"
	"slices"
)

// Event is what happened at once: records with the same ID, in the order in which they came. The end-of-event record (EOE), which only
// netlink has and which says nothing else, is not among them, so that an event is the same bytes wherever it was read.
type Event struct {
	ID      ID
	Records []Record
	// Partial tells that records are known to be missing, or that no end of the event was seen. It is no part of Raw: who sends Raw on
	// sends it beside it.
	Partial bool
}

// Raw returns the canonical bytes of the event: a line each record. Parse reads them back.
func (e *Event) Raw() []byte {
	size := 0
	for _, r := range e.Records {
		size += len(r.Body) + len(r.Enriched) + len(e.ID.Node) + 80
	}
	return e.AppendRaw(make([]byte, 0, size))
}

// AppendRaw appends Raw to dst.
func (e *Event) AppendRaw(dst []byte) []byte {
	for _, r := range e.Records {
		dst = r.AppendLine(dst, e.ID)
	}
	return dst
}

// Parse reads what Raw returned: the lines of one event. Its slices point into raw.
func Parse(raw []byte) (*Event, error) {
	if len(raw) > MaxEvent {
		return nil, fmt.Errorf("%w: an event of %d bytes, want at most %d", ErrMalformed, len(raw), MaxEvent)
	}
	var e Event
	var first []byte
	for len(raw) > 0 {
		line := raw
		if n := bytes.IndexByte(raw, '\n'); n >= 0 {
			line, raw = raw[:n], raw[n+1:]
		} else {
			raw = nil
		}
		if len(line) > MaxLine+MaxNode+64 { // Raw may write more than what was read: a node, a longer name of the type
			return nil, fmt.Errorf("%w: a line of %d bytes", ErrMalformed, len(line))
		}
		if len(e.Records) == MaxRecords {
			return nil, fmt.Errorf("%w: an event of more than %d records", ErrMalformed, MaxRecords)
		}
		node, id, rec, err := parseLine(line)
		if err != nil {
			return nil, err
		}
		if len(e.Records) == 0 {
			e.ID, first = id, node
			e.ID.Node = string(node)
		} else if !bytes.Equal(node, first) || id.Sec != e.ID.Sec || id.Milli != e.ID.Milli || id.Serial != e.ID.Serial {
			return nil, fmt.Errorf("%w: records of events %s and %s in one", ErrMalformed, e.ID, id)
		}
		e.Records = append(e.Records, rec)
	}
	if len(e.Records) == 0 {
		return nil, fmt.Errorf("%w: an event without records", ErrMalformed)
	}
	return &e, nil
}

// Clone returns a copy that shares no bytes with e.
func (e *Event) Clone() *Event {
	size := 0
	for _, r := range e.Records {
		size += len(r.Body) + len(r.Enriched)
	}
	arena := make([]byte, 0, size)
	keep := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		from := len(arena)
		arena = append(arena, b...)
		return arena[from:len(arena):len(arena)]
	}
	c := &Event{ID: e.ID, Partial: e.Partial, Records: slices.Clone(e.Records)}
	for i := range c.Records {
		c.Records[i].Body, c.Records[i].Enriched = keep(c.Records[i].Body), keep(c.Records[i].Enriched)
	}
	return c
}

// Find returns the first record of type t, nil when there is none.
func (e *Event) Find(t Type) *Record {
	for i := range e.Records {
		if e.Records[i].Type == t {
			return &e.Records[i]
		}
	}
	return nil
}

// Main returns the record that says best what the event is: the first that is not context (SYSCALL, CWD, PATH, PROCTITLE ...), else the
// system call, else the first. Nil for an event without records.
func (e *Event) Main() *Record {
	if len(e.Records) == 0 {
		return nil
	}
	for i := range e.Records {
		switch e.Records[i].Type {
		case TypeSyscall, TypeCWD, TypePath, TypeProctitle, TypeExecve, TypeSockaddr, TypeObjPID:
		default:
			return &e.Records[i]
		}
	}
	if s := e.Find(TypeSyscall); s != nil {
		return s
	}
	return &e.Records[0]
}

// Process is who did it, as the kernel stamped it. Ids that are not there are Unset.
type Process struct {
	PID, PPID       uint32
	AUID, Session   uint32 // of the login; Unset: of no login
	UID, EUID, GID  uint32
	Syscall         int    // number of the system call, -1 when the event has none
	Arch            uint32 // AUDIT_ARCH_*, 0 when the event has none
	Exit            int64
	Success, Failed bool // neither when the event does not tell
}

// Process returns who did it, from the first record that has a pid stamped; false when none has.
func (e *Event) Process() (Process, bool) {
	for i := range e.Records {
		r := &e.Records[i]
		if _, ok := r.Field("pid"); ok && r.Type.Origin() != OriginDaemon {
			return r.process(), true
		}
	}
	return Process{}, false
}

func (r *Record) process() Process {
	p := Process{PID: Unset, PPID: Unset, AUID: Unset, Session: Unset, UID: Unset, EUID: Unset, GID: Unset, Syscall: -1}
	for name, raw := range r.Fields() {
		id := func(dst *uint32) {
			if v, ok := digits(raw); ok && v <= Unset {
				*dst = uint32(v)
			}
		}
		switch string(name) {
		case "pid":
			id(&p.PID)
		case "ppid":
			id(&p.PPID)
		case "auid":
			id(&p.AUID)
		case "ses":
			id(&p.Session)
		case "uid":
			id(&p.UID)
		case "euid":
			id(&p.EUID)
		case "gid":
			id(&p.GID)
		case "syscall":
			if v, ok := digits(raw); ok && v < 1<<20 {
				p.Syscall = int(v)
			}
		case "arch":
			if v, ok := number(raw, 16); ok {
				p.Arch = uint32(v)
			}
		case "exit":
			p.Exit = signed(raw)
		case "success":
			p.Success, p.Failed = string(raw) == "yes", string(raw) == "no"
		}
	}
	return p
}

func signed(raw []byte) int64 {
	if after, ok := bytes.CutPrefix(raw, []byte("-")); ok {
		v, _ := digits(after)
		return -int64(v)
	}
	v, _ := digits(raw)
	return int64(v)
}
