// Package eventlogtest builds firmware event logs for tests: right ones, wrong ones, and real ones taken apart and changed.
//
// A Builder keeps two things apart on purpose: the bytes of the log, and the PCR values that a TPM would hold after the boot that the
// log tells of. A test can so forge a log without the TPM following, or extend a TPM without a log entry.
package eventlogtest

import (
	"encoding/binary"
	"fmt"
	"slices"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/tpm"
)

// Bank is an algorithm that the header declares. Size is the digest size in bytes; it matters for algorithms that Touchstone doesn't know.
type Bank struct {
	Alg  tpm.Alg
	Size int
}

// Entry is one event as it will be written. Digests of algorithms without an entry in Digests are hash(Data), or zeros for an algorithm unknown to
// package tpm and for EV_NO_ACTION.
type Entry struct {
	PCR     uint32
	Type    eventlog.Type
	Data    []byte
	Digests map[tpm.Alg][]byte
	// Over, if not nil, is what the digests cover instead of Data: an image, a file, a command without its prefix.
	Over []byte
}

// Builder collects events. The zero value is an empty SHA-1 log without header; New makes a crypto-agile one.
type Builder struct {
	Agile      bool
	Banks      []Bank
	VendorInfo []byte
	// Header replaces the Spec ID event's data when not nil.
	Header  []byte
	Entries []Entry
	// Locality is the last byte of PCR 0 before the first event, as TPM2_Startup or an H-CRTM sets it.
	Locality byte
}

// New returns a Builder of a crypto-agile log with the given banks.
func New(algs ...tpm.Alg) *Builder {
	b := &Builder{Agile: true}
	for _, a := range algs {
		b.Banks = append(b.Banks, Bank{Alg: a, Size: a.Size()})
	}
	return b
}

// NewLegacy returns a Builder of a SHA-1 log without Spec ID header.
func NewLegacy() *Builder {
	return &Builder{Banks: []Bank{{Alg: tpm.AlgSHA1, Size: tpm.AlgSHA1.Size()}}}
}

// Open takes a log apart: every event becomes an entry with its own digests, to be changed, moved or dropped.
func Open(log []byte) (*Builder, error) {
	l, err := eventlog.Parse(log)
	if err != nil {
		return nil, fmt.Errorf("take event log apart: %w", err)
	}
	if len(l.Skipped) > 0 {
		return nil, fmt.Errorf("take event log apart: banks %v are unknown", l.Skipped)
	}
	b := New(l.Algs...)
	b.Agile, b.VendorInfo = l.Agile, slices.Clone(l.VendorInfo)
	b.Locality = byte(max(l.Locality, 0))
	events := l.Events
	if l.Agile {
		b.Header, events = slices.Clone(events[0].Data), events[1:]
	}
	for _, e := range events {
		entry := Entry{PCR: uint32(e.PCR), Type: e.Type, Data: slices.Clone(e.Data), Digests: map[tpm.Alg][]byte{}}
		for _, d := range e.Digests {
			entry.Digests[d.Alg] = slices.Clone(d.Sum)
		}
		b.Entries = append(b.Entries, entry)
	}
	return b, nil
}

// Add appends an event whose digests are the hashes of data.
func (b *Builder) Add(pcr uint32, t eventlog.Type, data []byte) *Builder {
	return b.AddOver(pcr, t, data, nil)
}

// AddOver appends an event whose digests are the hashes of over instead of data.
func (b *Builder) AddOver(pcr uint32, t eventlog.Type, data, over []byte) *Builder {
	b.Entries = append(b.Entries, Entry{PCR: pcr, Type: t, Data: data, Over: over})
	return b
}

// AddLocality appends a StartupLocality event and lets PCR 0 start from it.
func (b *Builder) AddLocality(l byte) *Builder {
	b.Locality = l
	return b.Add(0, eventlog.NoAction, append([]byte("StartupLocality\x00"), l))
}

// AddSeparators appends EV_SEPARATOR events to PCR 0 to 7.
func (b *Builder) AddSeparators() *Builder {
	for pcr := range uint32(8) {
		b.Add(pcr, eventlog.Separator, make([]byte, 4))
	}
	return b
}

