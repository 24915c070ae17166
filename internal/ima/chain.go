package ima

import (
	"bytes"
	"hash"

	"touchstone.dev/touchstone/internal/tpm"
)

// Modes is a set of ways in which a kernel extends a bank.
type Modes uint8

// The modes. A bank keeps its mode for a boot.
const (
	// ModeHash: the template data are hashed with the bank's algorithm (Linux 5.8 and later), a violation extends 0xff.
	ModeHash Modes = 1 << iota
	// ModePad: the SHA-1 template hash is padded with zeros to the bank's size, and so is the 0xff of a violation (Linux before 5.8).
	ModePad
	// ModePadFF: as ModePad, but a violation fills the bank's size with 0xff (Linux 5.8 and later when the kernel has the
	// bank's algorithm not built in).
	ModePadFF

	allModes = ModeHash | ModePad | ModePadFF
)

// chain replays one bank in one mode. The first bytes of buf are the value, those behind it the digest that extends it: what is
// hashed stands there already.
type chain struct {
	mode Modes
	buf  [128]byte
}

// bank replays one quoted bank, in each mode that is still possible.
type bank struct {
	alg    tpm.Alg
	size   int
	want   []byte
	chains []chain
	sum    hash.Hash // of alg
}

func newBank(alg tpm.Alg, want, value []byte, modes Modes) *bank {
	b := &bank{alg: alg, size: alg.Size(), want: bytes.Clone(want), sum: alg.Hash().New()}
	for _, m := range []Modes{ModeHash, ModePad, ModePadFF} {
		if modes&m != 0 {
			c := chain{mode: m}
			copy(c.buf[:], value)
			b.chains = append(b.chains, c)
		}
	}
	return b
}

// matches returns the modes whose value is the quoted one now.
func (b *bank) matches() Modes {
	var m Modes
	for i := range b.chains {
		if c := &b.chains[i]; c.buf[0] == b.want[0] && bytes.Equal(c.buf[:b.size], b.want) {
			m |= c.mode
		}
	}
	return m
}

// extend adds an entry. hashed is what the kernel hashed, sha1sum the template hash of the list, which the caller checked.
func (b *bank) extend(hashed []byte, sha1sum *[20]byte, violation bool) {
	for i := range b.chains {
		c := &b.chains[i]
		digest := c.buf[b.size : 2*b.size]
		switch {
		case !violation && c.mode == ModeHash && b.alg != tpm.AlgSHA1:
			b.hash(hashed, digest)
		case violation && c.mode == ModePad:
			clear(digest)
			fill(digest[:20])
		case violation:
			fill(digest)
		default:
			clear(digest)
			copy(digest, sha1sum[:])
		}
		b.hash(c.buf[:2*b.size], c.buf[:b.size])
	}
}

// hash puts the hash of data into out, which may be a part of data. One hash.Hash for all entries is cheaper than a new one for each,
// which is what Sum256 and the like take.
func (b *bank) hash(data, out []byte) {
	b.sum.Reset()
	b.sum.Write(data) // never fails
	b.sum.Sum(out[:0])
}

func fill(b []byte) {
	for i := range b {
		b[i] = 0xff
	}
}

// oldHashed builds what is hashed in the template "ima": the digest and the path padded with zeros to 256 bytes.
func oldHashed(data []byte, buf *[276]byte) []byte {
	clear(buf[:])
	copy(buf[:20], data)
	copy(buf[20:], data[24:])
	return buf[:]
}

// isZero reports whether all bytes of b are zero.
func isZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }
