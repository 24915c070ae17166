package device

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/tpm"
)

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

// TestKeyChanged puts the key of another TPM where ours was known.
func TestKeyChanged(t *testing.T) {
	dev := open(t)
	ak := mustAK(t, dev, "ecc")
	ak.public, ak.context = mustPublic(t, mustAK(t, dev, "rsa").Public()), nil
	if _, err := dev.Quote(ak, nil, []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0)}}); !errors.Is(err, ErrKeyChanged) {
		t.Errorf("Quote: got %v, want %v", err, ErrKeyChanged)
	}
	if _, err := dev.AttestationKey("dsa"); err == nil {
		t.Error("AttestationKey(dsa): got nil, want an error")
	}
}
