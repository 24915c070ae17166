package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
)

// Algorithms that occur inside public areas and nowhere else (part 2, 6.3).
const (
	algAES   Alg = 0x0006
	algRSAES Alg = 0x0015
	algOAEP  Alg = 0x0017
	algECDH  Alg = 0x0019
	algCFB   Alg = 0x0043
)

// Public is a public key with what its TPM says about it (TPMT_PUBLIC, part 2, 12.2.4). A key from PEM has only Type and Key.
type Public struct {
	Type       Alg    // AlgRSA or AlgECC
	NameAlg    Alg    // hash of the Name
	Attributes uint32 // TPMA_OBJECT; see the Attribute constants
	AuthPolicy []byte
	SymAlg     Alg // symmetric algorithm of a storage key (EK); AlgNull for a signing key
	SymBits    uint16
	SymMode    Alg
	SchemeAlg  Alg // scheme that the key is bound to, AlgNull if to none
	SchemeHash Alg
	Key        crypto.PublicKey // *rsa.PublicKey of 2048 to 4096 bits or *ecdsa.PublicKey on P-256, P-384 or P-521

	area []byte
}

// ParsePublic reads a TPM2B_PUBLIC, a bare TPMT_PUBLIC, or one PEM block of type PUBLIC KEY. RSA keys have 2048 to 4096 bits
// and a public exponent of 65537 or more; points must lie on P-256, P-384 or P-521. Other kinds of objects are refused with
// ErrUnsupported.
func ParsePublic(b []byte) (*Public, error) {
	if bytes.HasPrefix(bytes.TrimLeft(b, "\r\n\t "), []byte("-----BEGIN")) {
		return parsePEM(b)
	}
	if len(b) < 2 {
		return nil, fmt.Errorf("read public area: %w", ErrTruncated)
	}
	// The first two bytes are either the size of what follows, or the type: no public area is as short as 1 or 35 bytes.
	size := int(binary.BigEndian.Uint16(b))
	if t := Alg(size); t != AlgRSA && t != AlgECC {
		switch n := len(b) - 2; {
		case n < size:
			return nil, fmt.Errorf("read TPM2B_PUBLIC: %w: %d of %d bytes", ErrTruncated, n, size)
		case n > size:
			return nil, fmt.Errorf("read TPM2B_PUBLIC: %w: %d", ErrTrailing, n-size)
		}
		b = b[2:]
	}
	if len(b) > maxArea {
		return nil, fmt.Errorf("read public area: %w: %d bytes, at most %d are possible", ErrMalformed, len(b), maxArea)
	}
	p := &Public{area: bytes.Clone(b)}
	w := wire{b: p.area}
	p.decode(&w)
	if err := w.end(); err != nil {
		return nil, fmt.Errorf("read public area: %w", err)
	}
	return p, nil
}

func (p *Public) decode(w *wire) {
	p.Type = w.alg()
	p.NameAlg = w.alg()
	p.Attributes = w.u32()
	if w.err == nil && p.Attributes&reservedAttributes != 0 {
		w.fail(fmt.Errorf("%w: reserved attributes %#x, which no TPM sets", ErrMalformed, p.Attributes&reservedAttributes))
	}
	p.AuthPolicy = w.sized(maxDigest)
	if w.err == nil && p.NameAlg.Hash() == 0 {
		w.fail(fmt.Errorf("%w: name algorithm %v", ErrUnsupported, p.NameAlg))
	}
	switch p.Type {
	case AlgRSA:
		p.symmetric(w)
		p.scheme(w, AlgRSASSA, AlgRSAPSS, algOAEP)
		p.rsaKey(w)
	case AlgECC:
		p.symmetric(w)
		p.scheme(w, AlgECDSA, algECDH)
		p.eccKey(w)
	default:
		if w.err == nil {
			w.fail(fmt.Errorf("%w: object type %v, want rsa or ecc", ErrUnsupported, p.Type))
		}
	}
}

// symmetric reads a TPMT_SYM_DEF_OBJECT.
func (p *Public) symmetric(w *wire) {
	switch p.SymAlg = w.alg(); p.SymAlg {
	case AlgNull:
	case algAES:
		p.SymBits = w.u16()
		p.SymMode = w.alg()
	default:
		w.fail(fmt.Errorf("%w: symmetric algorithm %v", ErrUnsupported, p.SymAlg))
	}
}

// scheme reads a TPMT_RSA_SCHEME or TPMT_ECC_SCHEME that is null or one of allowed.
func (p *Public) scheme(w *wire, allowed ...Alg) {
	p.SchemeAlg = w.alg()
	if p.SchemeAlg == AlgNull || p.SchemeAlg == algRSAES && p.Type == AlgRSA {
		return
	}
	for _, a := range allowed {
		if p.SchemeAlg != a {
			continue
		}
		p.SchemeHash = w.alg()
		return
	}
	w.fail(fmt.Errorf("%w: scheme %v of a key of type %v", ErrUnsupported, p.SchemeAlg, p.Type))
}

