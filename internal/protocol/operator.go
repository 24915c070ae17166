package protocol

import (
	"encoding/json"
	"time"
)

// Paths of the API for operators (client certificate of an operator), and of certificate renewal (client certificate of a node).
// {node}, {id}, {which} and {sha256} are path parameters.
const (
	PathRenew      = "/v1/renew"                         // POST RenewRequest, node certificate -> Renewal
	PathNodes      = "/v1/nodes"                         // GET -> NodeList
	PathNode       = "/v1/nodes/{node}"                  // GET -> Node; DELETE
	PathVerdict    = "/v1/nodes/{node}/verdict"          // GET -> Report
	PathResult     = "/v1/nodes/{node}/result"           // GET -> SignedResult
	PathNodeLog    = "/v1/nodes/{node}/history"          // GET ?limit= ?before= -> History
	PathEvidence   = "/v1/nodes/{node}/evidence/{which}" // GET -> Evidence document (CBOR); which: last-good, first-bad, last
	PathRebind     = "/v1/nodes/{node}/rebind"           // POST RebindRequest
	PathHistory    = "/v1/history"                       // GET ?limit= ?before= -> History of all nodes
	PathTags       = "/v1/nodes/{node}/tags"             // GET -> TagState; PUT TagRequest -> TagState; DELETE
	PathResults    = "/v1/results"                       // GET -> server-sent events, data: NodeResult; relying parties, too
	PathEvents     = "/v1/events"                        // GET -> server-sent events, data: Change; Last-Event-ID replays
	PathTokens     = "/v1/tokens"                        // GET -> TokenList; POST TokenRequest -> NewToken
	PathToken      = "/v1/tokens/{id}"                   // DELETE
	PathPolicy     = "/v1/policy"                        // GET -> YAML; PUT YAML -> Snapshot
	PathReferences = "/v1/references"                    // GET -> ReferenceList
	PathReload     = "/v1/reload"                        // POST: read policy and references again -> Snapshot
	PathEKs        = "/v1/eks"                           // GET -> EKList; POST EK
	PathEK         = "/v1/eks/{sha256}"                  // DELETE
	PathActs       = "/v1/acts"                          // GET ?limit= -> ActList: what operators did

	PathKeys       = "/v1/keys"        // GET -> KeyList: key-encryption keys
	PathKeysRotate = "/v1/keys/rotate" // POST -> KeyRotation

	// The ledger (C2SP tlog-tiles), for whoever verifies it.
	PathLedgerKey        = "/v1/ledger/key"            // GET -> verifier key of its checkpoints
	PathLedgerCheckpoint = "/v1/ledger/checkpoint"     // GET -> signed note
	PathLedgerTile       = "/v1/ledger/tile/{tile...}" // GET -> hashes or entries
)

// Paths that need no certificate.
const (
	PathHealth  = "/healthz"
	PathReady   = "/readyz"
	PathMetrics = "/metrics"
	PathJWKS    = "/.well-known/jwks.json"
	PathOpenAPI = "/openapi.json"
)

// What AIAS says of a node in one word.
const (
	Trusted   = "trusted"
	Untrusted = "untrusted" // judged and fallen, or silent for longer than its result lives
	Unknown   = "unknown"   // enrolled, and no Evidence yet
)

