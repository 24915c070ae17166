package swtpm_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/swtpm"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/device"
)

func start(t *testing.T, o swtpm.Options) *swtpm.Process {
	t.Helper()
	p, err := swtpm.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func open(t *testing.T, p *swtpm.Process) *device.TPM {
	t.Helper()
	dev, err := device.Open(p.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	return dev
}

// TestStateOutlivesTheProcess starts the same folder twice: the keys are the same. Its path is too long for a socket.
func TestStateOutlivesTheProcess(t *testing.T) {
	o := swtpm.Options{Dir: filepath.Join(t.TempDir(), strings.Repeat("long", 25)), Banks: []tpm.Alg{tpm.AlgSHA1, tpm.AlgSHA512}}
	name := func() []byte {
		p := start(t, o)
		dev := open(t, p)
		if banks, err := dev.Banks(); err != nil || !slices.Equal(banks, o.Banks) {
			t.Errorf("Banks: got %v, %v, want %v", banks, err, o.Banks)
		}
		ak, err := dev.AttestationKey("ecc")
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Stop(); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if _, err := os.Stat(strings.TrimPrefix(p.Address(), "unix:")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("socket after Stop: got %v, want %v", err, os.ErrNotExist)
		}
		return ak.Name()
	}
	if first, second := name(), name(); !bytes.Equal(first, second) {
		t.Errorf("Name: got %x after a restart, want %x", second, first)
	}
}

func TestRebootResetsPCRs(t *testing.T) {
	p := start(t, swtpm.Options{Dir: t.TempDir()})
	dev := open(t, p)
	selection := []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(4)}}
	if err := dev.Extend(4, map[tpm.Alg][]byte{tpm.AlgSHA256: bytes.Repeat([]byte{1}, 32)}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{false, true} {
		banks, err := dev.ReadPCRs(selection)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Equal(banks[0].Values[4], make([]byte, 32)); got != want {
			t.Errorf("PCR 4 is zero: got %v, want %v", got, want)
		}
		if !want {
			ctx, cancel := context.WithCancel(context.Background())
			if err := p.Reboot(ctx); err != nil {
				t.Fatalf("Reboot: %v", err)
			}
			cancel() // the TPM must outlive the call
		}
	}
}

// TestCertificates makes a TPM whose endorsement key is certified by a new local authority.
func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca")
	dev := open(t, start(t, swtpm.Options{Dir: filepath.Join(dir, "worker-7"), EKCA: ca}))
	ek, err := dev.EndorsementKey(context.Background())
	if err != nil || len(ek.Certs) == 0 {
		t.Fatalf("EndorsementKey: got %d certificates, %v", len(ek.Certs), err)
	}
	cert, err := tpm.ParseEKCertificate(ek.Certs[0])
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != "worker-7" {
		t.Errorf("subject: got %q, want %q", cert.Subject.CommonName, "worker-7")
	}
	roots := x509.NewCertPool()
	roots.AddCert(readCert(t, swtpm.RootFile(ca)))
	if err := tpm.VerifyEKChain(cert, []*x509.Certificate{readCert(t, swtpm.IssuerFile(ca))}, roots, cert.NotBefore); err != nil {
		t.Errorf("VerifyEKChain: %v", err)
	}
}

func readCert(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatalf("%s: no PEM", name)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestStartRefuses(t *testing.T) {
	if _, err := swtpm.Start(context.Background(), swtpm.Options{}); err == nil {
		t.Error("Start without folder: got nil")
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "state", "tpm2-00.permall"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := swtpm.Start(context.Background(), swtpm.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "swtpm") {
		t.Errorf("Start with a damaged state: got %v, want what swtpm says", err)
	}
	t.Setenv("PATH", "")
	for _, ca := range []string{"", t.TempDir()} {
		if _, err := swtpm.Start(context.Background(), swtpm.Options{Dir: t.TempDir(), EKCA: ca}); !errors.Is(err, swtpm.ErrNotInstalled) {
			t.Errorf("Start without swtpm: got %v, want %v", err, swtpm.ErrNotInstalled)
		}
	}
}
