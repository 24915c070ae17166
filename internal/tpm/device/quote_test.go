package device

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm"
)

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
