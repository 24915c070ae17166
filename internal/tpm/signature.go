package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
)

// ErrSignature says that a signature does not verify, or must not be relied on.
var ErrSignature = errors.New("bad signature")

// Signature is a TPMT_SIGNATURE (part 2, 11.3.4). Byte fields alias the input.
type Signature struct {
	Alg  Alg // AlgRSASSA, AlgRSAPSS or AlgECDSA
	Hash Alg // hash of the signed message, which need not be that of a quoted bank
	RSA  []byte
	R, S []byte // big endian, of an ECDSA signature
}

// ParseSignature decodes a TPMT_SIGNATURE. A null signature, other schemes and trailing bytes are refused.
func ParseSignature(b []byte) (*Signature, error) {
	w := wire{b: b}
	s := &Signature{Alg: w.alg()}
	switch s.Alg {
	case AlgRSASSA, AlgRSAPSS:
		s.Hash = w.alg()
		s.RSA = w.sized(maxRSA)
	case AlgECDSA:
		s.Hash = w.alg()
		s.R = w.sized(maxCoordinate)
		s.S = w.sized(maxCoordinate)
	case AlgNull:
		w.fail(fmt.Errorf("%w: the signature is null, quote with a key that has a scheme", ErrSignature))
	default:
		w.fail(fmt.Errorf("%w: signature scheme %v, want rsassa, rsapss or ecdsa", ErrUnsupported, s.Alg))
	}
	if w.err == nil && s.Hash.Hash() == 0 {
		w.fail(fmt.Errorf("%w: signature hash %v", ErrUnsupported, s.Hash))
	}
	if err := w.end(); err != nil {
		return nil, fmt.Errorf("read signature: %w", err)
	}
	return s, nil
}

// Verify checks that the key signed message, which is a whole TPMS_ATTEST. The hash is the one that the signature names,
// whatever bank was quoted; where the key's public area fixes scheme and hash, the signature must have them. SHA-1 is refused.
// Errors wrap ErrSignature.
func (p *Public) Verify(message []byte, s *Signature) error {
	if p == nil || p.Key == nil {
		return fmt.Errorf("%w: no key to verify with", ErrSignature)
	}
	if s == nil {
		return fmt.Errorf("%w: there is none", ErrSignature)
	}
	h := s.Hash.Hash()
	if h == 0 || s.Hash == AlgSHA1 {
		return fmt.Errorf("%w: made over a hash of %v, want sha256, sha384 or sha512", ErrSignature, s.Hash)
	}
	if err := p.checkScheme(s); err != nil {
		return err
	}
	d := h.New()
	d.Write(message)
	digest := d.Sum(make([]byte, 0, maxDigest))

	switch key := p.Key.(type) {
	case *rsa.PublicKey:
		return verifyRSA(key, h, digest, s)
	case *ecdsa.PublicKey:
		if s.Alg != AlgECDSA {
			return fmt.Errorf("%w: scheme %v by an elliptic curve key", ErrSignature, s.Alg)
		}
		if !ecdsa.Verify(key, digest, new(big.Int).SetBytes(s.R), new(big.Int).SetBytes(s.S)) {
			return fmt.Errorf("%w: ecdsa does not verify with this key", ErrSignature)
		}
		return nil
	}
	return fmt.Errorf("%w: keys of type %T cannot be used", ErrSignature, p.Key)
}

func verifyRSA(key *rsa.PublicKey, h crypto.Hash, digest []byte, s *Signature) error {
	var err error
	switch s.Alg {
	case AlgRSASSA:
		err = rsa.VerifyPKCS1v15(key, h, digest, s.RSA)
	case AlgRSAPSS:
		// TPMs differ in the salt: as long as the digest, or as long as fits (part 1, B.7).
		err = rsa.VerifyPSS(key, h, digest, s.RSA, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto})
	default:
		return fmt.Errorf("%w: scheme %v by an RSA key", ErrSignature, s.Alg)
	}
	if err != nil {
		return fmt.Errorf("%w: %v does not verify with this key: %w", ErrSignature, s.Alg, err)
	}
	return nil
}

// checkScheme refuses a signature made by another scheme or hash than the key's public area allows.
func (p *Public) checkScheme(s *Signature) error {
	if p.SchemeAlg == 0 || p.SchemeAlg == AlgNull { // from PEM, or free to choose
		return nil
	}
	if p.SchemeAlg != s.Alg || p.SchemeHash != s.Hash {
		return fmt.Errorf("%w: made by %v with %v, but the key signs only by %v with %v",
			ErrSignature, s.Alg, s.Hash, p.SchemeAlg, p.SchemeHash)
	}
	return nil
}
