package ima

import (
	"bytes"
)

// xattrs collects the three fields of a template that tell the extended attributes of an inode: names joined by "|" and ended
// by NUL, a 32-bit length for each, the values without separators (Linux, evm_read_protected_xattrs).
type xattrs struct {
	names, lengths, values []byte
	seen                   bool
}

// split takes the fields apart into e.Extra. A template may have only the names, or only some of the fields; values are
// split only when all three agree.
func (x *xattrs) split(e *Entry, order ByteOrder) {
	names := bytes.TrimSuffix(x.names, []byte{0})
	if len(names) == 0 {
		if len(x.values) > 0 {
			e.problem("values of extended attributes without names")
		}
		return
	}
	for _, n := range bytes.Split(names, []byte("|")) {
		e.Extra.XattrNames = append(e.Extra.XattrNames, string(n))
	}
	if x.lengths == nil && x.values == nil {
		return
	}
	if len(x.lengths) != 4*len(e.Extra.XattrNames) {
		e.problem("%d extended attributes with %d bytes of lengths", len(e.Extra.XattrNames), len(x.lengths))
		return
	}
	rest := x.values
	for at := 0; at < len(x.lengths); at += 4 {
		n := order.uint32(x.lengths[at:])
		if uint64(n) > uint64(len(rest)) {
			e.problem("values of extended attributes are shorter than their lengths")
			return
		}
		e.Extra.XattrValues = append(e.Extra.XattrValues, rest[:n])
		rest = rest[n:]
	}
	if len(rest) > 0 {
		e.problem("values of extended attributes are longer than their lengths")
	}
}
