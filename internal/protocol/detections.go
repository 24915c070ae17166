package protocol

import "time"

// Paths of detections: misuse that was found in the audit events of nodes.
const (
	PathDetections      = "/v1/detections"                            // GET -> DetectionList of all nodes
	PathNodeDetections  = "/v1/nodes/{node}/detections"               // GET -> DetectionList
	PathDetectionsClear = "/v1/nodes/{node}/detections/{which}/clear" // POST ClearRequest -> DetectionList: those that were cleared
)

// Detection is one that is kept of a node, and counts until it is cleared or over.
type Detection struct {
	Node       string    `json:"node"`
	ID         string    `json:"id"`
	Rule       string    `json:"rule"`
	Severity   string    `json:"severity"`
	Effect     string    `json:"effect"` // of the rule; the policy may give it another one
	What       string    `json:"what"`
	Who        string    `json:"who"`
	Techniques []string  `json:"techniques,omitempty"`
	Subject    string    `json:"subject,omitempty"`
	Count      uint64    `json:"count"`
	First      time.Time `json:"first"`
	Last       time.Time `json:"last"`
	Event      string    `json:"event"` // the last one
	Until      string    `json:"until"` // in words
	Ends       time.Time `json:"ends,omitzero"`
	Harmless   string    `json:"harmless,omitempty"`
	Remedy     string    `json:"remedy,omitempty"`
	Namespace  string    `json:"namespace,omitempty"`
	Pod        string    `json:"pod,omitempty"`
}

// DetectionList are detections, the worst first.
type DetectionList struct {
	Detections []Detection `json:"detections"`
}

// ClearRequest says why a detection no longer counts.
type ClearRequest struct {
	Reason string `json:"reason"`
}

// CauseAudit is the cause of a Change: something was found in the audit events of the node, or is over.
const CauseAudit = "audit"
