package eventlog

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // SHA-1 banks exist on real machines and are replayed, never relied on alone
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"

	"touchstone.dev/touchstone/internal/tpm"
)

// ErrNoBank is returned by Replay when the log doesn't say what went into a bank.
var ErrNoBank = errors.New("log does not cover the bank")

// Replay extends the events into PCRs of bank a, as the TPM did, and returns the values. A PCR that no event extends is nil.
//
// PCR 0 starts from the startup locality; the others from zeros, also 17 to 22, which a dynamic launch resets before it measures.
// The error wraps ErrNoBank: a isn't a bank of the log, or an event has no digest for it.
func (l *Log) Replay(a tpm.Alg) (tpm.Bank, error) {
	out := tpm.Bank{Alg: a}
	size := a.Size()
	if size == 0 || !l.has(a) {
		return tpm.Bank{}, fmt.Errorf("%w %v: it has %v", ErrNoBank, a, l.Algs)
	}
	var extended tpm.PCRSet
	values := make([]byte, tpm.NumPCRs*size)
	if l.Locality > 0 {
		values[size-1] = byte(l.Locality)
	}
	for i := range l.Events {
		e := &l.Events[i]
		if !e.Extends() {
			continue
		}
		sum := e.Digest(a)
		if len(sum) != size || e.PCR < 0 || e.PCR >= tpm.NumPCRs {
			return tpm.Bank{}, fmt.Errorf("%w %v: event %d has no digest for it", ErrNoBank, a, e.Index)
		}
		extend(a, values[e.PCR*size:(e.PCR+1)*size], sum)
		extended |= 1 << e.PCR
	}
	for i := range out.Values {
		if extended.Has(i) {
			out.Values[i] = values[i*size : (i+1)*size : (i+1)*size]
		}
	}
	return out, nil
}

func (l *Log) has(a tpm.Alg) bool {
	for _, b := range l.Algs {
		if a == b {
			return true
		}
	}
	return false
}

// extend sets value to hash(value || sum). It is spelt out for each hash because the one-shot functions need no allocation.
func extend(a tpm.Alg, value, sum []byte) {
	var block [2 * sha512.Size]byte
	n := copy(block[:], value)
	n += copy(block[n:], sum)
	switch a {
	case tpm.AlgSHA1:
		h := sha1.Sum(block[:n]) //nolint:gosec // see the import
		copy(value, h[:])
	case tpm.AlgSHA256:
		h := sha256.Sum256(block[:n])
		copy(value, h[:])
	case tpm.AlgSHA384:
		h := sha512.Sum384(block[:n])
		copy(value, h[:])
	case tpm.AlgSHA512:
		h := sha512.Sum512(block[:n])
		copy(value, h[:])
	}
}

// MismatchKind says in which way a quoted PCR and the log disagree.
type MismatchKind int

// The ways of disagreeing. The zero value is none of them.
const (
	// ValueDiffers: the events of the PCR give another value.
	ValueDiffers MismatchKind = iota + 1
	// NoEvents: the PCR isn't at its reset value, and the log has no event for it.
	NoEvents
	// NoBank: the log doesn't cover the quoted bank, so nothing is known of this PCR.
	NoBank
)

// String describes k in a word or two.
func (k MismatchKind) String() string {
	switch k {
	case ValueDiffers:
		return "value differs"
	case NoEvents:
		return "value without events"
	case NoBank:
		return "bank not in log"
	}
	return "unknown mismatch"
}

// Mismatch is one PCR whose quoted value the log doesn't explain.
type Mismatch struct {
	PCR  int
	Kind MismatchKind
	// Replayed is what the log gives, or the reset value when the log has no events; nil for NoBank.
	Replayed []byte
	Quoted   []byte
}

// String is one line for people.
func (m Mismatch) String() string {
	switch m.Kind {
	case NoEvents:
		return fmt.Sprintf("PCR %d: %v: quoted %x, reset value %x", m.PCR, m.Kind, m.Quoted, m.Replayed)
	case NoBank:
		return fmt.Sprintf("PCR %d: %v: quoted %x", m.PCR, m.Kind, m.Quoted)
	}
	return fmt.Sprintf("PCR %d: %v: quoted %x, log gives %x", m.PCR, m.Kind, m.Quoted, m.Replayed)
}

// imaPCR belongs to the kernel's IMA list, which package ima replays.
const imaPCR = 10

// Compare holds the quoted values of one bank against the log and returns every PCR that differs, in ascending order; nil means that the
// log explains all of them. Only PCRs with a value in quoted are looked at, PCR 10 never. A PCR without events must hold its reset
// value: common replay code takes any value there, and so lets an event be hidden by leaving out all of them.
func (l *Log) Compare(quoted *tpm.Bank) []Mismatch {
	var out []Mismatch
	bank, err := l.Replay(quoted.Alg)
	launched := false
	for i := 17; i <= 22; i++ {
		launched = launched || bank.Values[i] != nil
	}
	for i, q := range quoted.Values {
		if q == nil || i == imaPCR {
			continue
		}
		v := bank.Values[i]
		switch {
		case err != nil:
			out = append(out, Mismatch{PCR: i, Kind: NoBank, Quoted: q})
		case v == nil:
			if reset := l.resetValue(i, quoted.Alg, launched); !bytes.Equal(reset, q) {
				out = append(out, Mismatch{PCR: i, Kind: NoEvents, Replayed: reset, Quoted: q})
			}
		case !bytes.Equal(v, q):
			out = append(out, Mismatch{PCR: i, Kind: ValueDiffers, Replayed: v, Quoted: q})
		}
	}
	return out
}

// resetValue is what PCR i holds when nothing was measured into it (PC Client Platform TPM Profile, 4.6.2). PCRs 17 to 22 hold ones until
// a dynamic launch sets all of them to zero; launched says that the log shows one.
func (l *Log) resetValue(i int, a tpm.Alg, launched bool) []byte {
	v := make([]byte, a.Size())
	switch {
	case i == 0 && l.Locality > 0:
		v[len(v)-1] = byte(l.Locality)
	case i >= 17 && i <= 22 && !launched:
		for k := range v {
			v[k] = 0xff
		}
	}
	return v
}
