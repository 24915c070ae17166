package softtpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"sync/atomic"
	"time"
)

// CA is a laboratory authority for EK certificates, shaped like a TPM manufacturer's: a root, and an intermediate that issues.
type CA struct {
	Root, Issuer *x509.Certificate
	rootKey, key *ecdsa.PrivateKey
	serial       atomic.Int64
}

// Everything is valid from before the first test until X.509's end of time, as real EK certificates are.
var (
	notBefore = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// NewCA makes an authority with fresh keys.
func NewCA() (*CA, error) {
	ca := new(CA)
	var err error
	if ca.rootKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make laboratory CA: %w", err)
	}
	if ca.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make laboratory CA: %w", err)
	}
	root := authority("Touchstone laboratory TPM root (proves nothing)", ca.serial.Add(1))
	if ca.Root, err = issue(root, root, &ca.rootKey.PublicKey, ca.rootKey); err != nil {
		return nil, err
	}
	issuer := authority("Touchstone laboratory TPM issuer (proves nothing)", ca.serial.Add(1))
	if ca.Issuer, err = issue(issuer, ca.Root, &ca.key.PublicKey, ca.rootKey); err != nil {
		return nil, err
	}
	return ca, nil
}

// Roots returns a pool with the root.
func (ca *CA) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Root)
	return pool
}

// RootPEM returns the root as an operator imports it.
func (ca *CA) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Root.Raw})
}

// EKCertificate issues a certificate for the endorsement key of t and returns it as DER. Each change edits the template before
// it is signed, to make certificates that must be refused.
func (t *TPM) EKCertificate(ca *CA, changes ...func(*x509.Certificate)) ([]byte, error) {
	return ca.IssueEK(&t.ek.PublicKey, changes...)
}

// IssueEK issues an EK certificate for any key: empty subject, critical alternative name with the TPM's model, EK usage (TCG EK
// Credential Profile, 3.2).
func (ca *CA) IssueEK(key crypto.PublicKey, changes ...func(*x509.Certificate)) ([]byte, error) {
	model, err := modelName()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(ca.serial.Add(1)), NotBefore: notBefore, NotAfter: notAfter,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageKeyAgreement,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
		ExtraExtensions:    []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: model}},
	}
	for _, change := range changes {
		change(template)
	}
	cert, err := issue(template, ca.Issuer, key, ca.key)
	if err != nil {
		return nil, err
	}
	return cert.Raw, nil
}

// modelName encodes the alternative name of an EK certificate: a directory name with manufacturer, model and version.
func modelName() ([]byte, error) {
	attribute := func(last int, value string) pkix.RelativeDistinguishedNameSET {
		return pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 23, 133, 2, last}, Value: value}}
	}
	name, err := asn1.Marshal(pkix.RDNSequence{attribute(1, "id:54535446"), attribute(2, "softtpm"), attribute(3, "id:00000001")})
	if err != nil {
		return nil, fmt.Errorf("encode TPM model: %w", err)
	}
	value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}})
	if err != nil {
		return nil, fmt.Errorf("encode TPM model: %w", err)
	}
	return value, nil
}

func authority(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: notBefore, NotAfter: notAfter,
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func issue(template, parent *x509.Certificate, key crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	if err != nil {
		return nil, fmt.Errorf("issue laboratory certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("issue laboratory certificate: %w", err)
	}
	return cert, nil
}
