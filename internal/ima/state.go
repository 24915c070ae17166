package ima

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"touchstone.dev/touchstone/internal/tpm"
)

// ByteOrder is the order of the bytes in the numbers of a list.
type ByteOrder uint8

// The byte orders.
const (
	UnknownOrder ByteOrder = iota // no entry seen yet
	LittleEndian
	BigEndian
)

// uint32 reads the first four bytes of b. It is no method of an interface, because it is called some ten times an entry.
func (o ByteOrder) uint32(b []byte) uint32 {
	v := binary.LittleEndian.Uint32(b)
	if o == BigEndian {
		v = bits.ReverseBytes32(v)
	}
	return v
}

// uint16 reads the first two bytes of b.
func (o ByteOrder) uint16(b []byte) uint16 {
	if o == BigEndian {
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

// State is the point up to which a list was verified, in one boot. The zero State is the start of the list. It is small and
// encodes to CBOR.
type State struct {
	Entries uint64    `cbor:"1,keyasint"`
	Offset  uint64    `cbor:"2,keyasint"`           // bytes of the list
	Order   ByteOrder `cbor:"3,keyasint,omitempty"` // of the kernel
	Banks   []Bank    `cbor:"4,keyasint,omitempty"` // the banks that were quoted every time so far, ascending by Alg
	// Aggregate is the boot aggregate, the first entry of the list: its algorithm and digest.
	AggregateAlg tpm.Alg `cbor:"5,keyasint,omitempty"`
	Aggregate    []byte  `cbor:"6,keyasint,omitempty"`
	// Template is the template of the first entry when that is a user-defined one: the only user-defined one that counts.
	Template string `cbor:"7,keyasint,omitempty"`
}

// Bank is PCR 10 of one bank at a State.
type Bank struct {
	Alg   tpm.Alg `cbor:"1,keyasint"`
	Modes Modes   `cbor:"2,keyasint"` // how this kernel extends the bank, as far as it is known
	Value []byte  `cbor:"3,keyasint"`
}

// Clone returns a copy that shares nothing with s.
func (s State) Clone() State {
	s.Banks = slices.Clone(s.Banks)
	for i := range s.Banks {
		s.Banks[i].Value = slices.Clone(s.Banks[i].Value)
	}
	s.Aggregate = slices.Clone(s.Aggregate)
	return s
}

// PCR returns the value of PCR 10 of a bank at s, or nil when the bank is not part of s. At the start of the list it is zero
// in every bank.
func (s State) PCR(alg tpm.Alg) []byte {
	if s.Entries == 0 && alg.Size() > 0 {
		return make([]byte, alg.Size())
	}
	for i := range s.Banks {
		if s.Banks[i].Alg == alg {
			return s.Banks[i].Value
		}
	}
	return nil
}

// SHA1Only reports whether nothing but SHA-1 stands behind the replay so far: a SHA-1 bank alone, or longer banks that the
// kernel extends with padded SHA-1. Whoever can make SHA-1 collisions can then show another entry than the one measured.
func (s State) SHA1Only() bool {
	for _, b := range s.Banks {
		if b.Alg != tpm.AlgSHA1 && b.Modes&ModeHash != 0 {
			return false
		}
	}
	return true
}

// check refuses a state that no Verify made, as a damaged store may hold.
func (s State) check() error {
	if s.Entries == 0 {
		if s.Offset != 0 || len(s.Banks) != 0 {
			return fmt.Errorf("%w: no entries, but offset %d and %d banks", ErrState, s.Offset, len(s.Banks))
		}
		return nil
	}
	if s.Offset > math.MaxInt64/2 || s.Order == UnknownOrder || s.Order > BigEndian {
		return fmt.Errorf("%w: offset %d, byte order %d", ErrState, s.Offset, s.Order)
	}
	for _, b := range s.Banks {
		if b.Alg.Size() == 0 || len(b.Value) != b.Alg.Size() || b.Modes == 0 || b.Modes&^allModes != 0 {
			return fmt.Errorf("%w: bank %v with a value of %d bytes, modes %#x", ErrState, b.Alg, len(b.Value), uint8(b.Modes))
		}
	}
	return nil
}
