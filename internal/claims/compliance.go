package claims

import (
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
}
