package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrEKChain says that an EK certificate does not lead to an accepted root, or is no EK certificate.
var ErrEKChain = errors.New("EK certificate is not trusted")

// ErrEKMismatch says that an EK certificate is about another key.
var ErrEKMismatch = errors.New("EK certificate is for another key")

const (
	maxCertificate   = 16 << 10 // bytes of one certificate, with padding
	maxIntermediates = 16
)

var (
	oidSubjectAltName  = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidEKCertificate   = asn1.ObjectIdentifier{2, 23, 133, 8, 1} // tcg-kp-EKCertificate
	oidRSAESOAEP       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
	storedCertHeader   = []byte{0x10, 0x01, 0x00} // TCG_PCCLIENT_STORED_CERT with a full certificate
	fullCertificateTag = []byte{0x10, 0x02}       // TCG_FULL_CERT
)

// ParseEKCertificate reads an EK certificate as found in NV memory or in a file: DER or PEM, also behind the header of the old
// TCG PC Client Specific Implementation Specification (7.3.2), also with padding after it. The length comes from the DER:
// nothing is trimmed by value, since a certificate may well end in 0x00 or 0xff.
func ParseEKCertificate(b []byte) (*x509.Certificate, error) {
	if len(b) > maxCertificate {
		return nil, fmt.Errorf("read EK certificate: %w: %d bytes, at most %d are taken", ErrMalformed, len(b), maxCertificate)
	}
	if bytes.HasPrefix(bytes.TrimLeft(b, "\r\n\t "), []byte("-----BEGIN")) {
		block, _ := pem.Decode(b)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("read EK certificate: %w: no PEM block of type CERTIFICATE", ErrMalformed)
		}
		b = block.Bytes
	}
	if bytes.HasPrefix(b, storedCertHeader) && len(b) >= 5 {
		n := int(binary.BigEndian.Uint16(b[3:]))
		if n > len(b)-5 {
			return nil, fmt.Errorf("read EK certificate: %w: the NV header says %d bytes, there are %d", ErrTruncated, n, len(b)-5)
		}
		b = bytes.TrimPrefix(b[5:5+n], fullCertificateTag)
	}
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(b, &outer); err != nil {
		return nil, fmt.Errorf("read EK certificate: %w: %w", ErrMalformed, err)
	}
	cert, err := x509.ParseCertificate(outer.FullBytes)
	if err != nil {
		return nil, fmt.Errorf("read EK certificate: %w: %w", ErrMalformed, err)
	}
	return cert, nil
}

// VerifyEKChain checks that cert is an EK certificate that leads to one of roots at time now. The intermediates come from the
// host and are only ever links: a self-signed one among them is never a root. Of unknown critical extensions only the
// subject alternative name is let through, which holds the TPM's model in a form that crypto/x509 does not read (TCG EK
// Credential Profile, 3.2.9). Where the certificate limits its use, tcg-kp-EKCertificate must be among the uses.
func VerifyEKChain(cert *x509.Certificate, intermediates []*x509.Certificate, roots *x509.CertPool, now time.Time) error {
	if cert == nil {
		return fmt.Errorf("%w: there is none", ErrEKChain)
	}
	// With nil roots crypto/x509 would take those of the operating system, which say nothing about TPMs.
	if roots == nil {
		return fmt.Errorf("%w: no roots are imported, import those of the TPM's manufacturer", ErrEKChain)
	}
	if len(intermediates) > maxIntermediates {
		return fmt.Errorf("%w: %d intermediates, at most %d are taken", ErrEKChain, len(intermediates), maxIntermediates)
	}
	if cert.IsCA {
		return fmt.Errorf("%w: it is the certificate of an authority", ErrEKChain)
	}
	if !allowsEK(cert) {
		return fmt.Errorf("%w: its extended key usage does not name %v (EK certificate)", ErrEKChain, oidEKCertificate)
	}
	leaf := *cert
	leaf.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(cert.UnhandledCriticalExtensions),
		func(oid asn1.ObjectIdentifier) bool { return oid.Equal(oidSubjectAltName) })
	pool := x509.NewCertPool()
	for _, c := range intermediates {
		if c != nil {
			pool.AddCert(c)
		}
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("%w: issued by %q: %w", ErrEKChain, cert.Issuer, err)
	}
	return nil
}

func allowsEK(cert *x509.Certificate) bool {
	if len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0 {
		return true // older manufacturers' certificates have none
	}
	return slices.ContainsFunc(cert.UnknownExtKeyUsage, oidEKCertificate.Equal) ||
		slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// EKMatchesCertificate checks that cert is about the key ek. Its errors wrap ErrEKMismatch.
func EKMatchesCertificate(ek *Public, cert *x509.Certificate) error {
	if ek == nil || ek.Key == nil || cert == nil {
		return fmt.Errorf("%w: EK or certificate is missing", ErrEKMismatch)
	}
	key, err := certificateKey(cert)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEKMismatch, err)
	}
	var same bool
	switch k := ek.Key.(type) {
	case *rsa.PublicKey:
		same = k.Equal(key)
	case *ecdsa.PublicKey:
		same = k.Equal(key)
	}
	if !same {
		return fmt.Errorf("%w: certificate of %q, serial %v", ErrEKMismatch, cert.Subject, cert.SerialNumber)
	}
	return nil
}

// certificateKey returns the key of cert, also where it is marked as an RSAES-OAEP key: some manufacturers do so, as the
// profile allows, and crypto/x509 leaves the key out then.
func certificateKey(cert *x509.Certificate) (crypto.PublicKey, error) {
	if cert.PublicKey != nil {
		return cert.PublicKey, nil
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	rest, err := asn1.Unmarshal(cert.RawSubjectPublicKeyInfo, &info)
	if err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("%w: public key of the certificate", ErrMalformed)
	}
	if !info.Algorithm.Algorithm.Equal(oidRSAESOAEP) {
		return nil, fmt.Errorf("%w: public key algorithm %v", ErrUnsupported, info.Algorithm.Algorithm)
	}
	key, err := x509.ParsePKCS1PublicKey(info.Key.RightAlign())
	if err != nil {
		return nil, fmt.Errorf("%w: RSAES-OAEP key: %w", ErrMalformed, err)
	}
	return key, nil
}
