package claims

import (
	"fmt"
	"strings"
	"time"
)

// Detection is misuse that AIAS found in the audit events of a worker, and that still counts. The events are the worker's: claimed.
type Detection struct {
	ID         string // names it among those of the worker
	Rule       string
	Severity   string // critical, high, medium, low or informational
	Effect     string // of the rule: fail, warn or none
	What       string // title of the rule, with what it was about
	Who        string // program, user, pod
	Techniques []string
	Count      uint64
	First      time.Time
	Last       time.Time
	Event      string // the last one: "1795000336.990:769606"
	Until      string // in words
	Harmless   string // what else may have caused it
	Remedy     string
}

// Detections are those that count, the worst first.
type Detections []Detection

// Text tells one set of detections from another; empty for none.
func (d Detections) Text() string {
	var b strings.Builder
	for i := range d {
		fmt.Fprintf(&b, "%q\n", fmt.Sprint(d[i]))
	}
	return b.String()
}
