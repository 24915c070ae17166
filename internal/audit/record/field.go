package record

import (
	"bytes"
	"encoding/hex"
	"iter"
	"strconv"
	"strings"
)

// Stamped returns the part of the body that the kernel (of DAEMON_* records: auditd) wrote.
func (r Record) Stamped() []byte {
	stamped, _ := r.split()
	return stamped
}

// Claim returns what a program of user space wrote: from the first msg=' to the end of the record, without the quotes; nil in records of
// the kernel's. A quote inside of it does not end it, or a program could write fields that look stamped.
func (r Record) Claim() []byte {
	_, claim := r.split()
	return claim
}

var claimBegins = []byte("msg='")

func (r Record) split() (stamped, claim []byte) {
	if r.Type.Origin() != OriginUser {
		return r.Body, nil
	}
	i := 0
	if !bytes.HasPrefix(r.Body, claimBegins) {
		// The kernel's own fields hold no space and quote: the first " msg='" is where it began the claim.
		i = bytes.Index(r.Body, []byte(" msg='"))
		if i < 0 {
			return r.Body, nil
		}
		i++
	}
	return bytes.TrimRight(r.Body[:i], " "), bytes.TrimSuffix(r.Body[i+len(claimBegins):], []byte("'"))
}

// Field returns a field as it stands in the stamped part, quotes included; false when there is none. Of fields with the same name it is
// the first.
func (r Record) Field(name string) ([]byte, bool) { return find(r.Stamped(), name) }

// Text returns a stamped field's text: quotes are taken off, hex is decoded where the type and name of the field say that it may be hex.
// False when there is no such field, or it is (null).
func (r Record) Text(name string) ([]byte, bool) {
	raw, ok := r.Field(name)
	if !ok {
		return nil, false
	}
	return r.text(name, raw)
}

// Number returns a stamped field that is a number in the given base. The kernel writes ids decimal, mode octal, arch and a0 to a3 of
// SYSCALL hexadecimal. -1 of older kernels is Unset.
func (r Record) Number(name string, base int) (uint64, bool) {
	raw, ok := r.Field(name)
	if !ok {
		return 0, false
	}
	if string(raw) == "-1" && base == 10 {
		return Unset, true
	}
	return number(raw, base)
}

func number(raw []byte, base int) (uint64, bool) {
	if base == 10 {
		return digits(raw)
	}
	if len(raw) > 66 {
		return 0, false
	}
	raw = bytes.TrimPrefix(raw, []byte("0x"))
	v, err := strconv.ParseUint(string(raw), base, 64)
	return v, err == nil
}

// Claimed is Field of what a program claims.
func (r Record) Claimed(name string) ([]byte, bool) { return find(r.Claim(), name) }

// ClaimedText is Text of what a program claims.
func (r Record) ClaimedText(name string) ([]byte, bool) {
	raw, ok := r.Claimed(name)
	if !ok {
		return nil, false
	}
	return r.text(name, raw)
}

// Resolved returns what auditd wrote on the worker for a field, by the field's own name: Resolved("uid") is the user's name. A claim of
// the worker's.
func (r Record) Resolved(name string) ([]byte, bool) {
	raw, ok := find(r.Enriched, strings.ToUpper(name))
	if !ok {
		return nil, false
	}
	return unquote(raw), true
}

// Fields gives the stamped fields in order, as Field returns them. Words that are no name=value (AVC has some) are left out.
func (r Record) Fields() iter.Seq2[[]byte, []byte] { return fields(r.Stamped()) }

// ClaimedFields gives the claimed fields in order.
func (r Record) ClaimedFields() iter.Seq2[[]byte, []byte] { return fields(r.Claim()) }

// Decode returns the text of a raw value of the field name, as Text does.
func (r Record) Decode(name string, raw []byte) ([]byte, bool) { return r.text(name, raw) }

func (r Record) text(name string, raw []byte) ([]byte, bool) {
	if string(raw) == "(null)" {
		return nil, false
	}
	if len(raw) >= 2 && raw[0] == '"' {
		return unquote(raw), true
	}
	if !encoded(r.Type, name) {
		return raw, true
	}
	return unhex(raw), true
}

// unhex returns what raw encodes, or raw when it is no hex.
func unhex(raw []byte) []byte {
	if len(raw) == 0 || len(raw)%2 != 0 {
		return raw
	}
	decoded := make([]byte, len(raw)/2)
	if _, err := hex.Decode(decoded, raw); err != nil {
		return raw
	}
	return decoded
}

func unquote(raw []byte) []byte {
	if len(raw) >= 2 && raw[0] == '"' && raw[len(raw)-1] == '"' {
		return raw[1 : len(raw)-1]
	}
	return raw
}

// encoded reports whether an unquoted value of this field is hex. The names are those that the kernel writes with
// audit_log_untrustedstring and user space with audit_encode_value.
func encoded(t Type, name string) bool {
	switch name {
	case "comm", "exe", "name", "path", "cwd", "key", "proctitle", "dir", "file", "ocomm", "watch", "acct", "cmd", "vm",
		"old-disk", "new-disk", "sw", "root_dir", "invalid_context", "profile", "target", "srcname":
		return true
	case "data":
		return t == TypeTTY || t == TypeUserTTY
	case "saddr":
		return true
	}
	// a0 is an argument in EXECVE, a number in SYSCALL.
	return t == TypeExecve && len(name) >= 2 && name[0] == 'a' && name[1]-'0' <= 9
}

// find returns the value of the first field of that name in b.
func find(b []byte, name string) ([]byte, bool) {
	for i := 0; i < len(b); {
		n := bytes.IndexByte(b[i:], '=')
		if n < 0 {
			return nil, false
		}
		equals := i + n
		value, end := valueAt(b, equals+1)
		if n >= len(name) && string(b[equals-len(name):equals]) == name && (n == len(name) || b[equals-len(name)-1] == ' ') {
			return value, true
		}
		i = end
	}
	return nil, false
}

// valueAt returns the value that begins at i, and where it ends. A quoted one ends with its quote, another one with a space.
func valueAt(b []byte, i int) ([]byte, int) {
	if i < len(b) && b[i] == '"' {
		if n := bytes.IndexByte(b[i+1:], '"'); n >= 0 {
			return b[i : i+n+2], i + n + 2
		}
	}
	n := bytes.IndexByte(b[i:], ' ')
	if n < 0 {
		return b[i:], len(b)
	}
	return b[i : i+n], i + n
}

func fields(b []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for i := 0; i < len(b); {
			n := bytes.IndexByte(b[i:], '=')
			if n < 0 {
				return
			}
			name := b[i : i+n]
			if s := bytes.LastIndexByte(name, ' '); s >= 0 {
				name = name[s+1:]
			}
			value, end := valueAt(b, i+n+1)
			if len(name) > 0 && !yield(name, value) {
				return
			}
			i = end
		}
	}
}