// Node is what an operator sees of a node.
type Node struct {
	Name   string      `json:"name"`
	Trust  string      `json:"trust"`            // Trusted, Untrusted or Unknown
	Reason string      `json:"reason,omitempty"` // one line: why it is not trusted
	Levels []LevelInfo `json:"levels,omitempty"` // five, in order; none before the first Evidence
	Since  time.Time   `json:"since,omitzero"`   // last change of the verdict
	// Attested is when the last Evidence was judged; Expires is when that verdict ends.
	Attested time.Time `json:"attested,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	Enrolled time.Time `json:"enrolled"`
	// EKSHA256 is the SHA-256 of the DER public key (SubjectPublicKeyInfo) of the endorsement key; AKName the TPM Name of the attestation
	// key. Both hexadecimal.
	EKSHA256 string `json:"ekSHA256"`
	EKCert   string `json:"ekCert"` // how the TPM was recognised: issuer of the EK certificate, or "allow-list"
	AKName   string `json:"akName"`
	// SoftwareTPM is set when the EK was vouched for only by softwareTPMRoots: the node's TPM is a program that can be copied.
	SoftwareTPM  bool   `json:"softwareTPM,omitempty"`
	Agent        string `json:"agent,omitempty"` // version
	ResetCount   uint32 `json:"resetCount,omitempty"`
	RestartCount uint32 `json:"restartCount,omitempty"`
	IMABytes     uint64 `json:"imaBytes,omitempty"` // verified bytes of the IMA list in this boot
	Snapshot     string `json:"snapshot,omitempty"` // policy and references that judged
	// RebindUntil is set while an operator allows another TPM to take this name.
	RebindUntil time.Time `json:"rebindUntil,omitzero"`
	// Tags are the asset tags as set last, TagsProven whether the node's TPM has certified that it holds them. TagSerial counts their changes.
	Tags       map[string]string `json:"tags,omitempty"`
	TagsProven bool              `json:"tagsProven,omitempty"`
	TagSerial  uint64            `json:"tagSerial,omitempty"`
}

// NodeList answers PathNodes, sorted by name.
type NodeList struct {
	Nodes []Node `json:"nodes"`
}

// Report is the whole verdict on a node: what `touchstone why` prints.
type Report struct {
	Node Node `json:"node"`
	// Verdict is an appraisal.Verdict; null before the first Evidence.
	Verdict json.RawMessage `json:"verdict"`
	// Notes say what AIAS itself adds: that the verdict expired, that the TPM is software.
	Notes []string `json:"notes,omitempty"`
}

// SignedResult is the last signed Attestation Result of a node.
type SignedResult struct {
	Node    string    `json:"node"`
	Result  string    `json:"result"` // JWT (package result)
	Expires time.Time `json:"expires"`
}

// NodeResult is one event of the stream of signed results. The stream begins with one for each enrolled node, then an event "synced" with
// no data; after it comes one whenever a node gets a new result, falls, or is removed. A slow reader skips to the newest of each node.
type NodeResult struct {
	Node string `json:"node"`
	// Result is the signed Attestation Result (JWT); empty before the first one. An untrusted node has one, too: it says so.
	Result string `json:"result,omitempty"`
	// Trust and Reason are those of Node: what the result cannot say, such as that it was not renewed.
	Trust   string `json:"trust,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Removed bool   `json:"removed,omitempty"` // the node is not enrolled any more
}

// TagRequest sets the asset tags of a node; they replace what it had.
type TagRequest struct {
	Tags map[string]string `json:"tags"`
}

// TagState says which asset tags a node should have, and what its TPM has proven.
type TagState struct {
	Node   string            `json:"node"`
	Tags   map[string]string `json:"tags"`             // as set last
	Serial uint64            `json:"serial"`           // counts up with each change; 0 when there never were tags
	Proven bool              `json:"proven"`           // the TPM has certified that it holds this serial
	Reason string            `json:"reason,omitempty"` // why not
}

// Causes of a Change.
const (
	CauseEnrolment  = "enrolment"  // the node enrolled, again or for the first time
	CauseEvidence   = "evidence"   // new Evidence was judged
	CauseExpiry     = "expiry"     // the node fell silent
	CauseCompliance = "compliance" // a compliance scan came in, and kept Evidence was judged again with it
	CausePolicy     = "policy"     // policy or references changed, and kept Evidence was judged again
	CauseOperator   = "operator"   // an operator removed the node or let its name go to another TPM
)

// Change is one entry of the history: the verdict on a node became another one.
type Change struct {
	ID       int64       `json:"id"` // ascending over all nodes
	Node     string      `json:"node"`
	At       time.Time   `json:"at"`
	Cause    string      `json:"cause"`
	From     string      `json:"from"` // Trusted, Untrusted, Unknown, or "" for a new node
	To       string      `json:"to"`   // the same; "" for a removed node
	Reason   string      `json:"reason,omitempty"`
	Levels   []LevelInfo `json:"levels,omitempty"`
	Snapshot string      `json:"snapshot,omitempty"`
}

