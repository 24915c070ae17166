// Package claims draws Claims from Evidence: typed statements about a worker, each with its provenance.
//
// A claim is proven when it comes from log entries whose replay equals a quoted PCR, and whose data hash to the digest that was
// extended; it is claimed when only the worker says so; else it is unknown. Of the firmware log only PCR index, digest and order
// within a PCR are proven: event types, names and data count only as far as the digest covers them, and package claims
// reports every place where they do not fit together (see Problem). The package judges nothing; that is package appraisal.
package claims

import (
	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/tpm"
)

// Provenance says how a claim is known.
type Provenance string

// The provenances. The zero value counts as NotKnown.
const (
	Proven   Provenance = "proven"
	Claimed  Provenance = "claimed"
	NotKnown Provenance = "unknown"
)

// PCRState says what the quotes prove about the events of one PCR.
type PCRState uint8

// The states of a PCR; the zero value proves nothing.
const (
	NotQuoted PCRState = iota
	Holds              // the log replays to the quoted value in every quoted bank, or the PCR is untouched and has no events
	Differs            // the log does not replay to the quoted value
	Orphan             // the PCR has a value, the log has no events for it
	NoLog              // quoted, but there is no log that could explain it
)

// Claims are all that is known of one worker at one moment.
type Claims struct {
	Quote  Quote
	Bank   tpm.Alg                   // the strongest usable bank: the one that claims are read in
	Values *tpm.Bank                 // quoted values of Bank
	PCRs   [tpm.NumPCRs]PCRState     // over all quoted banks: the worst
	Diff   map[int]eventlog.Mismatch // for PCRs that differ
	// Boot is nil when there is no usable firmware log; BootError then says why.
	Boot        *Boot
	BootError   string
	Facts       Facts
	Endorsement Endorsement
	AssetTag    AssetTag
	Detections  Detections
	DiskKeys    *DiskKeys // nil: nobody knows whose keys open the volumes
	Audit       Audit
	Compliance  *Compliance // nil: nobody knows of a scan
}

// Quote is what the TPM says of itself in the quote. It is proven.
type Quote struct {
	Clock           uint64 // ms since the TPM was made
	ResetCount      uint32
	RestartCount    uint32
	Safe            bool // the clock was not set back by a power loss
	FirmwareVersion uint64
	Banks           []tpm.Alg
	PCRs            tpm.PCRSet // quoted in Bank
	Fresh           bool       // the nonce is the Verifier's own challenge
	Enrolled        bool       // the key is the one of the enrolment
	// KeyWithoutAttributes says that the key came as PEM: what the TPM may sign with it is not known.
	KeyWithoutAttributes bool
}

// Endorsement is what came along about the endorsement key. It is claimed: the enrolment binds it to the attestation key, the
// Evidence alone does not.
type Endorsement struct {
	Offered  bool
	Subject  string // of the EK certificate
	Issuer   string
	Error    string // why it does not chain to an imported root; empty when it does
	Software bool   // the root is one for software TPMs
}

// Proves reports whether the quotes prove the events of all the given PCRs.
func (c *Claims) Proves(pcrs ...int) bool {
	for _, i := range pcrs {
		if c.PCRs[i] != Holds {
			return false
		}
	}
	return c.Boot != nil
}

// Provenance is Proven when the quotes prove the given PCRs, else NotKnown.
func (c *Claims) Provenance(pcrs ...int) Provenance {
	if c.Proves(pcrs...) {
		return Proven
	}
	return NotKnown
}

// Compare fills PCRs and Diff from the log of c.Boot and the quoted banks.
func (c *Claims) Compare(banks []tpm.Bank) {
	for n := range banks {
		b := &banks[n]
		for i, v := range b.Values {
			if v == nil {
				continue
			}
			if c.Boot == nil {
				c.PCRs[i] = NoLog
			} else if c.PCRs[i] == NotQuoted {
				c.PCRs[i] = Holds
			}
		}
		if c.Boot == nil {
			continue
		}
		for _, m := range c.Boot.Log.Compare(b) {
			if m.Kind == eventlog.NoEvents {
				c.PCRs[m.PCR] = Orphan
			} else {
				c.PCRs[m.PCR] = Differs
			}
			if c.Diff == nil {
				c.Diff = make(map[int]eventlog.Mismatch)
			}
			c.Diff[m.PCR] = m
		}
	}
}
