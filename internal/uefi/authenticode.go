package uefi

import (
	"bytes"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/smallstep/pkcs7"

	"touchstone.dev/touchstone/internal/tpm"
)

// Limits on Authenticode signatures.
const (
	MaxImageSignatures = 16
	MaxPKCS7           = 64 << 10 // bytes of one signature with its certificates
)

// Errors of an Authenticode signature. ImageSignature.Err wraps one of them.
var (
	ErrSignatureFormat = errors.New("malformed Authenticode signature")
	ErrDigestMismatch  = errors.New("image does not have the digest that was signed")
	ErrBadSignature    = errors.New("signature does not verify with the signer's key")
)

// ImageSignature is one signature of an image.
type ImageSignature struct {
	Alg    tpm.Alg // of the image digest that is signed
	Digest []byte  // the digest that is signed
	// Chain holds the certificates in the signature: the signer first, then its issuer and so on as far as they lead, then the rest.
	Chain []*x509.Certificate
	// Err is nil when the signature is valid: the signer's key signed this very image. It says nothing about trust in the signer.
	Err error
}

// Signer returns the certificate that signed, or nil when the signature could not be read.
func (s *ImageSignature) Signer() *x509.Certificate {
	if len(s.Chain) == 0 {
		return nil
	}
	return s.Chain[0]
}

// Signatures reads and verifies the signatures of the image: one for each WIN_CERTIFICATE (shim has two). A certificate table that
// cannot be walked is an error; a single bad signature is told by its Err.
func (im *Image) Signatures() ([]ImageSignature, error) {
	blobs, err := im.certificates()
	if err != nil {
		return nil, err
	}
	out := make([]ImageSignature, len(blobs))
	for i, der := range blobs {
		out[i].Err = im.verify(&out[i], der)
	}
	return out, nil
}

// certificates cuts the certificate table into its PKCS#7 signatures (UEFI 2.10, 32.2.4; PE Format, "Attribute Certificate Table").
func (im *Image) certificates() ([][]byte, error) {
	const header, typePKCS7 = 8, 0x0002
	var out [][]byte
	for t := im.raw[im.table.off:][:im.table.size]; len(t) > 0; {
		if len(t) < header {
			if len(bytes.Trim(t, "\x00")) == 0 {
				return out, nil // padding
			}
			return nil, fmt.Errorf("%w: %d bytes at the end of the certificate table", ErrSignatureFormat, len(t))
		}
		size := binary.LittleEndian.Uint32(t)
		if size < header || uint64(size) > uint64(len(t)) {
			return nil, fmt.Errorf("%w: certificate of %d bytes, %d are there", ErrSignatureFormat, size, len(t))
		}
		if kind := binary.LittleEndian.Uint16(t[6:]); kind == typePKCS7 {
			if len(out) == MaxImageSignatures {
				return nil, fmt.Errorf("%w: more than %d signatures", ErrSignatureFormat, MaxImageSignatures)
			}
			out = append(out, t[header:size])
		}
		t = t[min(uint64(len(t)), (uint64(size)+7)&^7):]
	}
	return out, nil
}

var (
	oidIndirectData = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4} // SPC_INDIRECT_DATA_OBJID
	oidContentType  = pkcs7.OIDAttributeContentType
)

// indirectData is SpcIndirectDataContent as far as this package needs it.
type indirectData struct {
	Data   asn1.RawValue
	Digest struct {
		Algorithm struct {
			OID        asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		Value []byte
	}
}

func (im *Image) verify(s *ImageSignature, der []byte) error {
	der, err := trimDER(der)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignatureFormat, err)
	}
	p, err := pkcs7.Parse(der)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignatureFormat, err)
	}
	if err := readIndirectData(s, p.Content); err != nil {
		return fmt.Errorf("%w: %w", ErrSignatureFormat, err)
	}
	if err := verifySigner(s, p); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(im.digest(s.Alg.Hash()), s.Digest) != 1 {
		return ErrDigestMismatch
	}
	return nil
}

// trimDER cuts the padding after a DER value: a WIN_CERTIFICATE's length may include it.
func trimDER(b []byte) ([]byte, error) {
	if len(b) > MaxPKCS7 {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(b), MaxPKCS7)
	}
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(b, &v)
	if err != nil {
		return nil, err
	}
	if len(rest) >= 8 || len(bytes.Trim(rest, "\x00")) != 0 {
		return nil, fmt.Errorf("%d bytes after the signature", len(rest))
	}
	return v.FullBytes, nil
}

