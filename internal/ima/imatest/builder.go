// Package imatest makes IMA measurement lists as a kernel would, with the values of PCR 10 that belong to them, for tests and
// for the load generator. It shares no code with the reader in package ima, so that each checks the other.
package imatest

import (
	"crypto/sha1" //nolint:gosec // template hashes are SHA-1
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/tpm"
)

// byteOrder reads and appends numbers.
type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// Builder builds a list. Its methods panic on a use that no kernel allows, such as an unknown template field.
type Builder struct {
	order   byteOrder
	modes   map[tpm.Alg]ima.Modes
	pcrs    map[tpm.Alg][]byte
	list    []byte
	offsets []int // where each entry starts
}

// New returns a builder of a little-endian list whose kernel extends the given banks (none given: SHA-256), each hashed.
func New(banks ...tpm.Alg) *Builder {
	if len(banks) == 0 {
		banks = []tpm.Alg{tpm.AlgSHA256}
	}
	b := &Builder{order: binary.LittleEndian, modes: map[tpm.Alg]ima.Modes{}, pcrs: map[tpm.Alg][]byte{}}
	for _, alg := range banks {
		b.modes[alg] = ima.ModeHash
		b.pcrs[alg] = make([]byte, alg.Size())
	}
	return b
}

// BigEndian makes the kernel a big-endian one. Call it before anything is added.
func (b *Builder) BigEndian() *Builder {
	b.order = binary.BigEndian
	return b
}

// Mode sets how the kernel extends a bank. Call it before anything is added.
func (b *Builder) Mode(alg tpm.Alg, m ima.Modes) *Builder {
	b.modes[alg] = m
	return b
}

// Bytes returns a copy of the list.
func (b *Builder) Bytes() []byte { return slices.Clone(b.list) }

// Since returns a copy of the list from entry i on.
func (b *Builder) Since(i int) []byte { return slices.Clone(b.list[b.Offset(i):]) }

// Len returns the number of entries.
func (b *Builder) Len() int { return len(b.offsets) }

// Offset returns where entry i starts; for i = Len, the end of the list.
func (b *Builder) Offset(i int) int {
	if i == len(b.offsets) {
		return len(b.list)
	}
	return b.offsets[i]
}

// PCRs returns PCR 10 of each bank after the entries so far. Remove, Swap and Alter do not change it.
func (b *Builder) PCRs() map[tpm.Alg][]byte {
	m := map[tpm.Alg][]byte{}
	for alg, v := range b.pcrs {
		m[alg] = slices.Clone(v)
	}
	return m
}

// Clone returns an independent copy.
func (b *Builder) Clone() *Builder {
	c := *b
	c.list, c.offsets, c.pcrs = slices.Clone(b.list), slices.Clone(b.offsets), b.PCRs()
	return &c
}

// Aggregate adds boot_aggregate over the PCR values of bank: PCR 0 to 9, or 0 to 7 for SHA-1. Values that are nil count as zeros.
func (b *Builder) Aggregate(template string, bank *tpm.Bank) *Builder {
	n := 10
	if bank.Alg == tpm.AlgSHA1 {
		n = 8
	}
	h := bank.Alg.Hash().New()
	for _, v := range bank.Values[:n] {
		if v == nil {
			v = make([]byte, bank.Alg.Size())
		}
		h.Write(v)
	}
	return b.Add(template, Fields{Alg: bank.Alg, Digest: h.Sum(nil), Path: ima.AggregateName})
}

// File adds an ima-ng entry with a SHA-256 digest.
func (b *Builder) File(path string, digest []byte) *Builder {
	return b.Add("ima-ng", Fields{Alg: tpm.AlgSHA256, Digest: digest, Path: path})
}

// Buffer adds an ima-buf entry: a kexec command line ("kexec-cmdline"), a key, critical data.
func (b *Builder) Buffer(name string, buffer []byte) *Builder {
	digest := sha256.Sum256(buffer)
	return b.Add("ima-buf", Fields{Alg: tpm.AlgSHA256, Digest: digest[:], Path: name, Buffer: buffer})
}