// History answers PathHistory and PathNodeLog, newest first.
type History struct {
	Changes []Change `json:"changes"`
}

// TokenRequest asks for a join token.
type TokenRequest struct {
	Node     string `json:"node,omitempty"`     // only for this node name
	EKSHA256 string `json:"ekSHA256,omitempty"` // only for this EK (hexadecimal, as in Node)
	Uses     int    `json:"uses,omitempty"`     // how often it works; 0 means once
	Seconds  int64  `json:"seconds,omitempty"`  // how long it works; 0 means one hour
	Note     string `json:"note,omitempty"`
}

// NewToken is a join token with its secret, which is shown this once only.
type NewToken struct {
	Token
	Secret string `json:"token"` // what the node presents in EnrolRequest.Token
}

// Token is a join token as the list shows it.
type Token struct {
	ID       string    `json:"id"`
	Node     string    `json:"node,omitempty"`
	EKSHA256 string    `json:"ekSHA256,omitempty"`
	Left     int       `json:"left"` // uses left
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	Note     string    `json:"note,omitempty"`
}

// TokenList answers PathTokens.
type TokenList struct {
	Tokens []Token `json:"tokens"`
}

// RebindRequest lets another TPM take a node name, for a limited time.
type RebindRequest struct {
	EKSHA256 string `json:"ekSHA256,omitempty"` // only that TPM; empty means any that enrolment accepts
	Seconds  int64  `json:"seconds,omitempty"`  // 0 means one hour
}

// EK is an entry of the allow-list: an endorsement key that is accepted without a certificate chain.
type EK struct {
	SHA256 string    `json:"sha256"` // of the DER SubjectPublicKeyInfo, hexadecimal
	Note   string    `json:"note,omitempty"`
	Added  time.Time `json:"added,omitzero"`
	File   bool      `json:"file,omitempty"` // from the file in the configuration: cannot be removed through the API
}

// EKList answers PathEKs.
type EKList struct {
	EKs []EK `json:"eks"`
}

// Snapshot names the policy and references that judge from now on.
type Snapshot struct {
	ID       string    `json:"id"`
	Loaded   time.Time `json:"loaded"`
	Pending  int       `json:"pending"` // nodes that are still to be judged again
	Warnings []string  `json:"warnings,omitempty"`
}

// Reference is one imported source in short.
type Reference struct {
	Kind     string    `json:"kind"`
	Name     string    `json:"name"`
	Version  string    `json:"version,omitempty"`
	SHA256   string    `json:"sha256,omitempty"`
	Imported time.Time `json:"imported,omitzero"`
	Note     string    `json:"note,omitempty"`
}

// ReferenceList answers PathReferences.
type ReferenceList struct {
	Snapshot   Snapshot    `json:"snapshot"`
	References []Reference `json:"references"`
}

// Act is one thing an operator did.
type Act struct {
	ID       int64     `json:"id"`
	At       time.Time `json:"at"`
	Operator string    `json:"operator"`
	Act      string    `json:"act"`    // "token.create", "node.delete", ...
	Object   string    `json:"object"` // node name, token id, EK hash
	Detail   string    `json:"detail,omitempty"`
}

// ActList answers PathActs, newest first.
type ActList struct {
	Acts []Act `json:"acts"`
}

// RenewRequest asks for a new client certificate for the key of the present one.
type RenewRequest struct {
	CSR []byte `json:"csr"` // PKCS #10, DER
	// Boot asks for one that an initramfs keeps: good for attesting and nothing else, and valid for long, because nobody renews it there.
	Boot bool `json:"boot,omitempty"`
}

// Renewal is the new client certificate.
type Renewal struct {
	Certificate string    `json:"certificate"` // with its chain, PEM
	CA          string    `json:"ca"`          // root certificate of AIAS, PEM
	Expires     time.Time `json:"expires"`
}

// OperatorBundle is the file an operator's client reads: where AIAS is, how to recognise it, and the operator's own certificate.
type OperatorBundle struct {
	Server      string `json:"server"`      // "https://aias.example:8443"
	CA          string `json:"ca"`          // PEM
	Certificate string `json:"certificate"` // PEM, with its chain
	Key         string `json:"key"`         // PEM, PKCS #8
}
