package device

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"testing"

	"touchstone.dev/touchstone/internal/swtpm"
	"touchstone.dev/touchstone/internal/tpm"
)

func selection(pcrs ...int) tpm.Selection {
	s := tpm.Selection{Alg: tpm.AlgSHA256}
	for _, p := range pcrs {
		s.PCRs |= 1 << p
	}
	return s
}

func TestSeal(t *testing.T) {
	dev := open(t)
	secret := []byte("0123456789abcdef0123456789abcdef")
	for _, pcrs := range []tpm.Selection{selection(), selection(23), selection(0, 7, 23)} {
		public, private, err := dev.Seal(secret, pcrs)
		if err != nil {
			t.Fatalf("Seal(%v): %v", pcrs, err)
		}
		if bytes.Contains(private, secret) || bytes.Contains(public, secret) {
			t.Errorf("Seal(%v): the secret is in what it returned", pcrs)
		}
		again := open(t) // another process, as after a start
		if got, err := again.Unseal(public, private, pcrs); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("Unseal(%v): got %q, %v; want %q", pcrs, got, err, secret)
		}
		if pcrs.PCRs == 0 {
			continue
		}
		if _, err := dev.Unseal(public, private, selection()); err == nil {
			t.Errorf("Unseal() without the PCRs %v that it was sealed to: got no error", pcrs)
		}
		d := sha256.Sum256([]byte("other"))
		if err := dev.Extend(23, map[tpm.Alg][]byte{tpm.AlgSHA256: d[:]}); err != nil {
			t.Fatal(err)
		}
		if _, err := dev.Unseal(public, private, pcrs); !errors.Is(err, ErrOtherState) {
			t.Errorf("Unseal(%v) after PCR 23 moved: got %v, want %v", pcrs, err, ErrOtherState)
		}
	}
}

// TestSealedElsewhere: what one TPM sealed, or what was changed since, is no use to another.
func TestSealedElsewhere(t *testing.T) {
	dev := open(t)
	public, private, err := dev.Seal([]byte("secret"), selection())
	if err != nil {
		t.Fatal(err)
	}
	p, err := swtpm.Start(context.Background(), swtpm.Options{Dir: filepath.Join(t.TempDir(), "other"), EKCA: shared.ca})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop() //nolint:errcheck // the test is over
	other, err := Open(p.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close() //nolint:errcheck // the test is over
	if _, err := other.Unseal(public, private, selection()); err == nil {
		t.Error("Unseal() on another TPM: got no error")
	}
	for i := range private {
		bad := bytes.Clone(private)
		bad[i] ^= 1
		if got, err := dev.Unseal(public, bad, selection()); err == nil {
			t.Errorf("Unseal() with byte %d flipped: got %q", i, got)
		}
	}
	for _, bad := range [][]byte{nil, {0}, {0, 200, 1}, bytes.Repeat([]byte{0xff}, 300)} {
		if _, err := dev.Unseal(bad, private, selection()); err == nil {
			t.Errorf("Unseal(public %x): got no error", bad)
		}
	}
	if _, _, err := dev.Seal(make([]byte, MaxSealed+1), selection()); err == nil {
		t.Error("Seal() of too much: got no error")
	}
}
