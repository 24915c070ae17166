// Package protocol holds the messages between the trust agent, AIAS and its operators: the JSON bodies of the HTTP API.
//
// Evidence itself travels as one CBOR document (package evidence) with media type MediaTypeEvidence; everything else is JSON.
// A refusal is a Problem (RFC 9457) that says what to do.
package protocol

import (
	"strings"
	"time"
	"unicode"
)

// Media types of the API.
const (
	MediaTypeEvidence = "application/vnd.touchstone.evidence+cbor"
	MediaTypeProblem  = "application/problem+json"
)

// Paths of the API that the agent uses.
const (
	PathEnrol     = "/v1/enrol"          // POST EnrolRequest -> EnrolChallenge
	PathActivate  = "/v1/enrol/activate" // POST EnrolProof -> Enrolment
	PathChallenge = "/v1/challenge"      // GET, client certificate -> Challenge
	PathAttest    = "/v1/attest"         // POST Evidence, client certificate -> Attestation
	PathNews      = "/v1/news"           // GET ?tag= ?seconds=, client certificate -> News, at once when there is any, else after that time
)

// Problem is a refusal (RFC 9457, problem details).
type Problem struct {
	Type   string `json:"type"` // stable word: "urn:touchstone:problem:stale-challenge"
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Remedy string `json:"remedy,omitempty"`
	// Challenge lets an agent whose challenge was stale or whose resume point was lost go on in one more round trip.
	Challenge *Challenge `json:"challenge,omitempty"`
	// Audit is where AIAS stands, when audit events did not fit.
	Audit *AuditAck `json:"audit,omitempty"`
}

// ProblemNotEnrolled is the Type of the refusal of a node that AIAS has no record of: it was removed, or AIAS has lost its data.
const ProblemNotEnrolled = "urn:touchstone:problem:not-enrolled"

// Error makes a Problem usable as an error.
func (p *Problem) Error() string {
	s := line(p.Title)
	if p.Detail != "" {
		s += ": " + line(p.Detail)
	}
	if p.Remedy != "" {
		s += " (" + line(p.Remedy) + ")"
	}
	return s
}

// maxLine bounds what Error shows of one field, in bytes.
const maxLine = 2000

// line makes what another program said fit for a terminal: bounded, and of control characters only line ends.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r), r == '\n':
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return -1
	}, strings.ToValidUTF8(s[:min(len(s), maxLine)], ""))
}

// EnrolRequest asks for enrolment: a node name, what proves the right to it, and the public halves of the TPM's keys.
type EnrolRequest struct {
	Node      string   `json:"node"`
	Token     string   `json:"token"`
	EKPublic  []byte   `json:"ekPublic"`          // TPMT_PUBLIC of the endorsement key
	EKCerts   [][]byte `json:"ekCerts,omitempty"` // DER, EK certificate first, then intermediates; never a root
	AKPublic  []byte   `json:"akPublic"`          // TPMT_PUBLIC of the attestation key
	TLSPublic []byte   `json:"tlsPublic"`         // TPMT_PUBLIC of the key of the client certificate
	Agent     string   `json:"agent,omitempty"`   // version of the agent
}

// EnrolChallenge is a credential that only the TPM with that EK and AK can open (TPM2_ActivateCredential).
type EnrolChallenge struct {
	Session    string `json:"session"`    // opaque, sealed by AIAS: any replica can go on
	Credential []byte `json:"credential"` // TPM2B_ID_OBJECT
	Secret     []byte `json:"secret"`     // TPM2B_ENCRYPTED_SECRET
}

// EnrolProof shows the opened credential, and that the TLS key lives in the same TPM: TPM2_Certify over it by the AK, with the
// opened secret's SHA-256 as qualifying data.
type EnrolProof struct {
	Session   string `json:"session"`
	Secret    []byte `json:"secret"`    // as TPM2_ActivateCredential returned it
	Certify   []byte `json:"certify"`   // TPMS_ATTEST of TPM2_Certify
	Signature []byte `json:"signature"` // TPMT_SIGNATURE over it by the AK
	CSR       []byte `json:"csr"`       // PKCS #10, DER, signed by the TLS key; the subject is ignored
}

