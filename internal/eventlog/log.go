// Package eventlog reads the firmware event log of the TCG PC Client Platform Firmware Profile (PFP 1.06, section 10): the
// crypto-agile log and the older SHA-1 log. It parses, replays into PCR values, compares these with quoted ones, and decodes
// event data by type.
//
// A log is hostile input. Only the PCR index, the digests and the order of the events are covered by a quote, and only once
// Replay or Compare agrees with it. Event type and event data are text that came along: data counts where DataMatches says
// that it hashes to the digest, and even then the type stays a guess of the reader. EV_NO_ACTION events are covered by nothing;
// the one that has weight, StartupLocality, is proven by the value of PCR 0.
//
// Parse is strict and bounded; typed decoders run when asked. Nothing panics, nothing allocates by a length field, and slices
// point into the input, which must not change afterwards. The package has no I/O.
package eventlog

import (
	"touchstone.dev/touchstone/internal/tpm"
)

// Limits on a log. The largest real ones have some hundred events in less than 200 kB.
const (
	MaxLog     = 4 << 20 // bytes of the whole log
	MaxEvents  = 1 << 15 // events, the header among them
	MaxData    = 1 << 20 // bytes of one event's data
	MaxAlgs    = 16      // banks that the header declares
	MaxSumSize = 128     // bytes of a digest of an algorithm that Touchstone doesn't know
)

// NoPCR is the index of an EV_NO_ACTION event that belongs to no PCR (0xffffffff in the log).
const NoPCR = -1

// NoLocality is the Locality of a log that doesn't name one.
const NoLocality = -1

// Digest is what was extended into one bank. Sum points into the log.
type Digest struct {
	Alg tpm.Alg
	Sum []byte
}

// Event is one entry of the log (TCG_PCR_EVENT2, or TCG_PCR_EVENT for the header and the SHA-1 log).
type Event struct {
	Index  int // position in the log, from 0; the Spec ID header counts
	Offset int // bytes from the start of the log
	PCR    int // 0 to 23, or NoPCR
	Type   Type
	// Digests are those of algorithms that Touchstone knows, in the order of the log. The Spec ID header carries one SHA-1
	// field that means nothing.
	Digests []Digest
	Data    []byte
}

// Digest returns the digest of e for bank a, or nil when e has none.
func (e *Event) Digest(a tpm.Alg) []byte {
	for i := range e.Digests {
		if e.Digests[i].Alg == a {
			return e.Digests[i].Sum
		}
	}
	return nil
}

// Extends reports whether e changes a PCR: every event but EV_NO_ACTION does.
func (e *Event) Extends() bool { return e.Type != NoAction }

// Log is a parsed firmware log.
type Log struct {
	Events []Event
	// Algs are the banks that can be replayed, in the order of the header.
	Algs []tpm.Alg
	// Skipped are banks of the header whose algorithm is unknown here; their digests were stepped over.
	Skipped []tpm.Alg
	// Agile is true for a crypto-agile log, false for a SHA-1 log.
	Agile bool
	// Spec is what the header says of the specification, as "2.0 errata 105"; empty without a header.
	Spec string
	// Locality is where TPM2_Startup came from: 0, 3, or 4 for an H-CRTM; NoLocality if the log doesn't say. It is the last byte of
	// PCR 0's initial value, hence proven when PCR 0 replays to the quoted value.
	Locality int
	// VendorInfo is the vendor's part of the header. It points into the log.
	VendorInfo []byte
}
