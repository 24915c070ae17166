package protocol

import (
	"time"

	"touchstone.dev/touchstone/internal/compliance/verdict"
)

// Paths of scans of images. {digest} is that of a manifest or of a configuration, "sha256:" and 64 hexadecimal digits.
const (
	PathImages = "/v1/images"          // GET -> ImageResultList; relying parties, too
	PathImage  = "/v1/images/{digest}" // GET -> ImageResultList: one for each profile; relying parties, too. PUT ImageReport -> ImageResult
)

// Limits of an ImageReport beside that on the request.
const (
	MaxImageReport = 4 << 20 // bytes of the request
	MaxImageFlaws  = 10_000
)

// ImageReport is what somebody sends who scanned an image. AIAS reads the TestResult itself; its target must be the image.
type ImageReport struct {
	Manifest string `json:"manifest,omitempty"` // digest; empty: the image has none (an archive of docker)
	Config   string `json:"config"`             // digest
	Platform string `json:"platform,omitempty"`
	// TestResult is the XCCDF TestResult, alone, compressed (gzip); empty: there was no scan by a profile.
	TestResult []byte `json:"testResult,omitempty"`
	Content    string `json:"content,omitempty"`   // SHA-256 of the data stream, hexadecimal
	Tailoring  string `json:"tailoring,omitempty"` // SHA-256 of the tailoring; empty: none
	// Feed is what a feed of vulnerabilities says; nil: none was asked.
	Feed *ImageFeed `json:"feed,omitempty"`
	At   time.Time  `json:"at"`
}

// ImageFeed is what a feed of vulnerabilities says of an image.
type ImageFeed struct {
	SHA256   string      `json:"sha256"` // of the feed
	Made     time.Time   `json:"made"`   // by whoever publishes it
	Packages int         `json:"packages"`
	Judged   int         `json:"judged"`
	Flaws    []ImageFlaw `json:"flaws,omitempty"`
}

// ImageFlaw is a known vulnerability of an installed package.
type ImageFlaw = verdict.Flaw

// ImageResult is what AIAS keeps of the newest scan of an image.
type ImageResult struct {
	Manifest string        `json:"manifest,omitempty"`
	Config   string        `json:"config"`
	Platform string        `json:"platform,omitempty"`
	Scan     *verdict.Scan `json:"scan,omitempty"`
	Feed     *ImageFeed    `json:"feed,omitempty"`
	At       time.Time     `json:"at"`
	Received time.Time     `json:"received,omitzero"`
	By       string        `json:"by"` // who sent it; a worker by its name after "node/"
	// Worker is what AIAS knew of the worker that made the scan, then; nil: an operator sent it.
	Worker *ScanWorker `json:"worker,omitempty"`
	// Statement is a result.Image, signed by AIAS (JWT); in answers for one digest only.
	Statement string `json:"statement,omitempty"`
}

// ImageResultList answers PathImages, newest first, without rules and flaws one by one, and PathImage with them.
type ImageResultList struct {
	Images []ImageResult `json:"images"`
}

// ScanTargetImage is what whoever scans an image tells oscap that it scans, and what AIAS expects in the result.
func ScanTargetImage(digest string) string { return "oci://" + digest }

// Counts returns how many flaws there are of each severity.
func (f *ImageFeed) Counts() map[string]int { return verdict.Counts(f.Flaws) }
