package tpm

import (
	"crypto"
	"fmt"
	"math/bits"
	"strings"

	_ "crypto/sha1" //nolint:gosec // SHA-1 banks exist on real machines and are replayed, never relied on alone
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// Alg is a TPM_ALG_ID (TPM 2.0 Library, part 2, 6.3).
type Alg uint16

// The algorithm identifiers that Touchstone knows.
const (
	AlgRSA    Alg = 0x0001
	AlgSHA1   Alg = 0x0004
	AlgSHA256 Alg = 0x000B
	AlgSHA384 Alg = 0x000C
	AlgSHA512 Alg = 0x000D
	AlgNull   Alg = 0x0010
	AlgRSASSA Alg = 0x0014
	AlgRSAPSS Alg = 0x0016
	AlgECDSA  Alg = 0x0018
	AlgECC    Alg = 0x0023
)

// HashAlgs are the PCR bank algorithms that can be replayed, weakest first.
var HashAlgs = []Alg{AlgSHA1, AlgSHA256, AlgSHA384, AlgSHA512}

// Hash returns the Go hash of a, or 0 when a is not a hash that Touchstone replays.
func (a Alg) Hash() crypto.Hash {
	switch a {
	case AlgSHA1:
		return crypto.SHA1
	case AlgSHA256:
		return crypto.SHA256
	case AlgSHA384:
		return crypto.SHA384
	case AlgSHA512:
		return crypto.SHA512
	}
	return 0
}

// Size returns the digest size of a in bytes, or 0 when a is not a known hash.
func (a Alg) Size() int {
	if h := a.Hash(); h != 0 {
		return h.Size()
	}
	return 0
}

var algNames = map[Alg]string{
	AlgRSA: "rsa", AlgSHA1: "sha1", AlgSHA256: "sha256", AlgSHA384: "sha384", AlgSHA512: "sha512",
	AlgNull: "null", AlgRSASSA: "rsassa", AlgRSAPSS: "rsapss", AlgECDSA: "ecdsa", AlgECC: "ecc",
}

// String returns the name that tpm2-tools uses ("sha256"), or the number of an unknown algorithm ("0x0012").
func (a Alg) String() string {
	if n, ok := algNames[a]; ok {
		return n
	}
	return fmt.Sprintf("0x%04x", uint16(a))
}

// ParseHashAlg reads a bank name as tpm2-tools and the kernel write it ("sha256").
func ParseHashAlg(s string) (Alg, error) {
	for _, a := range HashAlgs {
		if strings.EqualFold(a.String(), s) {
			return a, nil
		}
	}
	return 0, fmt.Errorf("unknown hash algorithm %q: want sha1, sha256, sha384 or sha512", s)
}

// NumPCRs is the number of PCRs of a PC Client TPM (PC Client Platform TPM Profile, 4.6).
const NumPCRs = 24

// PCRSet is a set of PCR indices 0 to 23: bit i stands for PCR i.
type PCRSet uint32

// PCRs returns the set of the given indices; indices of 24 and more are left out.
func PCRs(index ...int) PCRSet {
	var s PCRSet
	for _, i := range index {
		if i >= 0 && i < NumPCRs {
			s |= 1 << i
		}
	}
	return s
}

// Has reports whether PCR i is in s.
func (s PCRSet) Has(i int) bool { return i >= 0 && i < NumPCRs && s&(1<<i) != 0 }

// Len returns the number of PCRs in s.
func (s PCRSet) Len() int { return bits.OnesCount32(uint32(s)) }

// Indices returns the members of s in ascending order.
func (s PCRSet) Indices() []int {
	var out []int
	for i := range NumPCRs {
		if s.Has(i) {
			out = append(out, i)
		}
	}
	return out
}

// String lists the members as tpm2-tools does: "0,1,2,7".
func (s PCRSet) String() string {
	parts := make([]string, 0, s.Len())
	for _, i := range s.Indices() {
		parts = append(parts, fmt.Sprint(i))
	}
	return strings.Join(parts, ",")
}

// Bank holds PCR values of one algorithm. A PCR without a value is nil.
type Bank struct {
	Alg    Alg
	Values [NumPCRs][]byte
}

// Set returns the indices that have a value.
func (b *Bank) Set() PCRSet {
	var s PCRSet
	for i, v := range b.Values {
		if v != nil {
			s |= 1 << i
		}
	}
	return s
}