// Enrolment is what an enrolled node keeps.
type Enrolment struct {
	Node          string    `json:"node"`
	Certificate   string    `json:"certificate"`   // client certificate with its chain, PEM
	AKCertificate string    `json:"akCertificate"` // PEM
	CA            string    `json:"ca"`            // root certificate of AIAS, PEM
	Challenge     Challenge `json:"challenge"`
}

// Challenge is what the next Evidence must answer, and from where on AIAS needs the logs.
type Challenge struct {
	Nonce   []byte    `json:"nonce"`   // qualifying data of the next quotes
	Expires time.Time `json:"expires"` // the nonce is refused after it
	// Quote says which banks and PCRs to quote. An agent leaves out banks that its TPM does not have, and refuses when none is left.
	Quote []Selection `json:"quote"`
	// EventLogDigest is the SHA-256 of the firmware log that AIAS already has from this node: an equal log need not be sent.
	EventLogDigest []byte `json:"eventLogDigest,omitempty"`
	// FactsDigest is the digest of the facts that AIAS already has from this node (evidence.Document.FactsDigest).
	FactsDigest []byte `json:"factsDigest,omitempty"`
	// IMAOffset is the byte offset in the IMA list up to which AIAS has verified it in the boot named by ResetCount and RestartCount.
	IMAOffset    uint64 `json:"imaOffset,omitempty"`
	ResetCount   uint32 `json:"resetCount,omitempty"`
	RestartCount uint32 `json:"restartCount,omitempty"`
	// Interval is after how many seconds the agent attests again when nothing changes.
	Interval int `json:"interval"`
	// AssetTag is what the node's TPM must hold and certify with the Evidence; nil when the node never had tags.
	AssetTag *AssetTag `json:"assetTag,omitempty"`
	// Scan is the number of a compliance scan that an operator waits for; 0: nobody does.
	Scan int64 `json:"scan,omitempty"`
	// ScanDocuments says that the operator wants the documents of that scan too (PathScanDocument).
	ScanDocuments bool `json:"scanDocuments,omitempty"`
	// Tailoring is the SHA-256 of the tailoring by which the policy wants compliance scans made (PathTailoring), hexadecimal; empty: of none.
	Tailoring string `json:"tailoring,omitempty"`
}

// AssetTag is the newest asset tag of a node, as its TPM keeps it.
type AssetTag struct {
	Serial uint64 `json:"serial"`
	// Record is the content of the NV index (package assettag); empty when the tags were taken away: then the index is removed.
	Record []byte `json:"record,omitempty"`
	// Proven says that the TPM has certified this record before. Then the agent writes nothing and certifies what the index holds, so that a change
	// by somebody else is seen before it is mended.
	Proven bool `json:"proven,omitempty"`
}

// News answers PathNews.
type News struct {
	Attest bool `json:"attest"` // AIAS has something new: attest now
}

// Selection names PCRs of one bank.
type Selection struct {
	Bank string `json:"bank"` // "sha256"
	PCRs []int  `json:"pcrs"`
}

// Attestation is the answer to Evidence that could be read, trusted or not.
type Attestation struct {
	Trusted bool        `json:"trusted"`
	Levels  []LevelInfo `json:"levels"`
	Result  string      `json:"result"` // signed Attestation Result, a JWT
	Expires time.Time   `json:"expires"`
	Next    Challenge   `json:"next"`
	// Disks is whether the node's disks would open now; nil when they do not hang on its boot.
	Disks *DiskAnswer `json:"disks,omitempty"`
}

// LevelInfo is one level's verdict in one line.
type LevelInfo struct {
	Level  int    `json:"level"`
	Name   string `json:"name"`
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}
