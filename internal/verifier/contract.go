// Package verifier is the Verifier of RFC 9334 as a library: it authenticates Evidence, draws Claims from it and appraises them.
//
// It does no I/O of its own. AIAS calls it online with a challenge, an enrolled key and a checkpoint; `touchstone appraise` calls it
// offline. One Verifier holds one policy and one set of references, compiled and shared by all nodes; what depends only on a
// firmware log, or on nothing that changed since the last attestation, is kept and not computed again.
package verifier

import (
	"errors"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm"
)

// ErrMalformed marks Evidence that cannot be read at all: no verdict is possible.
var ErrMalformed = errors.New("malformed evidence")

// ErrResume means that the Evidence goes on from a point that is not known here (lost, of another boot, or judged with another policy): the
// node must send its whole logs. It is no verdict.
var ErrResume = errors.New("evidence goes on from a point that is not known here: send the whole logs")

// Expectation is what the Verifier knows besides the Evidence.
type Expectation struct {
	// Nonce is the challenge. Nil offline: the document's own nonce is used, and freshness is not judged.
	Nonce []byte
	// AK is the key of the enrolment. Nil offline: the document's own key is used, and enrolment is not judged.
	AK *tpm.Public
	// Checkpoint is where the last authentic Evidence of this node ended; nil at the first.
	Checkpoint *Checkpoint
	// Now is the time of the appraisal.
	Now time.Time
	// EventLog and Facts fetch what the document left out as unchanged, by digest; they are called only when it is needed. Nil: there
	// is nothing to fetch from.
	EventLog func(digest []byte) ([]byte, error)
	Facts    func(digest []byte) (map[string][]byte, error)
	// AssetTag is what was issued for the node's TPM; nil when nothing was, or offline.
	AssetTag *AssetTag
	// Detections are those that count of the node, the worst first; it is called after Audit, once. Nil offline.
	Detections func() claims.Detections
	// DiskKeys is what AIAS knows of the keys that open the volumes of the node; nil offline.
	DiskKeys *claims.DiskKeys
	// Audit compares a statement with the audit events that are here; it is called with nil for Evidence without one, and never for Evidence that
	// is not authentic. Nil offline.
	Audit func(*claims.Quote, *evidence.AuditStatement) claims.Audit
	// Compliance is the newest compliance scan of the node; nil when there is none, or offline. Challenged is when AIAS issued the challenge.
	Compliance *claims.Compliance
	Challenged time.Time
}

// Outcome is what one appraisal gives. The verdict is shared with other nodes and must not be changed.
type Outcome struct {
	Verdict *appraisal.Verdict
	// Authentic is false when the quote, the key, the nonce or the counters did not hold: then nothing was learnt about the worker, and
	// Checkpoint is the one that was expected.
	Authentic bool
	// Checkpoint is where the next Evidence may go on.
	Checkpoint *Checkpoint
	// Snapshot names the policy and references that judged.
	Snapshot string
	// Quote is what the TPM said; zero when not Authentic.
	Quote claims.Quote
	// AssetTag says how the worker stands to its asset tag; zero when not Authentic.
	AssetTag claims.AssetTag
	// Statement is what the agent stated; nil when it stated nothing, or not Authentic.
	Statement *evidence.Statement
	// Latch is what the quotes say of tpm.LatchPCR; zero when not Authentic.
	Latch tpm.LatchState
}

// Checkpoint is what the Verifier keeps of a node between attestations: small, and worthless to anyone else.
type Checkpoint struct {
	Snapshot     string `cbor:"1,keyasint"` // policy and references that judged what came before
	Clock        uint64 `cbor:"2,keyasint"`
	ResetCount   uint32 `cbor:"3,keyasint"`
	RestartCount uint32 `cbor:"4,keyasint"`
	Firmware     uint64 `cbor:"5,keyasint"`
	LogDigest    []byte `cbor:"6,keyasint,omitempty"`
	FactsDigest  []byte `cbor:"7,keyasint,omitempty"`
	IMAOffset    uint64 `cbor:"8,keyasint"` // bytes of the IMA list verified so far in this boot
	// State is the replay state of the IMA list and what the runtime rules judged so far, opaque.
	State []byte `cbor:"9,keyasint,omitempty"`
}
