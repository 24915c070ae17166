package tpm_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

func TestParseEKCertificate(t *testing.T) {
	der := readFile(t, "corpus/good/tpm/nv-01c00002.der")
	header := append([]byte{0x10, 0x01, 0x00, byte(len(der) >> 8), byte(len(der))}, der...)
	inner := append([]byte{0x10, 0x01, 0x00, byte((len(der) + 2) >> 8), byte(len(der) + 2), 0x10, 0x02}, der...)
	pad := func(b []byte, v byte) []byte { return append(bytes.Clone(b), bytes.Repeat([]byte{v}, 300)...) }
	for name, b := range map[string][]byte{
		"der": der, "padded with zeros": pad(der, 0), "padded with 0xff": pad(der, 0xff), "stored header": header,
		"stored header, padded": pad(header, 0xff), "stored header and tag": inner,
		"pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	} {
		cert, err := tpm.ParseEKCertificate(b)
		if err != nil || !bytes.Equal(cert.Raw, der) {
			t.Errorf("ParseEKCertificate(%s): got %v, want the certificate", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"empty": nil, "zeros": make([]byte, 64), "header only": {0x10, 0x01, 0x00, 0, 0}, "cut header": header[:400],
		"PEM key": readFile(t, "corpus/good/tpm/ak-ecc.pem"), "too large": pad(make([]byte, 16<<10), 0),
		"text in front": append([]byte("x"), der...),
	} {
		if cert, err := tpm.ParseEKCertificate(b); err == nil {
			t.Errorf("ParseEKCertificate(%s): got %v, want an error", name, cert.Subject)
		}
	}
	for n := range der {
		if _, err := tpm.ParseEKCertificate(der[:n]); !errors.Is(err, tpm.ErrMalformed) {
			t.Errorf("ParseEKCertificate(first %d bytes): got %v, want %v", n, err, tpm.ErrMalformed)
		}
	}
}

// TestEKChainOfSWTPM verifies the certificates that swtpm_localca made, both RSA and P-384.
func TestEKChainOfSWTPM(t *testing.T) {
	roots := x509.NewCertPool()
	roots.AddCert(readCert(t, "tpm-ca/root.pem"))
	chain := []*x509.Certificate{readCert(t, "tpm-ca/issuer.pem")}
	for _, name := range []string{"corpus/good/tpm/nv-01c00002.der", "corpus/good/tpm/nv-01c00016.der"} {
		cert, err := tpm.ParseEKCertificate(readFile(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := tpm.VerifyEKChain(cert, chain, roots, testTime); err != nil {
			t.Errorf("VerifyEKChain(%s): %v", name, err)
		}
		if err := tpm.VerifyEKChain(cert, nil, roots, testTime); !errors.Is(err, tpm.ErrEKChain) {
			t.Errorf("VerifyEKChain(%s) without intermediate: got %v, want %v", name, err, tpm.ErrEKChain)
		}
	}
	platform, err := tpm.ParseEKCertificate(readFile(t, "corpus/good/tpm/nv-01c08000.der"))
	if err != nil {
		t.Fatal(err)
	}
	if err := tpm.VerifyEKChain(platform, chain, roots, testTime); !errors.Is(err, tpm.ErrEKChain) {
		t.Errorf("VerifyEKChain(platform certificate): got %v, want %v", err, tpm.ErrEKChain)
	}
	ek := mustPublic(t, readFile(t, "corpus/good/tpm/ek.pub"))
	cert, err := tpm.ParseEKCertificate(readFile(t, "corpus/good/tpm/nv-01c00002.der"))
	if err != nil {
		t.Fatal(err)
	}
	if err := tpm.EKMatchesCertificate(ek, cert); err != nil {
		t.Errorf("EKMatchesCertificate: %v", err)
	}
}

func TestVerifyEKChainRefuses(t *testing.T) {
	operator, attacker := newCA(t), newCA(t)
	soft := softtpm.New([]byte("chain"))
	issued := func(ca *softtpm.CA, changes ...func(*x509.Certificate)) *x509.Certificate {
		der, err := soft.EKCertificate(ca, changes...)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := tpm.ParseEKCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	chain, now := []*x509.Certificate{operator.Issuer}, testTime
	for _, tt := range []struct {
		name  string
		cert  *x509.Certificate
		chain []*x509.Certificate
		roots *x509.CertPool
		now   time.Time
		ok    bool
	}{
		{"good", issued(operator), chain, operator.Roots(), now, true},
		{"good with foreign and nil intermediates", issued(operator), []*x509.Certificate{attacker.Root, nil, operator.Issuer}, operator.Roots(), now, true},
		{"no extended key usage", issued(operator, func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }), chain, operator.Roots(), now, true},
		{"host brings its own root", issued(attacker), []*x509.Certificate{attacker.Issuer, attacker.Root}, operator.Roots(), now, false},
		{"no roots imported", issued(operator), chain, x509.NewCertPool(), now, false},
		{"nil roots", issued(operator), chain, nil, now, false},
		{"nil certificate", nil, chain, operator.Roots(), now, false},
		{"intermediate missing", issued(operator), nil, operator.Roots(), now, false},
		{"unknown critical extension", issued(operator, func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}), chain, operator.Roots(), now, false},
		{"another extended key usage", issued(operator, func(c *x509.Certificate) {
			c.UnknownExtKeyUsage, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), chain, operator.Roots(), now, false},
		{"authority", issued(operator, func(c *x509.Certificate) { c.IsCA = true }), chain, operator.Roots(), now, false},
		{"expired", issued(operator, func(c *x509.Certificate) { c.NotAfter = testTime.Add(-time.Hour) }), chain, operator.Roots(), now, false},
		{"not yet valid", issued(operator), chain, operator.Roots(), time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC), false},
		{"seventeen intermediates", issued(operator), append(make([]*x509.Certificate, 16), operator.Issuer), operator.Roots(), now, false},
	} {
		err := tpm.VerifyEKChain(tt.cert, tt.chain, tt.roots, tt.now)
		if tt.ok && err != nil || !tt.ok && !errors.Is(err, tpm.ErrEKChain) {
			t.Errorf("VerifyEKChain, %s: got %v, want ok %v", tt.name, err, tt.ok)
		}
	}
	// The caller's certificate keeps what was unhandled: only the copy that is verified lets the name through.
	if cert := issued(operator); len(cert.UnhandledCriticalExtensions) != 1 {
		t.Errorf("UnhandledCriticalExtensions: got %v, want the alternative name", cert.UnhandledCriticalExtensions)
	}
}

func newCA(t testing.TB) *softtpm.CA {
	t.Helper()
	ca, err := softtpm.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestEKMatchesCertificate(t *testing.T) {
	der := readFile(t, "corpus/good/tpm/nv-01c00002.der")
	rsaEK := mustPublic(t, readFile(t, "corpus/good/tpm/ek.pub"))
	cert, err := tpm.ParseEKCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	other := mustPublic(t, softtpm.New([]byte("other")).EKArea())
	for name, ek := range map[string]*tpm.Public{"another key": other, "nil": nil, "empty": {}} {
		if err := tpm.EKMatchesCertificate(ek, cert); !errors.Is(err, tpm.ErrEKMismatch) {
			t.Errorf("EKMatchesCertificate(%s): got %v, want %v", name, err, tpm.ErrEKMismatch)
		}
	}
	if err := tpm.EKMatchesCertificate(rsaEK, nil); !errors.Is(err, tpm.ErrEKMismatch) {
		t.Errorf("EKMatchesCertificate(nil certificate): got %v, want %v", err, tpm.ErrEKMismatch)
	}
	// Some manufacturers mark the key as RSAES-OAEP: rsaEncryption is 1.2.840.113549.1.1.1, RSAES-OAEP ends in 7.
	oaep := bytes.Clone(der)
	oid := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01}
	oaep[bytes.Index(oaep, oid)+8] = 7
	cert, err = tpm.ParseEKCertificate(oaep)
	if err != nil {
		t.Fatal(err)
	}
	if cert.PublicKey != nil {
		t.Fatalf("crypto/x509 read an RSAES-OAEP key: %v", cert.PublicKey)
	}
	if err := tpm.EKMatchesCertificate(rsaEK, cert); err != nil {
		t.Errorf("EKMatchesCertificate(RSAES-OAEP): %v", err)
	}
	if err := tpm.EKMatchesCertificate(other, cert); !errors.Is(err, tpm.ErrEKMismatch) {
		t.Errorf("EKMatchesCertificate(another key, RSAES-OAEP): got %v, want %v", err, tpm.ErrEKMismatch)
	}
}

func FuzzParseEKCertificate(f *testing.F) {
	for _, name := range []string{"corpus/good/tpm/nv-01c00002.der", "corpus/good/tpm/nv-01c00016.der", "tpm-ca/root.pem"} {
		f.Add(readFile(f, name))
	}
	roots := x509.NewCertPool()
	ek := mustPublic(f, readFile(f, "corpus/good/tpm/ek.pub"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cert, err := tpm.ParseEKCertificate(b)
		if err != nil {
			return
		}
		_ = tpm.EKMatchesCertificate(ek, cert)
		if tpm.VerifyEKChain(cert, []*x509.Certificate{cert}, roots, testTime) == nil {
			t.Errorf("VerifyEKChain(%x): trusted without a root", b)
		}
	})
}
