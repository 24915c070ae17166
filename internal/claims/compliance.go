package claims

import (
	"encoding/hex"
	"time"

	"touchstone.dev/touchstone/internal/compliance/verdict"
)

// Compliance is the newest compliance scan that a node sent. It is claimed: AIAS reads the result itself, but the agent ran the scan.
type Compliance struct {
	// ID changes with everything below.
	ID string
	// Scan is the newest that came to a result; nil when there is none.
	Scan *verdict.Scan
	// Error says why the newest scan, when it is newer than Scan, came to no result; it was at ErrorAt.
	Error   string
	ErrorAt time.Time
	// SHA256 is that of the TestResult of Scan, hexadecimal; Received is when it came.
	SHA256   string
	Received time.Time
	// Stated says whether the agent states this result, under the signature of the TPM.
	Stated ComplianceStated
}

// ComplianceStated is how what the agent states of its scans stands to the newest result that AIAS has.
type ComplianceStated string

// The states.
const (
	StatedNot   ComplianceStated = ""      // not compared: the result came after the challenge that the statement answers, or there is none
	StatedEqual ComplianceStated = "equal" // the agent names it
	StatedOther ComplianceStated = "other" // it names others
	StatedNone  ComplianceStated = "none"  // it names none
)

// Compare holds the newest result against what was stated in answer to a challenge of a time.
func (c *Compliance) Compare(stated map[string][]byte, challenged time.Time) *Compliance {
	if c == nil || c.Scan == nil || challenged.Before(c.Received.Add(receivedPrecision)) {
		return c
	}
	out := *c
	out.Stated = StatedOther
	if len(stated) == 0 {
		out.Stated = StatedNone
	}
	for _, digest := range stated {
		if hex.EncodeToString(digest) == c.SHA256 {
			out.Stated = StatedEqual
		}
	}
	return &out
}

// receivedPrecision is that of Compliance.Received.
const receivedPrecision = time.Second
