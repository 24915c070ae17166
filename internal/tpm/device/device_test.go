package device

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/evidence"
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

func TestQuote(t *testing.T) {
	dev := open(t)
	selections := []tpm.Selection{
		{Alg: tpm.AlgSHA1, PCRs: tpm.PCRs(0, 10)},
		{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 16, 23)},
		{Alg: tpm.AlgSHA384, PCRs: tpm.PCRs(16)},
	}
	digest := bytes.Repeat([]byte{1}, 32)
	if err := dev.Extend(16, map[tpm.Alg][]byte{tpm.AlgSHA256: digest}); err != nil {
		t.Fatalf("Extend: %v", err)
	}
	for _, alg := range []string{"ecc", "rsa"} {
		ak := mustAK(t, dev, alg)
		quotes, err := dev.Quote(ak, []byte("nonce"), selections)
		if err != nil {
			t.Fatalf("Quote: %v", err)
		}
		if len(quotes) != len(selections) {
			t.Fatalf("Quote: got %d quotes, want %d", len(quotes), len(selections))
		}
		for i, q := range quotes {
			checkQuote(t, ak, q, "nonce", selections[i])
		}
		if got := quotes[1].PCRs[0].Values[16]; bytes.Equal(got, make([]byte, 32)) {
			t.Errorf("PCR 16: got %x, want what was extended", got)
		}
	}
	if _, err := dev.Quote(nil, nil, selections); err == nil {
		t.Error("Quote without key: got nil")
	}
	if _, err := dev.Quote(mustAK(t, dev, "ecc"), nil, []tpm.Selection{{Alg: tpm.AlgSHA512, PCRs: tpm.PCRs(1)}}); err == nil {
		t.Error("Quote of a bank that is off: got nil")
	}
}

func checkQuote(t *testing.T, ak *Key, q evidence.Quote, nonce string, want tpm.Selection) {
	t.Helper()
	checkSigned(t, ak, q.Message, q.Signature)
	attest, err := tpm.ParseQuote(q.Message)
	if err != nil {
		t.Fatal(err)
	}
	if string(attest.ExtraData) != nonce || !slices.Equal(attest.Selections, []tpm.Selection{want}) {
		t.Errorf("quote: got nonce %q over %v, want %q over %v", attest.ExtraData, attest.Selections, nonce, want)
	}
	bank := &tpm.Bank{Alg: q.PCRs[0].Alg}
	for i, v := range q.PCRs[0].Values {
		bank.Values[i] = v
	}
	digest, err := tpm.PCRDigest(tpm.AlgSHA256, attest.Selections, map[tpm.Alg]*tpm.Bank{bank.Alg: bank})
	if err != nil || !bytes.Equal(digest, attest.PCRDigest) {
		t.Errorf("PCRDigest: got %x, %v, want %x", digest, err, attest.PCRDigest)
	}
}

func TestBanksAndInfo(t *testing.T) {
	dev := open(t)
	banks, err := dev.Banks()
	if want := []tpm.Alg{tpm.AlgSHA1, tpm.AlgSHA256, tpm.AlgSHA384}; err != nil || !slices.Equal(banks, want) {
		t.Errorf("Banks: got %v, %v, want %v", banks, err, want)
	}
	info, err := dev.Info()
	if err != nil || info.Manufacturer != "IBM" || info.FirmwareVersion == 0 || info.Vendor == "" {
		t.Errorf("Info: got %+v, %v", info, err)
	}
	if _, err := dev.NVRead(0x01c0ffff); !errors.Is(err, ErrNoIndex) {
		t.Errorf("NVRead of no index: got %v, want %v", err, ErrNoIndex)
	}
	for _, err := range []error{
		dev.Extend(24, nil), dev.Extend(16, map[tpm.Alg][]byte{tpm.AlgSHA256: {1}}), dev.Extend(16, map[tpm.Alg][]byte{tpm.AlgNull: nil}),
	} {
		if err == nil {
			t.Error("Extend: got nil, want an error")
		}
	}
}