func (p *Public) rsaKey(w *wire) {
	keyBits := int(w.u16())
	exponent := w.u32()
	modulus := w.sized(maxRSA)
	if w.err != nil {
		return
	}
	if exponent == 0 { // the TPM's way to say the default
		exponent = 65537
	}
	n := new(big.Int).SetBytes(modulus)
	if n.BitLen() != keyBits {
		w.fail(fmt.Errorf("%w: modulus of %d bits in a key of %d", ErrMalformed, n.BitLen(), keyBits))
		return
	}
	key := &rsa.PublicKey{N: n, E: int(exponent)}
	if err := checkKey(key); err != nil {
		w.fail(err)
		return
	}
	p.Key = key
}

func (p *Public) eccKey(w *wire) {
	curveID := w.u16()
	if kdf := w.alg(); w.err == nil && kdf != AlgNull { // no command of a TPM uses one yet (part 2, 12.2.3.6)
		w.fail(fmt.Errorf("%w: key derivation %v of a curve key", ErrUnsupported, kdf))
	}
	x := w.sized(maxCoordinate)
	y := w.sized(maxCoordinate)
	if w.err != nil {
		return
	}
	curve, ok := curves[curveID]
	if !ok {
		w.fail(fmt.Errorf("%w: curve %#04x, want P-256, P-384 or P-521", ErrUnsupported, curveID))
		return
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) > size || len(y) > size {
		w.fail(fmt.Errorf("%w: coordinates of %d and %d bytes on %s", ErrMalformed, len(x), len(y), curve.Params().Name))
		return
	}
	point := make([]byte, 1+2*size) // some TPMs drop leading zeros
	point[0] = 4
	copy(point[1+size-len(x):], x)
	copy(point[1+2*size-len(y):], y)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		w.fail(fmt.Errorf("%w: the point is not on %s: %w", ErrMalformed, curve.Params().Name, err))
		return
	}
	p.Key = key
}

// curves are the NIST curves that the Go standard library computes in constant time, by TPM_ECC_CURVE (part 2, 6.4).
var curves = map[uint16]elliptic.Curve{3: elliptic.P256(), 4: elliptic.P384(), 5: elliptic.P521()}

func parsePEM(b []byte) (*Public, error) {
	if len(b) > maxPEM {
		return nil, fmt.Errorf("read public key: %w: PEM of %d bytes, at most %d are taken", ErrMalformed, len(b), maxPEM)
	}
	block, rest := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("read public key: %w: no complete PEM block", ErrTruncated)
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("read public key: %w: text after the PEM block", ErrTrailing)
	}
	if block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("read public key: %w: PEM block is %q, want \"PUBLIC KEY\"", ErrUnsupported, block.Type)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read public key: %w: %w", ErrMalformed, err)
	}
	if err := checkKey(key); err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	p := &Public{Type: AlgECC, Key: key}
	if _, ok := key.(*rsa.PublicKey); ok {
		p.Type = AlgRSA
	}
	return p, nil
}

// checkKey refuses keys that are too weak, or so large that verifying with them would cost the Verifier too much.
func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 || bits > 4096 {
			return fmt.Errorf("%w: RSA key of %d bits, want 2048 to 4096", ErrUnsupported, bits)
		}
		if k.N.Bit(0) == 0 {
			return fmt.Errorf("%w: even RSA modulus", ErrMalformed)
		}
		if k.E < 65537 || k.E > 1<<31-1 || k.E&1 == 0 {
			return fmt.Errorf("%w: RSA exponent %d, want 65537", ErrUnsupported, k.E)
		}
		return nil
	case *ecdsa.PublicKey:
		if bits := k.Curve.Params().BitSize; bits < 256 {
			return fmt.Errorf("%w: curve %s, want P-256, P-384 or P-521", ErrUnsupported, k.Curve.Params().Name)
		}
		return nil
	}
	return fmt.Errorf("%w: key of type %T, want RSA or ECDSA", ErrUnsupported, key)
}

// Area returns the TPMT_PUBLIC that the key was read from, nil for a key from PEM. The caller must not change it.
func (p *Public) Area() []byte { return p.area }

// Name returns the Name of the object: nameAlg and the hash of its public area (part 1, 16), recomputed from what was
// read. It is nil for a key from PEM.
func (p *Public) Name() []byte {
	if p.area == nil {
		return nil
	}
	h := p.NameAlg.Hash().New()
	h.Write(p.area)
	return h.Sum(binary.BigEndian.AppendUint16(nil, uint16(p.NameAlg)))
}
