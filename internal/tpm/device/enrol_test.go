package device

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/tpm"
)

// TestEnrolment goes the way of a worker that enrols: EK certificate to the imported root, credential, activation.
func TestEnrolment(t *testing.T) {
	dev := open(t)
	ek, err := dev.EndorsementKey(context.Background())
	if err != nil {
		t.Fatalf("EndorsementKey: %v", err)
	}
	if len(ek.Certs) == 0 {
		t.Fatal("EndorsementKey: got no certificate")
	}
	cert, err := tpm.ParseEKCertificate(ek.Certs[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(readCert(t, shared.ca+"/swtpm-localca-rootca-cert.pem"))
	chain := []*x509.Certificate{readCert(t, shared.ca+"/issuercert.pem")}
	if err := tpm.VerifyEKChain(cert, chain, roots, time.Now()); err != nil {
		t.Errorf("VerifyEKChain: %v", err)
	}
	public := mustPublic(t, ek.Public)
	if err := tpm.EKMatchesCertificate(public, cert); err != nil {
		t.Errorf("EKMatchesCertificate: %v", err)
	}
	secret := bytes.Repeat([]byte{9}, 32)
	for _, alg := range []string{"ecc", "rsa"} {
		ak := mustAK(t, dev, alg)
		blob, encrypted, err := tpm.MakeCredential(public, mustPublic(t, ak.Public()).Name(), secret)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := dev.Activate(ek, ak, blob, encrypted); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("Activate(%s): got %x, %v, want %x", alg, got, err, secret)
		}
	}
	// A credential for the Name of another key: this TPM has the EK, but not that key.
	blob, encrypted, err := tpm.MakeCredential(public, mustAK(t, dev, "rsa").Name(), secret)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := dev.Activate(ek, mustAK(t, dev, "ecc"), blob, encrypted); err == nil {
		t.Errorf("Activate for the Name of another key: got %x", got)
	}
	if _, err := dev.Activate(ek, mustAK(t, dev, "ecc"), blob[1:], encrypted); !errors.Is(err, tpm.ErrMalformed) {
		t.Errorf("Activate with half a blob: got %v, want %v", err, tpm.ErrMalformed)
	}
	if _, err := dev.Activate(EK{}, nil, blob, encrypted); err == nil {
		t.Error("Activate without keys: got nil")
	}
}

// TestHighRangeKey proves the P-384 template by swtpm's second EK certificate, and activates with it.
func TestHighRangeKey(t *testing.T) {
	dev := open(t)
	i := slices.IndexFunc(ekTemplates, func(e ekTemplate) bool { return e.certificate == 0x01c00016 })
	der, err := dev.NVRead(0x01c00016)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tpm.ParseEKCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	key, err := dev.certifiedKey(context.Background(), ekTemplates[i], cert)
	if err != nil {
		t.Fatalf("certifiedKey: %v", err)
	}
	ak := mustAK(t, dev, "ecc")
	blob, encrypted, err := tpm.MakeCredential(mustPublic(t, key.Public()), ak.Name(), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := dev.Activate(EK{Public: key.Public(), key: key}, ak, blob, encrypted)
	if err != nil || string(got) != "secret" {
		t.Errorf("Activate: got %q, %v, want %q", got, err, "secret")
	}
}

// TestTemplates makes a key of each template, to see that the TPM takes what we encode.
func TestTemplates(t *testing.T) {
	dev := open(t)
	for _, tm := range ekTemplates {
		if tm.name == "ek-h6" { // RSA-3072: takes seconds, and swtpm may not have it
			continue
		}
		key, err := dev.key(tm.template)
		if err != nil {
			t.Errorf("key(%s): %v", tm.name, err)
			continue
		}
		if err := mustPublic(t, key.Public()).CheckEndorsementKey(); err != nil {
			t.Errorf("CheckEndorsementKey(%s): %v", tm.name, err)
		}
	}
	// Policy B is policy A or the policy that an NV index gives (EK Credential Profile, B.6.5): compute it from both.
	policyC := "3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde"
	h := sha256.New()
	h.Write(make([]byte, 32))
	h.Write([]byte{0, 0, 1, 0x71}) // TPM_CC_PolicyOR
	h.Write(unhex(t, policyA))
	h.Write(unhex(t, policyC))
	if got, want := h.Sum(nil), unhex(t, policyBSHA256); !bytes.Equal(got, want) {
		t.Errorf("policy B: got %x, want %x", want, got)
	}
}
