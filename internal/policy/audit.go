package policy

// Audit is what a worker must show of auditing (auditd), as part of level 5.
type Audit struct {
	// Mode says whether a worker must have its audit events chained and sent to AIAS; with any, who does so once must go on.
	Mode string `json:"mode,omitempty" words:"any required"`
	// Rules says what it costs when the loaded rules are not the intended ones.
	Rules string `json:"rules,omitempty" words:"fail warn any"`
	// Lost says what it costs when events were lost lately.
	Lost string `json:"lost,omitempty" words:"warn fail any"`
}
