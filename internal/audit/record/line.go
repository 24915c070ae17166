package record

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// ErrMalformed is wrapped by every error of this package: the bytes are no record, or no event.
var ErrMalformed = errors.New("not an audit record")

// Unset is how the kernel writes "no user" (auid, uid) and "no session" (ses).
const Unset = 4294967295

// ID tells events of one machine apart: the kernel's time, in milliseconds, and its serial number. Node is auditd's name_format, else "".
type ID struct {
	Node   string
	Sec    int64
	Milli  uint16
	Serial uint64
}

// Time returns when the kernel began the event.
func (id ID) Time() time.Time { return time.Unix(id.Sec, int64(id.Milli)*1e6).UTC() }

// String returns the ID as auditd's tools write it: 1795000336.990:769606.
func (id ID) String() string { return string(id.append(nil)) }

func (id ID) append(dst []byte) []byte {
	dst = strconv.AppendInt(dst, id.Sec, 10)
	dst = append(dst, '.', '0'+byte(id.Milli/100%10), '0'+byte(id.Milli/10%10), '0'+byte(id.Milli%10), ':')
	return strconv.AppendUint(dst, id.Serial, 10)
}

// Record is one record. Its slices belong to whoever gave the bytes.
type Record struct {
	Type     Type
	Body     []byte // what follows "audit(...): ", up to byte 0x1d
	Enriched []byte // what auditd resolved, behind 0x1d; nil in logs that are not enriched and in netlink messages
}

// ParseLine reads one line of a log, without its end: `[node=N ]type=T msg=audit(S.mmm:n): BODY[0x1d ENRICHED]`. The record's slices
// point into line.
func ParseLine(line []byte) (ID, Record, error) {
	if len(line) > MaxLine {
		return ID{}, Record{}, fmt.Errorf("%w: a line of %d bytes, want at most %d", ErrMalformed, len(line), MaxLine)
	}
	node, id, rec, err := parseLine(line)
	id.Node = string(node)
	return id, rec, err
}

// parseLine is ParseLine of any length, without making a string of the node.
func parseLine(line []byte) (node []byte, id ID, rec Record, err error) {
	rest := line
	if after, ok := bytes.CutPrefix(rest, []byte("node=")); ok {
		n := bytes.IndexByte(after, ' ')
		if n <= 0 || n > MaxNode || !printable(after[:n]) {
			return nil, ID{}, Record{}, malformed(line, "node")
		}
		node, rest = after[:n], after[n+1:]
	}
	if after, ok := bytes.CutPrefix(rest, []byte("type=")); ok {
		rest = after
	} else {
		return nil, ID{}, Record{}, malformed(line, "type")
	}
	n := bytes.IndexByte(rest, ' ')
	if n < 0 {
		return nil, ID{}, Record{}, malformed(line, "type")
	}
	var ok bool
	if rec.Type, ok = ParseType(rest[:n]); !ok {
		return nil, ID{}, Record{}, malformed(line, "type")
	}
	if rest, ok = bytes.CutPrefix(rest[n+1:], []byte("msg=")); !ok {
		return nil, ID{}, Record{}, malformed(line, "msg")
	}
	if id, rest, ok = parseHeader(rest); !ok {
		return nil, ID{}, Record{}, malformed(line, "msg=audit(seconds.milliseconds:serial)")
	}
	rec.Body = rest
	if i := bytes.IndexByte(rest, separator); i >= 0 {
		rec.Body, rec.Enriched = rest[:i:i], rest[i+1:]
	}
	return node, id, rec, nil
}

// separator stands before what auditd resolved.
const separator = 0x1d

// ParseMessage reads the payload of a netlink message of type t: `audit(S.mmm:n): BODY`. Bytes that would not survive as a line (a
// program's text may hold them) become spaces in text itself, as auditd does with the end of a line.
func ParseMessage(t Type, text []byte) (ID, Record, error) {
	if len(text) > MaxLine {
		return ID{}, Record{}, fmt.Errorf("%w: a message of %d bytes, want at most %d", ErrMalformed, len(text), MaxLine)
	}
	if t == 0 {
		return ID{}, Record{}, fmt.Errorf("%w: a message of type 0", ErrMalformed)
	}
	text = bytes.TrimRight(text, "\x00\n")
	for i, c := range text {
		if c == '\n' || c == separator || c == 0 {
			text[i] = ' '
		}
	}
	id, body, ok := parseHeader(text)
	if !ok {
		return ID{}, Record{}, malformed(text, "audit(seconds.milliseconds:serial)")
	}
	return id, Record{Type: t, Body: body}, nil
}

func malformed(line []byte, want string) error {
	return fmt.Errorf("%w: %.60q: want %s", ErrMalformed, line, want)
}

// parseHeader cuts "audit(S.mmm:n): " off b.
func parseHeader(b []byte) (ID, []byte, bool) {
	b, ok := bytes.CutPrefix(b, []byte("audit("))
	if !ok {
		return ID{}, nil, false
	}
	id, b, ok := parseStamp(b)
	if !ok || len(b) < 2 || b[0] != ')' || b[1] != ':' {
		return ID{}, nil, false
	}
	b = b[2:]
	if len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	return id, b, true
}

// parseStamp cuts "S.mmm:n" off b.
func parseStamp(b []byte) (ID, []byte, bool) {
	sec, n := leadingDigits(b)
	if n == 0 || n > 12 || len(b) < n+5 || b[n] != '.' {
		return ID{}, nil, false
	}
	milli, m := leadingDigits(b[n+1:])
	if m != 3 || b[n+4] != ':' {
		return ID{}, nil, false
	}
	b = b[n+5:]
	serial, n := leadingDigits(b)
	if n == 0 || n > 19 {
		return ID{}, nil, false
	}
	return ID{Sec: int64(sec), Milli: uint16(milli), Serial: serial}, b[n:], true
}

// leadingDigits returns the number that b begins with, and how many digits it has. More than 19 digits overflow: callers bound them.
func leadingDigits(b []byte) (v uint64, n int) {
	for n < len(b) && b[n]-'0' <= 9 {
		v = v*10 + uint64(b[n]-'0')
		n++
	}
	return v, n
}

// digits returns the number that b is.
func digits(b []byte) (uint64, bool) {
	v, n := leadingDigits(b)
	return v, n > 0 && n <= 19 && n == len(b)
}

func printable(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// AppendLine appends the record as a line of a log with its end: the canonical form in which records travel. ParseLine reads it back.
func (r Record) AppendLine(dst []byte, id ID) []byte {
	if id.Node != "" {
		dst = append(dst, "node="...)
		dst = append(dst, id.Node...)
		dst = append(dst, ' ')
	}
	dst = append(dst, "type="...)
	dst = r.Type.append(dst)
	dst = append(dst, " msg=audit("...)
	dst = id.append(dst)
	dst = append(dst, "): "...)
	dst = append(dst, r.Body...)
	if len(r.Enriched) > 0 {
		dst = append(dst, separator)
		dst = append(dst, r.Enriched...)
	}
	return append(dst, '\n')
}
