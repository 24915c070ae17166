package device

import (
	"testing"

	"touchstone.dev/touchstone/internal/tpm"
)

// TestLatchOfRealTPM: the latch closes in every bank, and nothing but the one event makes it closed.
func TestLatchOfRealTPM(t *testing.T) {
	dev := open(t)
	ak := mustAK(t, dev, "ecc")
	state := func() map[tpm.Alg]tpm.LatchState {
		t.Helper()
		out := map[tpm.Alg]tpm.LatchState{}
		for _, bank := range []tpm.Alg{tpm.AlgSHA1, tpm.AlgSHA256, tpm.AlgSHA384} {
			q, err := dev.Quote(ak, []byte("n"), []tpm.Selection{{Alg: bank, PCRs: tpm.PCRs(tpm.LatchPCR)}})
			if err != nil {
				t.Fatal(err)
			}
			out[bank] = tpm.Latch(bank, q[0].PCRs[0].Values[tpm.LatchPCR])
		}
		return out
	}
	for _, want := range []tpm.LatchState{tpm.LatchOpen, tpm.LatchClosed, tpm.LatchForeign} {
		for bank, got := range state() {
			if got != want {
				t.Errorf("latch in bank %v: got %q, want %q", bank, got, want)
			}
		}
		if err := dev.Measure(tpm.LatchPCR, []byte(tpm.LatchEvent)); err != nil {
			t.Fatal(err)
		}
	}
	if err := dev.Measure(99, nil); err == nil {
		t.Error("Measure(99): got nil, want an error")
	}
	for name, v := range map[string][]byte{"short": make([]byte, 31), "empty": {}} {
		if got := tpm.Latch(tpm.AlgSHA256, v); got != tpm.LatchNoHash {
			t.Errorf("Latch(%s): got %q, want %q", name, got, tpm.LatchNoHash)
		}
	}
}
