package protocol

import (
	"time"

	"touchstone.dev/touchstone/internal/compliance/verdict"
)

// Paths of compliance scans.
const (
	PathCompliance     = "/v1/compliance"                   // POST ComplianceReport, node certificate -> ComplianceAnswer
	PathTailoring      = "/v1/compliance/tailoring"         // GET, node certificate -> Tailoring
	PathNodeCompliance = "/v1/nodes/{node}/compliance"      // GET -> NodeCompliance
	PathNodeScan       = "/v1/nodes/{node}/compliance/scan" // POST: ask the node for a scan -> ScanRequest
)

// Limits on a ComplianceReport beside that on the request.
const (
	MaxRuleWords = 512  // rules with words
	MaxWords     = 2048 // bytes of a title or a remediation
	MaxScanError = 1000 // bytes
)

// ComplianceReport is what a node sends after a scan. AIAS reads the result itself.
type ComplianceReport struct {
	// TestResult is the XCCDF TestResult, alone, compressed (gzip); empty when the scan came to no result.
	TestResult []byte `json:"testResult,omitempty"`
	Content    string `json:"content,omitempty"`   // SHA-256 of the data stream, hexadecimal
	Tailoring  string `json:"tailoring,omitempty"` // SHA-256 of the tailoring; empty: none
	Tool       string `json:"tool,omitempty"`      // version of oscap
	// Words are titles and remediations, from the content, of rules that did not pass.
	Words map[string]verdict.Words `json:"words,omitempty"`
	// Error says why there is no result; At is when.
	Error string    `json:"error,omitempty"`
	At    time.Time `json:"at"`
	// Asked is the number of the ScanRequest that this answers; 0: none.
	Asked int64 `json:"asked,omitempty"`
}

// ComplianceAnswer answers a ComplianceReport.
type ComplianceAnswer struct {
	Trusted bool   `json:"trusted"` // the node, judged again with the scan
	Summary string `json:"summary"`
	// Problems are what the policy finds wrong.
	Problems []string `json:"problems,omitempty"`
}

// Tailoring is what the policy in force changes of the profile that nodes are scanned by.
type Tailoring struct {
	Profile  string `json:"profile"`  // id of the changed profile, to scan by
	Document []byte `json:"document"` // XCCDF Tailoring
	SHA256   string `json:"sha256"`   // of the document, hexadecimal
}

// NodeCompliance is the newest compliance scan of a node.
type NodeCompliance struct {
	Node string        `json:"node"`
	Scan *verdict.Scan `json:"scan,omitempty"` // nil: none came to a result
	// Received is when AIAS got it; SHA256 that of the TestResult.
	Received time.Time `json:"received,omitzero"`
	SHA256   string    `json:"sha256,omitempty"`
	// Error is why the newest attempt, if it is newer than Scan, came to no result.
	Error   string    `json:"error,omitempty"`
	ErrorAt time.Time `json:"errorAt,omitzero"`
	// Problems, Waived and Within are what the policy in force says now: why the scan is not as demanded, and which rules that fail it accepts.
	Problems []verdict.Problem `json:"problems,omitempty"`
	Waived   []verdict.Problem `json:"waived,omitempty"`
	Within   []verdict.Problem `json:"within,omitempty"`
	// Drift is what changed since the scan before, which was at Before.
	Before time.Time        `json:"before,omitzero"`
	Drift  []verdict.Change `json:"drift,omitempty"`
	// Asked is when an operator asked for a scan that has not come yet.
	Asked time.Time `json:"asked,omitzero"`
	// Documents are kept of the newest scan that was asked for with them.
	Documents []ScanDocument `json:"documents,omitempty"`
}

// ScanRequest is a scan that was asked for; it reaches the node with its next challenge.
type ScanRequest struct {
	Node   string    `json:"node"`
	Number int64     `json:"number"`
	At     time.Time `json:"at"`
	// Documents says that ARF and HTML are to be kept.
	Documents bool `json:"documents,omitempty"`
}

// ScanTarget is what the agent of a node tells oscap that it scans, and what AIAS expects in the result.
func ScanTarget(node string) string { return "touchstone://node/" + node }
