package device

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"touchstone.dev/touchstone/internal/swtpm"
	"touchstone.dev/touchstone/internal/tpm"
)

// shared is one software TPM with EK certificates, made once: making it costs more than all that the tests do with it.
var shared struct {
	process *swtpm.Process
	ca      string
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if address := os.Getenv(envWriter); address != "" {
		return writeForever(address)
	}
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	shared.ca = filepath.Join(dir, "ca")
	shared.process, err = swtpm.Start(context.Background(), swtpm.Options{
		Dir: filepath.Join(dir, "node-1"), EKCA: shared.ca, Banks: []tpm.Alg{tpm.AlgSHA1, tpm.AlgSHA256, tpm.AlgSHA384},
	})
	if err != nil {
		println("these tests need a software TPM: " + err.Error())
		return 1
	}
	defer shared.process.Stop() //nolint:errcheck // the tests are over
	return m.Run()
}

func open(t testing.TB) *TPM {
	t.Helper()
	dev, err := Open(shared.process.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return dev
}

func readCert(t testing.TB, name string) *x509.Certificate {
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

func mustPublic(t testing.TB, area []byte) *tpm.Public {
	t.Helper()
	p, err := tpm.ParsePublic(area)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustAK(t testing.TB, dev *TPM, alg string) *Key {
	t.Helper()
	ak, err := dev.AttestationKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	return ak
}

// checkSigned verifies what the TPM signed, as AIAS does.
func checkSigned(t testing.TB, ak *Key, message, signature []byte) {
	t.Helper()
	public := mustPublic(t, ak.Public())
	if err := public.CheckAttestationKey(); err != nil {
		t.Errorf("CheckAttestationKey: %v", err)
	}
	sig, err := tpm.ParseSignature(signature)
	if err != nil {
		t.Fatal(err)
	}
	if err := public.Verify(message, sig); err != nil {
		t.Errorf("Verify: %v", err)
	}
}
