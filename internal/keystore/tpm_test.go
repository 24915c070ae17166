package keystore

import (
	"context"
	"crypto/sha256"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/swtpm"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/device"
)

func TestTPM(t *testing.T) {
	dir := t.TempDir()
	p, err := swtpm.Start(context.Background(), swtpm.Options{Dir: filepath.Join(dir, "tpm"), EKCA: filepath.Join(dir, "ca")})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop() //nolint:errcheck // the test is over
	plain := Config{Source: Source{TPM: &TPM{Device: p.Address()}}}
	rotateThrough(t, plain, plain)
	file := Source{File: filepath.Join(dir, "key")}
	bound := Config{Source: Source{TPM: &TPM{Device: p.Address(), PCRs: []int{7, 23}}}}
	moved := bound
	moved.Older = []Source{file}
	rotateThrough(t, Config{Source: file}, moved)

	// The machine boots something else: the key is refused, with the reason; back in the old state it is there again.
	m := &memory{}
	sealed := mustWrap(t, mustOpen(t, bound, m), "secret", "place")
	extend(t, p.Address(), 23)
	if _, err := Open(context.Background(), bound, m); err == nil || !strings.Contains(err.Error(), "boots something else") {
		t.Errorf("Open() after PCR 23 moved: got %v, want a refusal", err)
	}
	if err := p.Reboot(context.Background()); err != nil {
		t.Fatal(err)
	}
	canOpen(t, bound, m, sealed)
}

func extend(t *testing.T, address string, pcr int) {
	t.Helper()
	dev, err := device.Open(address)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close() //nolint:errcheck // the test is over
	d := sha256.Sum256([]byte("other"))
	if err := dev.Extend(pcr, map[tpm.Alg][]byte{tpm.AlgSHA256: d[:]}); err != nil {
		t.Fatal(err)
	}
}
