package luks

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"unicode"
)

// The binary header of LUKS2 (specification 2.1): 4096 bytes, numbers big endian.
const (
	binarySize  = 4096
	atVersion   = 6   // uint16
	atSize      = 8   // uint64: of binary header and JSON together
	atLabel     = 24  // 48 bytes
	atAlgorithm = 72  // 32 bytes: name of the checksum's hash
	atSalt      = 104 // 64 bytes
	atUUID      = 168 // 40 bytes
	atOffset    = 256 // uint64: of this header from the start of the device
	atChecksum  = 448 // 64 bytes; zero while the checksum is computed
	endChecksum = 512
)

var (
	magic1 = []byte("LUKS\xba\xbe")
	magic2 = []byte("SKUL\xba\xbe") // of the second header of LUKS2
)

// sizes are those that a header may have, and so the offsets at which the second one may lie (2.2).
var sizes = []int64{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20}

// text is a field that ends at its first zero.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return shown(string(b))
}

// shown makes a text from a disk fit to be shown: bounded, and without characters that play tricks on a terminal.
func shown(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), maxText)], "?"))
	return s[:min(len(s), 3*maxText)]
}

// checksum computes the checksum of a whole header (2.1, csum), whose bytes beyond b are zero.
func checksum(b []byte, size int64) ([]byte, error) {
	var h hash.Hash
	switch name := text(b[atAlgorithm : atAlgorithm+32]); name {
	case "sha256":
		h = sha256.New()
	case "sha512":
		h = sha512.New()
	case "sha384":
		h = sha512.New384()
	default:
		return nil, fmt.Errorf("the checksum of the LUKS2 header is by %q, which is not read here", name)
	}
	h.Write(b[:atChecksum])
	h.Write(make([]byte, endChecksum-atChecksum))
	h.Write(b[endChecksum:])
	var zeros [binarySize]byte
	for left := size - int64(len(b)); left > 0; left -= int64(len(zeros)) {
		h.Write(zeros[:min(left, int64(len(zeros)))])
	}
	return h.Sum(nil), nil
}

// check2 checks a LUKS2 header and returns its JSON. Zeros at its end may be left out.
func check2(b []byte) ([]byte, error) {
	if len(b) < binarySize {
		return nil, errors.New("the LUKS2 header is cut off")
	}
	size, ok := size2(b)
	if !ok || int64(len(b)) > size {
		return nil, errors.New("the size of the LUKS2 header is none that the specification allows")
	}
	sum, err := checksum(b, size)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(sum, b[atChecksum:atChecksum+len(sum)]) != 1 {
		return nil, errors.New("the checksum of the LUKS2 header does not fit")
	}
	return bytes.TrimRight(b[binarySize:], "\x00"), nil
}

func size2(b []byte) (int64, bool) {
	size := binary.BigEndian.Uint64(b[atSize:])
	for _, s := range sizes {
		if uint64(s) == size {
			return s, true
		}
	}
	return 0, false
}

// read2 reads a LUKS2 header at an offset.
func read2(r io.ReaderAt, at int64, magic []byte) ([]byte, error) {
	head := make([]byte, binarySize)
	if _, err := r.ReadAt(head, at); err != nil {
		return nil, fmt.Errorf("read the LUKS2 header: %w", err)
	}
	if !bytes.HasPrefix(head, magic) || binary.BigEndian.Uint16(head[atVersion:]) != 2 || binary.BigEndian.Uint64(head[atOffset:]) != uint64(at) {
		return nil, ErrNone
	}
	size, ok := size2(head)
	if !ok {
		return nil, errors.New("the size of the LUKS2 header is none that the specification allows")
	}
	b := append(head, make([]byte, size-binarySize)...)
	if _, err := r.ReadAt(b[binarySize:], at+binarySize); err != nil {
		return nil, fmt.Errorf("read the LUKS2 header: %w", err)
	}
	_, err := check2(b)
	return b, err
}

// Read reads the header of a device, as Parse takes it. Where the first header of LUKS2 is damaged, the second one is taken, as cryptsetup does (2.3). Without any
// it returns ErrNone.
func Read(r io.ReaderAt) ([]byte, error) {
	head := make([]byte, 8)
	if _, err := r.ReadAt(head, 0); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, ErrNone
		}
		return nil, fmt.Errorf("read the LUKS header: %w", err)
	}
	if bytes.HasPrefix(head, magic1) && binary.BigEndian.Uint16(head[atVersion:]) == 1 {
		return read1(r)
	}
	b, err := read2(r, 0, magic1)
	if err == nil {
		return b, nil
	}
	for _, at := range sizes {
		if b, err2 := read2(r, at, magic2); err2 == nil {
			return b, nil
		}
	}
	return nil, err
}

// Parse reads a header that Read or Strip returned.
func Parse(b []byte) (*Header, error) {
	if len(b) > MaxHeader {
		return nil, fmt.Errorf("a LUKS header of %d bytes, at most %d", len(b), MaxHeader)
	}
	if len(b) < 8 || !bytes.HasPrefix(b, magic1) && !bytes.HasPrefix(b, magic2) {
		return nil, ErrNone
	}
	switch v := binary.BigEndian.Uint16(b[atVersion:]); v {
	case 1:
		return parse1(b)
	case 2:
		return parse2(b)
	default:
		return nil, fmt.Errorf("a LUKS header of version %d, which is not read here", v)
	}
}

func parse2(b []byte) (*Header, error) {
	text2, err := check2(b)
	if err != nil {
		return nil, err
	}
	m, err := parseMetadata(text2)
	if err != nil {
		return nil, err
	}
	h := &Header{Version: 2, UUID: text(b[atUUID : atUUID+40]), Label: text(b[atLabel : atLabel+48])}
	return h, m.fill(h)
}

// Strip leaves out of a header what helps to open the volume; what comes out is what Parse takes.
func Strip(b []byte) ([]byte, error) {
	if len(b) >= 8 && binary.BigEndian.Uint16(b[atVersion:]) == 1 {
		return strip1(b)
	}
	data, err := check2(b)
	if err != nil {
		return nil, err
	}
	m, err := parseMetadata(data)
	if err != nil {
		return nil, err
	}
	left, err := m.strip()
	if err != nil {
		return nil, err
	}
	out := append(bytes.Clone(b[:binarySize]), left...)
	clear(out[atSalt : atSalt+64])
	clear(out[endChecksum:binarySize])
	clear(out[atChecksum:endChecksum])
	copy(out[atAlgorithm:], make([]byte, 32))
	copy(out[atAlgorithm:], "sha256")
	size := sizes[0]
	for _, s := range sizes {
		if size = s; int64(len(out)) <= s {
			break
		}
	}
	if len(out) > MaxStripped {
		return nil, fmt.Errorf("what is left of the LUKS2 header has %d bytes, at most %d are sent", len(out), MaxStripped)
	}
	binary.BigEndian.PutUint64(out[atSize:], uint64(size))
	sum, err := checksum(out, size)
	if err != nil {
		return nil, err
	}
	copy(out[atChecksum:], sum)
	return out, nil
}
