package tpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
)

// ErrNoAttributes says that a key came without its TPMT_PUBLIC: nobody can know what it may sign or where it lives.
var ErrNoAttributes = errors.New("attributes unknown: the key came as PEM, bring its TPM2B_PUBLIC")

// Attributes of an object (TPMA_OBJECT, part 2, 8.3).
const (
	AttrFixedTPM            uint32 = 1 << 1  // never leaves its TPM
	AttrSTClear             uint32 = 1 << 2  // gone after the next restart
	AttrFixedParent         uint32 = 1 << 4  // never leaves its parent
	AttrSensitiveDataOrigin uint32 = 1 << 5  // made by the TPM, not imported
	AttrUserWithAuth        uint32 = 1 << 6  // usable by its auth value
	AttrAdminWithPolicy     uint32 = 1 << 7  // administered by policy only
	AttrNoDA                uint32 = 1 << 10 // no dictionary attack protection
	AttrRestricted          uint32 = 1 << 16 // signs only what the TPM made
	AttrDecrypt             uint32 = 1 << 17
	AttrSign                uint32 = 1 << 18

	// reservedAttributes are 0 in each object of a TPM.
	reservedAttributes uint32 = 1<<0 | 1<<3 | 0xf<<12 | 0xfff<<20
)

// AttributeError says that one attribute of a key is not as its role needs.
type AttributeError struct {
	Attribute string // as in TPMA_OBJECT: "fixedTPM"
	Want      bool   // whether the role needs it set
	Why       string // what the key could do as it is
}

// Error names the attribute and what it would let through.
func (e *AttributeError) Error() string {
	if e.Want {
		return fmt.Sprintf("attribute %s is not set: %s", e.Attribute, e.Why)
	}
	return fmt.Sprintf("attribute %s is set: %s", e.Attribute, e.Why)
}

type attributeRule struct {
	bit  uint32
	name string
	want bool
	why  string
}

var residentRules = []attributeRule{
	{AttrFixedTPM, "fixedTPM", true, "the key can be duplicated to another TPM"},
	{AttrFixedParent, "fixedParent", true, "the key can be moved to another parent"},
	{AttrSensitiveDataOrigin, "sensitiveDataOrigin", true, "the private key was made outside the TPM and may be known"},
}

var attestationRules = append(residentRules[:len(residentRules):len(residentRules)], []attributeRule{
	{AttrRestricted, "restricted", true, "the key signs any data, also a made-up quote"},
	{AttrSign, "sign", true, "the key cannot sign"},
	{AttrDecrypt, "decrypt", false, "the key also decrypts"},
}...)

var endorsementRules = append(residentRules[:len(residentRules):len(residentRules)], []attributeRule{
	{AttrRestricted, "restricted", true, "the key decrypts any data, so a credential does not stay in the TPM"},
	{AttrDecrypt, "decrypt", true, "the key cannot decrypt"},
	{AttrSign, "sign", false, "the key also signs"},
}...)

var residentSigningRules = append(residentRules[:len(residentRules):len(residentRules)],
	attributeRule{AttrSign, "sign", true, "the key cannot sign"})

var residentDecryptionRules = append(residentRules[:len(residentRules):len(residentRules)], []attributeRule{
	{AttrDecrypt, "decrypt", true, "the key cannot decrypt"},
	{AttrSign, "sign", false, "the key also signs"},
	{AttrRestricted, "restricted", false, "the key decrypts the TPM's own structures only"},
	{AttrUserWithAuth, "userWithAuth", false, "the key decrypts in any state of the platform, whatever its policy"},
}...)

// CheckAttestationKey reports everything that keeps p from being an attestation key: it must be a restricted signing key that
// was born in its TPM and cannot leave it, strong, with a fixed scheme. The failures are joined, attributes as
// *AttributeError. A key from PEM fails with ErrNoAttributes.
func (p *Public) CheckAttestationKey() error {
	errs := p.check(attestationRules)
	if p.area == nil {
		return errors.Join(errs...)
	}
	if p.SymAlg != AlgNull {
		errs = append(errs, fmt.Errorf("%w: a signing key with symmetric algorithm %v", ErrMalformed, p.SymAlg))
	}
	switch p.SchemeAlg {
	case AlgRSASSA, AlgRSAPSS, AlgECDSA:
		if p.SchemeHash == AlgSHA1 || p.SchemeHash.Hash() == 0 {
			errs = append(errs, fmt.Errorf("%w: the key signs by hash %v, want sha256, sha384 or sha512", ErrUnsupported, p.SchemeHash))
		}
	default:
		errs = append(errs, fmt.Errorf("%w: the key has scheme %v, want rsassa, rsapss or ecdsa", ErrUnsupported, p.SchemeAlg))
	}
	return errors.Join(errs...)
}

// CheckEndorsementKey reports everything that keeps p from being an endorsement key whose credentials stay in its TPM: a
// restricted storage key, born there, with AES in CFB mode (TCG EK Credential Profile, B.3 and B.4).
func (p *Public) CheckEndorsementKey() error {
	errs := p.check(endorsementRules)
	if p.area == nil {
		return errors.Join(errs...)
	}
	if p.SymAlg != algAES || p.SymMode != algCFB || (p.SymBits != 128 && p.SymBits != 256) {
		errs = append(errs, fmt.Errorf("%w: symmetric algorithm %v-%d mode %v, want AES in CFB mode", ErrUnsupported, p.SymAlg, p.SymBits, p.SymMode))
	}
	return errors.Join(errs...)
}

// CheckResidentKey reports everything that keeps p from being a signing key that was born in its TPM and cannot leave it. It
// may be unrestricted: a TLS key. It says nothing until a certification by the TPM's attestation key names p.
func (p *Public) CheckResidentKey() error { return errors.Join(p.check(residentSigningRules)...) }

// CheckDecryptionKey reports everything that keeps p from being a key on P-256 that was born in its TPM, cannot leave it, and decrypts
// only while its policy is met. It says nothing until a certification by the TPM's attestation key names p.
func (p *Public) CheckDecryptionKey() error {
	errs := p.check(residentDecryptionRules)
	if p.area == nil {
		return errors.Join(errs...)
	}
	if k, ok := p.Key.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		errs = append(errs, fmt.Errorf("%w: the key is not on P-256", ErrUnsupported))
	}
	if p.SymAlg != AlgNull || p.SchemeAlg != AlgNull && p.SchemeAlg != algECDH {
		errs = append(errs, fmt.Errorf("%w: a decryption key with symmetric algorithm %v and scheme %v", ErrUnsupported, p.SymAlg, p.SchemeAlg))
	}
	return errors.Join(errs...)
}

func (p *Public) check(rules []attributeRule) []error {
	var errs []error
	switch k := p.Key.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		if err := checkKey(k); err != nil {
			errs = append(errs, err)
		}
	default:
		errs = append(errs, fmt.Errorf("%w: no key", ErrUnsupported))
	}
	if p.area == nil {
		return append(errs, ErrNoAttributes)
	}
	if p.NameAlg == AlgSHA1 {
		errs = append(errs, fmt.Errorf("%w: the Name is a SHA-1 hash, which another key can be made to share", ErrUnsupported))
	}
	for _, r := range rules {
		if (p.Attributes&r.bit != 0) != r.want {
			errs = append(errs, &AttributeError{Attribute: r.name, Want: r.want, Why: r.why})
		}
	}
	return errs
}
