package tpm

import "bytes"

// LatchPCR is the PCR that says that the disks of this boot are open: a worker extends it when they are, and only a reset of the TPM takes that
// back. Firmware and boot loaders leave it alone; systemd may measure machine ID and volume keys into it (UAPI group, Linux TPM PCR Registry).
const LatchPCR = 15

// LatchEvent is the data of the one event in LatchPCR (TPM2_PCR_Event: each bank gets its own hash of it).
const LatchEvent = "touchstone: disks of this boot are open, v1"

// LatchState is what a value of LatchPCR says.
type LatchState string

// The states. The zero value is none of them.
const (
	LatchUnquoted LatchState = "not quoted"
	LatchOpen     LatchState = "not extended"
	LatchClosed   LatchState = "closed"          // by LatchEvent and nothing else
	LatchForeign  LatchState = "extended"        // by something else, before or after
	LatchNoHash   LatchState = "of unknown bank" // a value of a bank whose hash is not known here
)

// Latch says what a value of LatchPCR in a bank says; nil is a value that was not quoted.
func Latch(a Alg, value []byte) LatchState {
	if value == nil {
		return LatchUnquoted
	}
	h := a.Hash()
	if h == 0 || !h.Available() || len(value) != h.Size() {
		return LatchNoHash
	}
	reset := make([]byte, h.Size())
	if bytes.Equal(value, reset) {
		return LatchOpen
	}
	event, pcr := h.New(), h.New()
	event.Write([]byte(LatchEvent))
	pcr.Write(reset)
	pcr.Write(event.Sum(nil))
	if bytes.Equal(value, pcr.Sum(nil)) {
		return LatchClosed
	}
	return LatchForeign
}