// Add adds an entry of a template: a kernel's name ("ima-sig") or a format ("d-ng|n-ng|iuid").
func (b *Builder) Add(template string, f Fields) *Builder {
	data := f.data(template, b.order)
	return b.append(template, data, hashed(template, data, b.order), f.Violation)
}

// Raw adds an entry with any template data, hashed as they are.
func (b *Builder) Raw(template string, data []byte) *Builder {
	return b.append(template, data, data, false)
}

func (b *Builder) append(template string, data, hashed []byte, violation bool) *Builder {
	hash := sha1.Sum(hashed) //nolint:gosec // see the import
	if violation {
		hash = [20]byte{}
	}
	b.offsets = append(b.offsets, len(b.list))
	b.list = b.order.AppendUint32(b.list, ima.PCR)
	b.list = append(b.list, hash[:]...)
	b.list = b.order.AppendUint32(b.list, uint32(len(template)))
	b.list = append(b.list, template...)
	if template != "ima" {
		b.list = b.order.AppendUint32(b.list, uint32(len(data)))
	}
	b.list = append(b.list, data...)
	for alg, v := range b.pcrs {
		h := alg.Hash().New()
		h.Write(v)
		h.Write(b.extension(alg, hashed, hash[:], violation))
		b.pcrs[alg] = h.Sum(nil)
	}
	return b
}

// extension is the digest with which a bank is extended.
func (b *Builder) extension(alg tpm.Alg, hashed, hash []byte, violation bool) []byte {
	ff := func(n int) []byte { return append(slices.Repeat([]byte{0xff}, n), make([]byte, alg.Size()-n)...) }
	mode := b.modes[alg]
	switch {
	case violation && mode == ima.ModePad:
		return ff(20)
	case violation:
		return ff(alg.Size())
	case mode != ima.ModeHash:
		return append(slices.Clone(hash), make([]byte, alg.Size()-20)...)
	}
	h := alg.Hash().New()
	h.Write(hashed)
	return h.Sum(nil)
}

// Remove takes entry i out of the list.
func (b *Builder) Remove(i int) *Builder {
	from, to := b.Offset(i), b.Offset(i+1)
	b.list = slices.Delete(b.list, from, to)
	b.offsets = slices.Delete(b.offsets, i, i+1)
	for j := i; j < len(b.offsets); j++ {
		b.offsets[j] -= to - from
	}
	return b
}

// Swap exchanges entry i and the next one.
func (b *Builder) Swap(i int) *Builder {
	from, mid, to := b.Offset(i), b.Offset(i+1), b.Offset(i+2)
	b.list = slices.Concat(b.list[:from], b.list[mid:to], b.list[from:mid], b.list[to:])
	b.offsets[i+1] = from + to - mid
	return b
}

// Alter hands the bytes of entry i to f, which may change them in place. With rehash, the template hash of the entry is made
// to fit again, as an attacker would.
func (b *Builder) Alter(i int, rehash bool, f func(entry []byte)) *Builder {
	e := b.list[b.Offset(i):b.Offset(i+1)]
	f(e)
	if !rehash {
		return b
	}
	n := b.order.Uint32(e[24:])
	template := string(e[28 : 28+n])
	data := e[28+n:]
	if template != "ima" {
		data = data[4:]
	}
	hash := sha1.Sum(hashed(template, data, b.order)) //nolint:gosec // see the import
	copy(e[4:24], hash[:])
	return b
}

// Files adds n ima-sig entries without signature, with the digests that Digest gives, under paths of about 60 bytes.
func (b *Builder) Files(n int) *Builder {
	for range n {
		i := b.Len()
		b.Add("ima-sig", Fields{Alg: tpm.AlgSHA256, Digest: Digest(i), Path: fmt.Sprintf("/usr/lib/x86_64-linux-gnu/synthetic/%06d/lib-of-the-test.so.1", i)})
	}
	return b
}
