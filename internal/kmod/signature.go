package kmod

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	_ "crypto/sha1" //nolint:gosec // old distributions sign modules with it
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// Signature is the signature of a module: one signer, named by issuer and serial number or by subject key identifier.
type Signature struct {
	Hash         crypto.Hash // of the content
	Issuer       []byte      // DER of the issuer's name; nil when SubjectKeyID is set
	Serial       *big.Int
	SubjectKeyID []byte
	Value        []byte // RSA PKCS #1 v1.5, or ECDSA in ASN.1
}

// The parts of CMS SignedData (RFC 5652, 5.1 and 5.3) that scripts/sign-file makes.
type (
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,tag:0"`
	}
	signedData struct {
		Version      int
		Digests      []asn1.RawValue `asn1:"set"`
		Content      encapsulated
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
		CRLs         asn1.RawValue `asn1:"optional,tag:1"`
		Signers      []signerInfo  `asn1:"set"`
	}
	encapsulated struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"optional,explicit,tag:0"`
	}
	signerInfo struct {
		Version    int
		ID         asn1.RawValue
		Digest     algorithm
		Attributes asn1.RawValue `asn1:"optional,tag:0"`
		Signature  algorithm
		Value      []byte
		Unsigned   asn1.RawValue `asn1:"optional,tag:1"`
	}
	issuerAndSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	algorithm struct {
		OID        asn1.ObjectIdentifier
		Parameters asn1.RawValue `asn1:"optional"`
	}
)

var (
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
)

// parseCMS reads the detached signature of a module. Like the kernel (crypto/asymmetric_keys/pkcs7_verify.c) it refuses signed
// attributes: they would mean that something else than the content was signed. Certificates in it are of no use: they are not read.
func parseCMS(der []byte) (*Signature, error) {
	var info contentInfo
	if err := unmarshal(der, &info); err != nil {
		return nil, err
	}
	if !info.Type.Equal(oidSignedData) {
		return nil, fmt.Errorf("content type %s, want signed data", info.Type)
	}
	var sd signedData
	if err := unmarshal(info.Content.Bytes, &sd); err != nil {
		return nil, err
	}
	switch {
	case !sd.Content.Type.Equal(oidData):
		return nil, fmt.Errorf("signs content of type %s, want data", sd.Content.Type)
	case len(sd.Content.Content.FullBytes) != 0:
		return nil, errors.New("it brings its own content")
	case len(sd.Signers) != 1:
		return nil, fmt.Errorf("%d signers, want 1", len(sd.Signers))
	case len(sd.Signers[0].Attributes.FullBytes) != 0:
		return nil, errors.New("it has signed attributes")
	}
	return newSignature(&sd.Signers[0])
}

func newSignature(si *signerInfo) (*Signature, error) {
	hash, ok := hashOf(si.Digest.OID)
	if !ok {
		return nil, fmt.Errorf("digest algorithm %s is not known", si.Digest.OID)
	}
	s := &Signature{Hash: hash, Value: si.Value}
	switch {
	case si.ID.Class == asn1.ClassContextSpecific && si.ID.Tag == 0:
		s.SubjectKeyID = si.ID.Bytes
		if len(s.SubjectKeyID) == 0 {
			return nil, errors.New("empty key identifier")
		}
	case si.ID.Class == asn1.ClassUniversal && si.ID.Tag == asn1.TagSequence:
		var id issuerAndSerial
		if err := unmarshal(si.ID.FullBytes, &id); err != nil {
			return nil, err
		}
		s.Issuer, s.Serial = id.Issuer.FullBytes, id.Serial
	default:
		return nil, errors.New("signer is named by neither issuer nor key identifier")
	}
	return s, nil
}

func unmarshal(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err == nil && len(rest) != 0 {
		err = fmt.Errorf("%d bytes too many", len(rest))
	}
	return err
}

func hashOf(oid asn1.ObjectIdentifier) (crypto.Hash, bool) {
	switch oid.String() {
	case "1.3.14.3.2.26":
		return crypto.SHA1, true
	case "2.16.840.1.101.3.4.2.1":
		return crypto.SHA256, true
	case "2.16.840.1.101.3.4.2.2":
		return crypto.SHA384, true
	case "2.16.840.1.101.3.4.2.3":
		return crypto.SHA512, true
	}
	return 0, false
}

// names reports whether the signature says that cert signed it.
func (s *Signature) names(cert *x509.Certificate) bool {
	if s.SubjectKeyID != nil {
		return bytes.Equal(s.SubjectKeyID, cert.SubjectKeyId)
	}
	return cert.SerialNumber != nil && cert.SerialNumber.Cmp(s.Serial) == 0 && bytes.Equal(cert.RawIssuer, s.Issuer)
}

// Verify checks the signature of content with the one of keys that the signature names, and returns that key. Dates are not judged:
// the kernel does not. It returns ErrUnknownKey when no key is named, ErrBadSignature when it does not verify.
func Verify(content []byte, sig *Signature, keys []*x509.Certificate) (*x509.Certificate, error) {
	return VerifyDigest(sig.Digest(content), sig, keys)
}

// Digest returns the hash of content that the signature is over.
func (s *Signature) Digest(content []byte) []byte {
	h := s.Hash.New()
	h.Write(content)
	return h.Sum(nil)
}

// VerifyDigest is Verify for a caller that kept only the digest of the content (see Signature.Digest).
func VerifyDigest(digest []byte, sig *Signature, keys []*x509.Certificate) (*x509.Certificate, error) {
	err := ErrUnknownKey
	for _, cert := range keys {
		if !sig.names(cert) {
			continue
		}
		if sig.check(cert, digest) {
			return cert, nil
		}
		err = ErrBadSignature
	}
	return nil, err
}

func (s *Signature) check(cert *x509.Certificate, digest []byte) bool {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, s.Hash, digest, s.Value) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, digest, s.Value)
	}
	return false
}