// TestMoving quotes a PCR that another process keeps extending: quote and values must fit all the same.
func TestMoving(t *testing.T) {
	dev, other := open(t), open(t)
	ak := mustAK(t, dev, "ecc")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				if err := other.Extend(23, map[tpm.Alg][]byte{tpm.AlgSHA256: make([]byte, 32)}); err != nil {
					t.Errorf("Extend: %v", err)
					return
				}
			}
		}
	})
	selection := tpm.Selection{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0, 1, 2, 3, 4, 5, 6, 7, 8, 23)}
	for range 20 {
		quotes, err := dev.Quote(ak, []byte("n"), []tpm.Selection{selection})
		if errors.Is(err, ErrMoving) { // allowed, if rarely: what counts is that no quote misfits its values
			continue
		}
		if err != nil {
			t.Fatalf("Quote: %v", err)
		}
		checkQuote(t, ak, quotes[0], "n", selection)
	}
	close(stop)
	wg.Wait()
}

// TestFullTPM fills the three slots as a program does that ended without flushing. Nothing of ours may fail for that.
func TestFullTPM(t *testing.T) {
	dev := open(t)
	ek, err := dev.EndorsementKey(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ak := mustAK(t, dev, "ecc")
	for range 3 {
		_, _ = tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(dev.link)
	}
	blob, encrypted, err := tpm.MakeCredential(mustPublic(t, ek.Public), ak.Name(), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dev.Activate(ek, ak, blob, encrypted); err != nil {
		t.Errorf("Activate in a full TPM: %v", err)
	}
	left, err := dev.handles(0x80000000, 0x80ffffff)
	if err != nil || len(left) != 0 || len(dev.loaded) != 0 {
		t.Errorf("after an operation: got %v loaded, %v, want nothing", left, err)
	}
}

func TestConcurrentUse(t *testing.T) {
	dev := open(t)
	tls, err := dev.TLSKey()
	if err != nil {
		t.Fatal(err)
	}
	ak := mustAK(t, dev, "ecc")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				if _, err := dev.Quote(ak, nil, []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0)}}); err != nil {
					t.Errorf("Quote: %v", err)
				}
				if _, _, err := dev.Certify(ak, tls, nil); err != nil {
					t.Errorf("Certify: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if err := dev.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := dev.Banks(); !errors.Is(err, ErrClosed) {
		t.Errorf("Banks after Close: got %v, want %v", err, ErrClosed)
	}
}

// TestReboot keeps the same open TPM over a reset, as an agent in the demo does.
func TestReboot(t *testing.T) {
	dev := open(t)
	ak := mustAK(t, dev, "ecc")
	selections := []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0, 1)}}
	resets := func() uint32 {
		quotes, err := dev.Quote(ak, nil, selections)
		if err != nil {
			t.Fatalf("Quote: %v", err)
		}
		checkQuote(t, ak, quotes[0], "", selections[0])
		q, err := tpm.ParseQuote(quotes[0].Message)
		if err != nil {
			t.Fatal(err)
		}
		return q.ResetCount
	}
	before, name := resets(), ak.Name()
	if err := shared.process.Reboot(context.Background()); err != nil {
		t.Fatalf("Reboot: %v", err)
	}
	if after := resets(); after != before+1 {
		t.Errorf("ResetCount: got %d, want %d", after, before+1)
	}
	if again := mustAK(t, open(t), "ecc"); !bytes.Equal(again.Name(), name) {
		t.Errorf("Name after reboot: got %x, want %x", again.Name(), name)
	}
}

func BenchmarkQuoteECC(b *testing.B) {
	dev := open(b)
	ak := mustAK(b, dev, "ecc")
	selections := []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14)}}
	for b.Loop() {
		if _, err := dev.Quote(ak, make([]byte, 32), selections); err != nil {
			b.Fatal(err)
		}
	}
}
