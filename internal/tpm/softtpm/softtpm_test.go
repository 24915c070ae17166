package softtpm_test

import (
	"bytes"
	"errors"
	"testing"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

func TestKeysComeFromTheSeed(t *testing.T) {
	a, again, b := softtpm.New([]byte("a")), softtpm.New([]byte("a")), softtpm.New([]byte("b"))
	if !bytes.Equal(a.AKArea(), again.AKArea()) || !bytes.Equal(a.EKArea(), again.EKArea()) {
		t.Error("New: the same seed gave other keys")
	}
	if bytes.Equal(a.AKArea(), b.AKArea()) || bytes.Equal(a.EKArea(), b.EKArea()) {
		t.Error("New: another seed gave the same keys")
	}
	for name, area := range map[string][]byte{"ak": a.AKArea(), "ek": a.EKArea()} {
		if _, err := tpm.ParsePublic(area); err != nil {
			t.Errorf("ParsePublic(%s): %v", name, err)
		}
	}
}

// TestQuoteOfMissingValues shows that a PCR without value counts as zeros, and a bank that is not there as no PCR.
func TestQuoteOfMissingValues(t *testing.T) {
	soft := softtpm.New([]byte("a"))
	bank := &tpm.Bank{Alg: tpm.AlgSHA256}
	msg, _ := soft.Quote(nil, []*tpm.Bank{bank},
		[]tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(16)}, {Alg: tpm.AlgSHA384, PCRs: tpm.PCRs(1)}}, softtpm.Clock{})
	q, err := tpm.ParseQuote(msg)
	if err != nil {
		t.Fatal(err)
	}
	bank.Values[16] = make([]byte, 32)
	want, err := tpm.PCRDigest(tpm.AlgSHA256, q.Selections, map[tpm.Alg]*tpm.Bank{tpm.AlgSHA256: bank})
	if err != nil || !bytes.Equal(q.PCRDigest, want) || q.Selections[1].PCRs != 0 {
		t.Errorf("Quote: got digest %x and %v, want %x, %v", q.PCRDigest, q.Selections, want, err)
	}
}

func TestActivateRefusesGarbage(t *testing.T) {
	soft := softtpm.New([]byte("a"))
	ek, err := tpm.ParsePublic(soft.EKArea())
	if err != nil {
		t.Fatal(err)
	}
	blob, secret, err := tpm.MakeCredential(ek, soft.AKName(), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range blob {
		if _, err := soft.Activate(blob[:n], secret); !errors.Is(err, softtpm.ErrActivate) {
			t.Errorf("Activate(first %d bytes of the blob): got %v", n, err)
		}
	}
	for n := range secret {
		if _, err := soft.Activate(blob, secret[:n]); !errors.Is(err, softtpm.ErrActivate) {
			t.Errorf("Activate(first %d bytes of the secret): got %v", n, err)
		}
	}
}

func BenchmarkQuote(b *testing.B) {
	soft := softtpm.New([]byte("a"))
	banks := []*tpm.Bank{{Alg: tpm.AlgSHA256}}
	sel := []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14)}}
	for b.Loop() {
		soft.Quote(make([]byte, 32), banks, sel, softtpm.Clock{})
	}
}