// readIndirectData reads the digest out of the signed content. pkcs7 hands over the inside of the outer SEQUENCE.
func readIndirectData(s *ImageSignature, content []byte) error {
	wrapped, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
	if err != nil {
		return err
	}
	var d indirectData
	if _, err := asn1.Unmarshal(wrapped, &d); err != nil {
		return fmt.Errorf("content: %w", err)
	}
	if s.Alg, err = algOf(d.Digest.Algorithm.OID); err != nil {
		return err
	}
	if len(d.Digest.Value) != s.Alg.Size() {
		return fmt.Errorf("%s digest of %d bytes", s.Alg, len(d.Digest.Value))
	}
	s.Digest = d.Digest.Value
	return nil
}

func algOf(oid asn1.ObjectIdentifier) (tpm.Alg, error) {
	switch {
	case oid.Equal(pkcs7.OIDDigestAlgorithmSHA1):
		return tpm.AlgSHA1, nil
	case oid.Equal(pkcs7.OIDDigestAlgorithmSHA256):
		return tpm.AlgSHA256, nil
	case oid.Equal(pkcs7.OIDDigestAlgorithmSHA384):
		return tpm.AlgSHA384, nil
	case oid.Equal(pkcs7.OIDDigestAlgorithmSHA512):
		return tpm.AlgSHA512, nil
	}
	return 0, fmt.Errorf("digest algorithm %s is not known", oid)
}

// verifySigner checks the one SignerInfo at the signature level (RFC 2315, 9.3). It does so itself because pkcs7.Verify also judges
// the signing time against the certificate's dates, which firmware does not.
func verifySigner(s *ImageSignature, p *pkcs7.PKCS7) error {
	if len(p.Signers) != 1 {
		return fmt.Errorf("%w: %d signers, want 1", ErrSignatureFormat, len(p.Signers))
	}
	si := p.Signers[0]
	s.Chain = orderChain(p.Certificates, si.IssuerAndSerialNumber.IssuerName.FullBytes, si.IssuerAndSerialNumber.SerialNumber)
	if s.Chain == nil {
		return fmt.Errorf("%w: the signer's certificate is not in it", ErrSignatureFormat)
	}
	alg, err := algOf(si.DigestAlgorithm.Algorithm)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignatureFormat, err)
	}
	var content asn1.ObjectIdentifier
	var digest []byte
	for _, a := range si.AuthenticatedAttributes {
		switch {
		case a.Type.Equal(oidContentType):
			_, err = asn1.Unmarshal(a.Value.Bytes, &content)
		case a.Type.Equal(pkcs7.OIDAttributeMessageDigest):
			_, err = asn1.Unmarshal(a.Value.Bytes, &digest)
		}
		if err != nil {
			return fmt.Errorf("%w: attribute %s: %w", ErrSignatureFormat, a.Type, err)
		}
	}
	if !content.Equal(oidIndirectData) {
		return fmt.Errorf("%w: it signs content of type %s, not an image digest", ErrSignatureFormat, content)
	}
	h := alg.Hash().New()
	h.Write(p.Content)
	if subtle.ConstantTimeCompare(h.Sum(nil), digest) != 1 {
		return fmt.Errorf("%w: message digest differs", ErrBadSignature)
	}
	signed, err := asn1.MarshalWithParams(si.AuthenticatedAttributes, "set")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignatureFormat, err)
	}
	return checkSignature(s.Chain[0], alg, signed, si.EncryptedDigest)
}

// orderChain puts the signer first, then each certificate's issuer, then the rest. It returns nil when the signer is missing.
func orderChain(certs []*x509.Certificate, issuer []byte, serial *big.Int) []*x509.Certificate {
	if len(certs) > MaxChain || serial == nil {
		return nil
	}
	rest := append([]*x509.Certificate(nil), certs...)
	var chain []*x509.Certificate
	take := func(want func(*x509.Certificate) bool) bool {
		for i, c := range rest {
			if want(c) {
				chain = append(chain, c)
				rest = append(rest[:i], rest[i+1:]...)
				return true
			}
		}
		return false
	}
	if !take(func(c *x509.Certificate) bool {
		return c.SerialNumber.Cmp(serial) == 0 && bytes.Equal(c.RawIssuer, issuer)
	}) {
		return nil
	}
	for take(func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, chain[len(chain)-1].RawIssuer) }) {
	}
	return append(chain, rest...)
}
