package uefi

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrNotCertificate is returned when a signature of another type is asked for its certificate.
var ErrNotCertificate = errors.New("signature is not a certificate")

// Certificate parses the certificate of an "x509" signature. Certificates that Go's parser refuses (old platform keys have negative
// serial numbers) come back with only Raw, RawSubject, RawIssuer, Subject and Issuer set; their PublicKey is nil.
func (s Signature) Certificate() (*x509.Certificate, error) {
	if s.Type != TypeX509 {
		return nil, fmt.Errorf("%w: type %s", ErrNotCertificate, s.Type)
	}
	return ParseCertificate(s.Data)
}

// Subject returns the subject of a certificate as text ("CN=Debian Secure Boot CA"), the hash in hexadecimal of a hash type, and
// "" of everything else or of a certificate that cannot be read.
func (s Signature) Subject() string {
	switch s.Type {
	case TypeX509:
		c, err := ParseCertificate(s.Data)
		if err != nil {
			return ""
		}
		return c.Subject.String()
	case TypeSHA1, TypeSHA224, TypeSHA256, TypeSHA384, TypeSHA512:
		return hex.EncodeToString(s.Data)
	}
	return ""
}

// ParseCertificate parses a DER certificate, tolerant of the oddities that firmware accepts. See Signature.Certificate.
func ParseCertificate(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err == nil {
		return c, nil
	}
	lax, laxErr := laxCertificate(der)
	if laxErr != nil {
		return nil, err // the strict parser says it better
	}
	return lax, nil
}

// outline is a certificate (RFC 5280, 4.1) as far as its names.
type outline struct {
	TBS struct {
		Raw       asn1.RawContent
		Version   int `asn1:"optional,explicit,default:0,tag:0"`
		Serial    asn1.RawValue
		Algorithm asn1.RawValue
		Issuer    asn1.RawValue
		Validity  asn1.RawValue
		Subject   asn1.RawValue
		Key       asn1.RawValue
		Rest      asn1.RawValue `asn1:"optional,tag:1"`
		Rest2     asn1.RawValue `asn1:"optional,tag:2"`
		Rest3     asn1.RawValue `asn1:"optional,explicit,tag:3"`
	}
	Algorithm asn1.RawValue
	Signature asn1.BitString
}

func laxCertificate(der []byte) (*x509.Certificate, error) {
	var o outline
	rest, err := asn1.Unmarshal(der, &o)
	if err != nil {
		return nil, err
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("%d bytes after the certificate", len(rest))
	}
	c := &x509.Certificate{Raw: der, RawTBSCertificate: o.TBS.Raw, RawIssuer: o.TBS.Issuer.FullBytes, RawSubject: o.TBS.Subject.FullBytes}
	if c.Subject, err = parseName(o.TBS.Subject.FullBytes); err != nil {
		return nil, err
	}
	if c.Issuer, err = parseName(o.TBS.Issuer.FullBytes); err != nil {
		return nil, err
	}
	return c, nil
}

func parseName(der []byte) (pkix.Name, error) {
	var seq pkix.RDNSequence
	var name pkix.Name
	if rest, err := asn1.Unmarshal(der, &seq); err != nil {
		return name, err
	} else if len(rest) != 0 {
		return name, errors.New("trailing bytes after a name")
	}
	name.FillFromRDNSequence(&seq)
	return name, nil
}

// looksLikeCertificate reports whether b is one DER SEQUENCE that starts with another: cheap, and enough to tell a certificate
// from a hash or a key.
func looksLikeCertificate(b []byte) bool {
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(b, &v)
	if err != nil || len(rest) != 0 || v.Class != asn1.ClassUniversal || v.Tag != asn1.TagSequence {
		return false
	}
	var tbs asn1.RawValue
	_, err = asn1.Unmarshal(v.Bytes, &tbs)
	return err == nil && tbs.Class == asn1.ClassUniversal && tbs.Tag == asn1.TagSequence
}

// ChainsTo reports whether a signer is vouched for by anchor, as firmware decides it (EDK II, Pkcs7Verify with partial chains): anchor
// is the signer itself, one of the certificates between, or the issuer of the last one. chain holds the signer first; each
// further certificate counts only if it signed the one before. Dates, key usage and path length are not judged.
func ChainsTo(chain []*x509.Certificate, anchor *x509.Certificate) bool {
	for i, c := range chain {
		if i >= MaxChain {
			return false
		}
		if i > 0 && !signedBy(chain[i-1], c) {
			return false
		}
		if c.Equal(anchor) || signedBy(c, anchor) {
			return true
		}
	}
	return false
}

// MaxChain is how many certificates of a chain are followed.
const MaxChain = 8

// signedBy reports whether parent's key signed child. Unlike CheckSignatureFrom it does not ask whether parent is a CA: db may
// hold a signer's own certificate, and old vendor CAs lack the mark.
func signedBy(child, parent *x509.Certificate) bool {
	if parent.PublicKey == nil || string(child.RawIssuer) != string(parent.RawSubject) {
		return false
	}
	return parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature) == nil
}
