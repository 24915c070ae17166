package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// What can be wrong with a TPM structure. Every decoder of this package wraps one of them.
var (
	ErrTruncated   = errors.New("structure ends too early")
	ErrTrailing    = errors.New("bytes after the end of the structure")
	ErrMalformed   = errors.New("malformed structure")
	ErrUnsupported = errors.New("unsupported algorithm")
)

// Limits on what a decoder takes, far above what the largest real TPM writes.
const (
	maxDigest     = 64            // SHA-512
	maxName       = 2 + maxDigest // TPM2B_NAME: nameAlg and digest
	maxData       = 2 + maxDigest // TPM2B_DATA: sizeof(TPMT_HA)
	maxRSA        = 4096 / 8      // bytes of an RSA modulus or signature
	maxCoordinate = (521 + 7) / 8 // bytes of a coordinate of P-521
	maxSelections = 16            // banks in one TPML_PCR_SELECTION (HASH_COUNT)
	maxSelect     = 4             // bytes of one PCR bit map (PCR_SELECT_MAX)
	maxPEM        = 16 << 10      // bytes of a PEM file with one key or certificate
	maxArea       = 4 << 10       // bytes of a TPMT_PUBLIC
)

// wire reads the big-endian encoding of part 2 from front to back. The first failure sticks: later reads return zero, so
// that a decoder asks for the error once, at the end. Slices that it hands out alias the input.
type wire struct {
	b   []byte
	err error
}

func (w *wire) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.b = nil
}

func (w *wire) take(n int) []byte {
	if w.err != nil {
		return nil
	}
	if n > len(w.b) {
		w.fail(ErrTruncated)
		return nil
	}
	out := w.b[:n:n]
	w.b = w.b[n:]
	return out
}

func (w *wire) u8() uint8 {
	if b := w.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (w *wire) u16() uint16 {
	if b := w.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (w *wire) u32() uint32 {
	if b := w.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (w *wire) u64() uint64 {
	if b := w.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (w *wire) alg() Alg { return Alg(w.u16()) }

// sized reads a TPM2B: two bytes of length and that many bytes, at most limit.
func (w *wire) sized(limit int) []byte {
	n := int(w.u16())
	if n > limit {
		w.fail(fmt.Errorf("%w: a field says it has %d bytes, at most %d are possible", ErrMalformed, n, limit))
		return nil
	}
	return w.take(n)
}

// end returns the first failure, or ErrTrailing when input is left over.
func (w *wire) end() error {
	if w.err == nil && len(w.b) != 0 {
		return fmt.Errorf("%w: %d", ErrTrailing, len(w.b))
	}
	return w.err
}
