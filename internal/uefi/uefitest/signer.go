package uefitest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"
)

// Signer is a key with its certificate.
type Signer struct {
	Cert   *x509.Certificate
	Key    crypto.Signer
	Issuer *Signer // nil when self-signed
	// SignedAt goes into the signature as signing time when set.
	SignedAt time.Time
	// WrongDigest makes signatures over another image.
	WrongDigest bool
	// WrongKey makes signatures that do not verify.
	WrongKey bool
}

// NewSigner makes a P-256 key and its certificate, signed by issuer or by itself when that is nil. The certificate was valid in the
// year 2001 only: nothing that reads images may judge dates.
func NewSigner(name string, issuer *Signer) (*Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	s := &Signer{Key: key, Issuer: issuer}
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), Subject: pkix.Name{CommonName: name}, IsCA: issuer == nil, BasicConstraintsValid: true,
		NotBefore: time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2001, 12, 31, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature, SubjectKeyId: serial.Bytes(),
	}
	parent, signer := template, crypto.Signer(key)
	if issuer != nil {
		parent, signer = issuer.Cert, issuer.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	s.Cert, err = x509.ParseCertificate(der)
	return s, err
}

var (
	oidSHA256       = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidECDSA        = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidSignedData   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidContentType  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidDigest       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
	oidIndirectData = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidPEImageData  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
)

type algorithm struct {
	OID        asn1.ObjectIdentifier
	Parameters asn1.RawValue
}

type attribute struct {
	OID    asn1.ObjectIdentifier
	Values []any `asn1:"set"`
}

// sign makes the PKCS#7 SignedData of Authenticode over an image digest.
func (s *Signer) sign(digest []byte) ([]byte, error) {
	if s.WrongDigest {
		sum := sha256.Sum256(digest)
		digest = sum[:]
	}
	content, err := indirectData(digest)
	if err != nil {
		return nil, err
	}
	attributes, err := s.attributes(content)
	if err != nil {
		return nil, err
	}
	signature, err := s.signAttributes(attributes)
	if err != nil {
		return nil, err
	}
	type issuerAndSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	type signerInfo struct {
		Version    int
		ID         issuerAndSerial
		Digest     algorithm
		Attributes asn1.RawValue
		Signature  algorithm
		Value      []byte
	}
	type contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}
	certs := append([]byte(nil), s.Cert.Raw...)
	for up := s.Issuer; up != nil; up = up.Issuer {
		certs = append(certs, up.Cert.Raw...)
	}
	body, err := asn1.Marshal(struct {
		Version int
		Digests []algorithm `asn1:"set"`
		Content contentInfo
		Certs   asn1.RawValue
		Signers []signerInfo `asn1:"set"`
	}{
		1, []algorithm{sha256Algorithm()}, contentInfo{oidIndirectData, context0(content)}, context0(certs),
		[]signerInfo{{1, issuerAndSerial{asn1.RawValue{FullBytes: s.Cert.RawIssuer}, s.Cert.SerialNumber}, sha256Algorithm(),
			context0(inside(attributes)), algorithm{OID: oidECDSA, Parameters: asn1.NullRawValue}, signature}},
	})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(contentInfo{oidSignedData, context0(body)})
}

func sha256Algorithm() algorithm { return algorithm{oidSHA256, asn1.NullRawValue} }

func context0(b []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: b}
}

// inside returns the content of a DER value.
func inside(der []byte) []byte {
	var v asn1.RawValue
	if _, err := asn1.Unmarshal(der, &v); err != nil {
		return nil
	}
	return v.Bytes
}

// indirectData makes SpcIndirectDataContent with an empty file link.
func indirectData(digest []byte) ([]byte, error) {
	type imageData struct {
		Flags asn1.BitString
		File  asn1.RawValue
	}
	type attributeValue struct {
		OID   asn1.ObjectIdentifier
		Value imageData
	}
	type digestInfo struct {
		Algorithm algorithm
		Digest    []byte
	}
	return asn1.Marshal(struct {
		Data   attributeValue
		Digest digestInfo
	}{
		attributeValue{oidPEImageData, imageData{asn1.BitString{}, context0([]byte{0xa2, 2, 0x80, 0})}},
		digestInfo{sha256Algorithm(), digest},
	})
}

// attributes makes the SET of signed attributes.
func (s *Signer) attributes(content []byte) ([]byte, error) {
	sum := sha256.Sum256(inside(content))
	list := []attribute{{oidContentType, []any{oidIndirectData}}, {oidDigest, []any{sum[:]}}}
	if !s.SignedAt.IsZero() {
		list = append(list, attribute{oidSigningTime, []any{s.SignedAt.UTC()}})
	}
	return asn1.MarshalWithParams(list, "set")
}

func (s *Signer) signAttributes(attributes []byte) ([]byte, error) {
	sum := sha256.Sum256(attributes)
	if s.WrongKey {
		sum[0] ^= 1
	}
	return s.Key.Sign(rand.Reader, sum[:], crypto.SHA256)
}