// Bytes returns the log.
func (b *Builder) Bytes() []byte {
	var out []byte
	if b.Agile {
		out = appendEvent1(out, 0, eventlog.NoAction, make([]byte, tpm.AlgSHA1.Size()), b.header())
	}
	for _, e := range b.Entries {
		if !b.Agile {
			out = appendEvent1(out, e.PCR, e.Type, e.sum(b.Banks[0]), e.Data)
			continue
		}
		out = binary.LittleEndian.AppendUint32(out, e.PCR)
		out = binary.LittleEndian.AppendUint32(out, uint32(e.Type))
		out = binary.LittleEndian.AppendUint32(out, uint32(len(b.Banks)))
		for _, k := range b.Banks {
			out = binary.LittleEndian.AppendUint16(out, uint16(k.Alg))
			out = append(out, e.sum(k)...)
		}
		out = binary.LittleEndian.AppendUint32(out, uint32(len(e.Data)))
		out = append(out, e.Data...)
	}
	return out
}

// Offsets returns where each event of Bytes starts, the header first, and the length of the log at the end.
func (b *Builder) Offsets() []int {
	short := *b
	var out []int
	if b.Agile {
		out = append(out, 0)
	}
	for i := range b.Entries {
		short.Entries = b.Entries[:i]
		out = append(out, len(short.Bytes()))
	}
	return append(out, len(b.Bytes()))
}

// PCRs returns the values that a TPM holds after extending all entries but EV_NO_ACTION, in bank a. Every PCR has a value: those without events have
// their reset value.
func (b *Builder) PCRs(a tpm.Alg) tpm.Bank {
	out := tpm.Bank{Alg: a}
	for i := range out.Values {
		out.Values[i] = make([]byte, a.Size())
		if i >= 17 && i <= 22 && !b.launched() {
			out.Values[i] = slices.Repeat([]byte{0xff}, a.Size())
		}
	}
	out.Values[0][a.Size()-1] = b.Locality
	for _, e := range b.Entries {
		if e.Type != eventlog.NoAction && e.PCR < tpm.NumPCRs {
			Extend(&out, int(e.PCR), e.sum(Bank{Alg: a, Size: a.Size()}))
		}
	}
	return out
}

// Extend extends sum into PCR i of bank.
func Extend(bank *tpm.Bank, i int, sum []byte) {
	h := bank.Alg.Hash().New()
	h.Write(bank.Values[i])
	h.Write(sum)
	bank.Values[i] = h.Sum(nil)
}

// launched reports whether an entry belongs to a dynamic launch, which sets PCR 17 to 22 to zero.
func (b *Builder) launched() bool {
	return slices.ContainsFunc(b.Entries, func(e Entry) bool {
		return e.PCR >= 17 && e.PCR <= 22 && e.Type != eventlog.NoAction
	})
}

// header returns the data of the Spec ID event.
func (b *Builder) header() []byte {
	if b.Header != nil {
		return b.Header
	}
	out := []byte("Spec ID Event03\x00")
	out = append(out, 0, 0, 0, 0, 0, 2, 105, 2) // class, version 2.0, errata 105, 64-bit UINTN
	out = binary.LittleEndian.AppendUint32(out, uint32(len(b.Banks)))
	for _, k := range b.Banks {
		out = binary.LittleEndian.AppendUint16(out, uint16(k.Alg))
		out = binary.LittleEndian.AppendUint16(out, uint16(k.Size))
	}
	out = append(out, byte(len(b.VendorInfo)))
	return append(out, b.VendorInfo...)
}

// sum returns the digest of e for bank k.
func (e *Entry) sum(k Bank) []byte {
	if d, ok := e.Digests[k.Alg]; ok {
		return d
	}
	if k.Alg.Hash() == 0 || e.Type == eventlog.NoAction {
		return make([]byte, k.Size)
	}
	over := e.Data
	if e.Over != nil {
		over = e.Over
	}
	h := k.Alg.Hash().New()
	h.Write(over)
	return h.Sum(nil)
}

// appendEvent1 writes a TCG_PCR_EVENT.
func appendEvent1(out []byte, pcr uint32, t eventlog.Type, sum, data []byte) []byte {
	out = binary.LittleEndian.AppendUint32(out, pcr)
	out = binary.LittleEndian.AppendUint32(out, uint32(t))
	out = append(out, sum...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(data)))
	return append(out, data...)
}
