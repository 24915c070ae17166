package ima

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // template hashes and SHA-1 banks are what the kernel writes
	"crypto/sha256"
	"crypto/sha512"

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

// chain replays one bank in one mode.
type chain struct {
	mode  Modes
	value [64]byte
}

// bank replays one quoted bank, in each mode that is still possible.
type bank struct {
	alg    tpm.Alg
	size   int
	want   [64]byte
	chains []chain
}

func newBank(alg tpm.Alg, want, value []byte, modes Modes) *bank {
	b := &bank{alg: alg, size: alg.Size()}
	copy(b.want[:], want)
	for _, m := range []Modes{ModeHash, ModePad, ModePadFF} {
		if modes&m != 0 {
			c := chain{mode: m}
			copy(c.value[:], value)
			b.chains = append(b.chains, c)
		}
	}
	return b
}

// matches returns the modes whose value is the quoted one now.
func (b *bank) matches() Modes {
	var m Modes
	for i := range b.chains {
		if b.chains[i].value == b.want {
			m |= b.chains[i].mode
		}
	}
	return m
}

// extend adds an entry. hashed is what the kernel hashed, sha1sum the template hash of the list, which the caller checked.
func (b *bank) extend(hashed []byte, sha1sum *[20]byte, violation bool) {
	for i := range b.chains {
		c := &b.chains[i]
		if b.alg == tpm.AlgSHA256 && c.mode == ModeHash && !violation {
			c.extend256(hashed)
			continue
		}
		var buf [128]byte // old value, digest
		digest := buf[b.size : 2*b.size]
		switch {
		case violation && c.mode == ModePad:
			fill(digest[:20])
		case violation:
			fill(digest)
		case c.mode == ModeHash && b.alg != tpm.AlgSHA1:
			hash(b.alg, hashed, digest)
		default:
			copy(digest, sha1sum[:])
		}
		copy(buf[:b.size], c.value[:])
		hash(b.alg, buf[:2*b.size], c.value[:])
	}
}

// extend256 is extend for the bank and the mode that nearly every worker has.
func (c *chain) extend256(hashed []byte) {
	var buf [64]byte
	*(*[32]byte)(buf[:]) = *(*[32]byte)(c.value[:])
	*(*[32]byte)(buf[32:]) = sha256.Sum256(hashed)
	*(*[32]byte)(c.value[:]) = sha256.Sum256(buf[:])
}

func fill(b []byte) {
	for i := range b {
		b[i] = 0xff
	}
}

// hash puts the hash of data into the first bytes of out. It allocates nothing.
func hash(alg tpm.Alg, data, out []byte) {
	switch alg {
	case tpm.AlgSHA256:
		*(*[32]byte)(out) = sha256.Sum256(data)
	case tpm.AlgSHA1:
		*(*[20]byte)(out) = sha1.Sum(data) //nolint:gosec // see the import
	case tpm.AlgSHA384:
		*(*[48]byte)(out) = sha512.Sum384(data)
	case tpm.AlgSHA512:
		*(*[64]byte)(out) = sha512.Sum512(data)
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
