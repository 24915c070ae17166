package appraisal

// Status is what a rule or a level says.
type Status string

// The statuses, from best to worst. The zero value is not a status; it counts as unknown.
const (
	Pass    Status = "pass"
	Warn    Status = "warn"    // worth a look; does not cost trust
	Unknown Status = "unknown" // cannot be known from this Evidence; costs trust unless the policy allows it
	Fail    Status = "fail"
)

// Verdict is the outcome of one appraisal.
type Verdict struct {
	Trusted bool    `json:"trusted"`
	Levels  []Level `json:"levels"` // always five, in order
}

// Level is the verdict of one of the five levels: the worst of its findings.
type Level struct {
	Level    int       `json:"level"` // 1 to 5
	Name     string    `json:"name"`
	Status   Status    `json:"status"`
	Findings []Finding `json:"findings"`
}

// Finding is what one rule saw.
type Finding struct {
	Rule       string `json:"rule"` // stable name: "kernel.command-line"
	Status     Status `json:"status"`
	Provenance string `json:"provenance"` // "proven", "claimed" or "unknown"
	Message    string `json:"message"`
	Event      *Event `json:"event,omitempty"`
	Expected   string `json:"expected,omitempty"`
	Observed   string `json:"observed,omitempty"`
	Cause      string `json:"cause,omitempty"`
	Remedy     string `json:"remedy,omitempty"`
}

// Event points at the entry of a log that a finding is about.
type Event struct {
	Log         string `json:"log"`   // "firmware" or "ima"
	Index       int    `json:"index"` // counted from 0
	PCR         int    `json:"pcr"`
	Type        string `json:"type,omitempty"`
	Description string `json:"description,omitempty"`
}

// LevelNames are the names of the five levels, level 1 first.
var LevelNames = [5]string{"firmware", "secure-boot", "boot-loader", "kernel", "runtime"}

// Reason returns the message of the worst finding of the level, or "" when all pass.
func (l *Level) Reason() string {
	for _, want := range []Status{Fail, Unknown, Warn} {
		for i := range l.Findings {
			if l.Findings[i].Status == want {
				return l.Findings[i].Message
			}
		}
	}
	return ""
}
