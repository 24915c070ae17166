package policy

import "time"

// Audit is what a worker must show of auditing (auditd), as part of level 5.
type Audit struct {
	// Mode says whether a worker must have its audit events chained and sent to AIAS; with any, who does so once must go on.
	Mode string `json:"mode,omitempty" words:"any required"`
	// Rules says what it costs when the loaded rules are not the intended ones.
	Rules string `json:"rules,omitempty" words:"fail warn any"`
	// Lost says what it costs when events were lost lately.
	Lost string `json:"lost,omitempty" words:"warn fail any"`
	// MaxSilence is how long a worker that sends audit events may send none; its agent writes one each minute, whatever happens.
	MaxSilence Duration `json:"maxSilence,omitempty"`
}

// minSilence is the shortest MaxSilence: two entries that are written whatever happens, and some time for their way.
const minSilence = 3 * time.Minute

func (a *Audit) fill() {
	if a.MaxSilence.Duration == 0 {
		a.MaxSilence.Duration = 10 * time.Minute
	}
}

func (a *Audit) validate(e *errs) {
	if a.MaxSilence.Duration < minSilence {
		e.add("runtime.audit.maxSilence is %s: want at least %s", a.MaxSilence, minSilence)
	}
}
