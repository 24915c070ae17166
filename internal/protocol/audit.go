package protocol

import "time"

// Paths of audit events.
const (
	PathAudit       = "/v1/audit"                     // GET -> AuditAck; POST MediaTypeAudit ?lost= -> AuditAck; client certificate of a node
	PathNodeAudit   = "/v1/nodes/{node}/audit"        // GET -> AuditReport
	PathAuditEvents = "/v1/nodes/{node}/audit/events" // GET ?since= ?until= ?last= ?follow= -> MediaTypeAuditStream
	PathAuditAccept = "/v1/nodes/{node}/audit/accept" // POST -> AuditReport
)

// Media types of audit events: one batch (chain.Pack), and many of them, each behind its length (4 bytes, big endian) and the time when it
// was received (8 bytes, nanoseconds since 1970).
const (
	MediaTypeAudit       = "application/vnd.touchstone.audit"
	MediaTypeAuditStream = "application/vnd.touchstone.audit-stream"
)

// Types of refusals of audit events.
const (
	ProblemAuditBehind = "urn:touchstone:problem:audit-behind" // Audit says from where on to send
	ProblemAuditFork   = "urn:touchstone:problem:audit-fork"   // the batch contradicts what AIAS has: begin a new chain
)

// AuditAck says up to where AIAS has the audit chain of a node, for good.
type AuditAck struct {
	Chain string `json:"chain"` // hexadecimal, as Head; both of zeros when there is nothing
	Seq   uint64 `json:"seq"`
	Head  string `json:"head"`
	// Attest asks the node to attest soon, so that its TPM signs what AIAS has just found.
	Attest bool `json:"attest,omitempty"`
}

// AuditReport is where the audit chain of a node stands.
type AuditReport struct {
	Node     string    `json:"node"`
	At       AuditAck  `json:"at"`
	Received time.Time `json:"received,omitzero"` // when the last entry came
	Bytes    int64     `json:"bytes"`             // on disk
	// Cut is where the archive begins, when older entries were removed.
	Cut *AuditAck `json:"cut,omitempty"`
	// Stated is the newest head that the node's TPM signed, at StatedAt; Waiting how many signed heads have no entries here yet.
	Stated   *AuditAck      `json:"stated,omitempty"`
	StatedAt time.Time      `json:"statedAt,omitzero"`
	Waiting  int            `json:"waiting,omitempty"`
	Lost     uint64         `json:"lost,omitempty"` // records that the kernel lost in the last hour
	Gaps     uint64         `json:"gaps,omitempty"` // in the chain, in the last hour
	Findings []AuditFinding `json:"findings,omitempty"`
}

// AuditFinding is something that an honest worker does not do.
type AuditFinding struct {
	Kind     string    `json:"kind"` // fork, restart, hole, rolled-back, boot or tpm-reset
	At       time.Time `json:"at"`
	Seq      uint64    `json:"seq"`
	Last     uint64    `json:"last,omitempty"`
	Expected string    `json:"expected,omitempty"`
	Observed string    `json:"observed,omitempty"`
	Accepted time.Time `json:"accepted,omitzero"`
	By       string    `json:"by,omitempty"`
}
