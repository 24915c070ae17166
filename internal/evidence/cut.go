package evidence

import "encoding/binary"

// The keys of the logs in the document's map, as they are encoded.
const (
	keyEventLog = 6
	keyIMA      = 8
)

// worthCutting is the size in bytes below which copying costs less than cutting: that of a document without logs.
const worthCutting = 4 << 10

// cut takes the logs out of a document, so that nothing copies them: they are nearly all of its bytes. rest is the document without
// them. It is in deterministic form exactly when b is: what is cut out has a key in its place, in ascending order, and a length that is
// shortest and not zero. When anything about b is not so, or there is no log, rest is b: then the decoder says what is wrong.
//
// The logs point into b.
func cut(b []byte) (rest, log, list []byte) {
	if len(b) == 0 || b[0]&^maxShort != majorMap {
		return b, nil, nil
	}
	pairs := int(b[0] & maxShort)
	if pairs > lastShort {
		return b, nil, nil
	}
	last, from, at := byte(0), 0, 1
	for range pairs {
		if at == len(b) || b[at] <= last || b[at] > lastShort {
			return b, nil, nil
		}
		start := at
		last = b[at]
		if last > keyIMA {
			break // this and the others stay as they are
		}
		n, ok := skipItem(b[at+1:], maxNesting)
		if !ok {
			return b, nil, nil
		}
		at += 1 + n
		if last != keyEventLog && last != keyIMA {
			continue
		}
		h, ok := readHead(b[start+1:])
		if !ok || h.major != majorBytes || h.value == 0 {
			return b, nil, nil
		}
		if blob := b[start+1+h.size : at : at]; last == keyIMA {
			list = blob
		} else {
			log = blob
		}
		rest = append(rest, b[from:start]...)
		rest[0]-- // pairs
		from = at
	}
	if from == 0 {
		return b, nil, nil
	}
	return append(rest, b[from:]...), log, list
}

// Parts of a CBOR head (RFC 8949, section 3).
const (
	majorBytes = 2 << 5
	majorText  = 3 << 5
	majorArray = 4 << 5
	majorMap   = 5 << 5

	maxShort   = 1<<5 - 1 // the bits that hold a short value, or how long the value is
	lastShort  = 23       // largest value in these bits
	maxNesting = 8        // as the decoder's
)

// head is the begin of a CBOR item: its major type, and its value or length.
type head struct {
	major byte
	value uint64
	size  int // bytes of the head itself
}

// readHead reads a head whose value is in its shortest form; ok is false for others.
func readHead(b []byte) (h head, ok bool) {
	if len(b) == 0 {
		return h, false
	}
	h.major = b[0] &^ maxShort
	short := b[0] & maxShort
	if short <= lastShort {
		h.value, h.size = uint64(short), 1
		return h, true
	}
	width := 1 << (short - lastShort - 1)
	if width > 8 || len(b) < 1+width {
		return h, false
	}
	var wide [8]byte
	copy(wide[8-width:], b[1:1+width])
	h.value, h.size = binary.BigEndian.Uint64(wide[:]), 1+width
	least := uint64(lastShort + 1)
	if width > 1 {
		least = 1 << (4 * width) // what half of the bytes cannot hold
	}
	return h, h.value >= least
}

// skipItem returns the size of the item at the begin of b. Tags, floats and simple values are not ok: a document has none.
func skipItem(b []byte, depth int) (size int, ok bool) {
	h, ok := readHead(b)
	if !ok || depth == 0 || h.major > majorMap {
		return 0, false
	}
	size, items := h.size, h.value
	switch h.major {
	case majorBytes, majorText:
		return size + int(h.value), h.value <= uint64(len(b)-size)
	case majorArray:
	case majorMap:
		if items > uint64(len(b)) {
			return 0, false
		}
		items *= 2
	default: // integers
		return size, true
	}
	for ; items > 0; items-- { // each takes a byte at least, so that a huge number ends early
		n, ok := skipItem(b[size:], depth-1)
		if !ok {
			return 0, false
		}
		size += n
	}
	return size, true
}
