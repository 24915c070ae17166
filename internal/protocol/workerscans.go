package protocol

import "time"

// Paths of scans of images by workers.
const (
	PathScanClaim = "/v1/scans/claim"  // POST ScanClaim, node certificate -> ScanLease
	PathScanImage = "/v1/scans/images" // POST WorkerScan, node certificate -> ImageResult
)

// MaxClaimed is how many images a ScanClaim may name.
const MaxClaimed = 1000

// ScanClaim asks which image to scan next.
type ScanClaim struct {
	Profile   string `json:"profile"`
	Content   string `json:"content"` // SHA-256 of the data stream, hexadecimal
	Tailoring string `json:"tailoring,omitempty"`
	// Feed says that the worker also holds images against a feed of vulnerabilities.
	Feed bool `json:"feed,omitempty"`
	// Images are what the worker has and can scan, those first that run.
	Images []ClaimedImage `json:"images"`
}

// ClaimedImage is an image by its digests.
type ClaimedImage struct {
	Manifest string `json:"manifest"` // of the image for the worker's platform, not of an index
	Config   string `json:"config"`
}

// ScanLease gives an image to one worker to scan, until Until; without an image there is nothing to do now, and Reason says why if that should not be so.
type ScanLease struct {
	Image  ClaimedImage `json:"image,omitzero"`
	Until  time.Time    `json:"until,omitzero"`
	Reason string       `json:"reason,omitempty"`
}

// WorkerScan is what came of a lease.
type WorkerScan struct {
	Image ClaimedImage `json:"image"`
	// Report is what was found; nil: Error says why nothing was.
	Report *ImageReport `json:"report,omitempty"`
	Error  string       `json:"error,omitempty"`
	// From is where the root was read: ScannedLayers, or ScannedSnapshot.
	From string `json:"from,omitempty"`
}

// ScanTaken answers a WorkerScan.
type ScanTaken struct {
	Summary string `json:"summary,omitempty"` // of what AIAS read in the result; empty: there was none
}

// Where a worker reads the root of an image.
const (
	ScannedLayers   = "layers"   // the layers, each checked against its digest
	ScannedSnapshot = "snapshot" // what the runtime has unpacked, below a running container: not checked against digests
)

// ScanWorker is what AIAS knew of a worker when it took the worker's scan of an image.
type ScanWorker struct {
	Node        string      `json:"node"`
	Levels      []LevelInfo `json:"levels"`
	SoftwareTPM bool        `json:"softwareTPM,omitempty"`
	From        string      `json:"from"`
}

// ByWorker is how an ImageResult names a worker as its sender: no operator has a slash in the name.
func ByWorker(node string) string { return "node/" + node }
