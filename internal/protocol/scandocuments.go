package protocol

import "time"

// Paths of what oscap writes beside the TestResult, which is kept only when an operator asks for it with a scan.
const (
	PathScanDocument     = "/v1/compliance/documents/{kind}"              // PUT, node certificate, before the report of the scan
	PathNodeScanDocument = "/v1/nodes/{node}/compliance/documents/{kind}" // GET
)

// MediaTypeScanDocument is how documents of scans travel and are kept.
const MediaTypeScanDocument = "application/gzip"

// Limits on a document of a scan, in bytes: as it travels, and opened.
const (
	MaxScanDocument     = 16 << 20
	MaxScanDocumentOpen = 512 << 20
)

// Kinds of documents of a scan.
const (
	DocumentARF  = "arf"  // whole results (Asset Reporting Format)
	DocumentHTML = "html" // report for people
)

// ScanDocument is a document of a scan that AIAS keeps.
type ScanDocument struct {
	Kind     string    `json:"kind"`
	Bytes    int64     `json:"bytes"` // compressed
	Received time.Time `json:"received"`
}
