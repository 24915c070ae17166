package policy

import (
	"regexp"
	"slices"
)

// What a detection may do to level 5. The words of a severity: as its rule says; at least this; or nothing.
const (
	AsRule = "rule"
	Fail   = "fail"
	Warn   = "warn"
	Ignore = "ignore"
)

// Detections says what misuse that was found in audit events (auditd) costs, as part of level 5.
type Detections struct {
	Critical      string          `json:"critical,omitempty" words:"rule fail warn ignore"`
	High          string          `json:"high,omitempty" words:"rule fail warn ignore"`
	Medium        string          `json:"medium,omitempty" words:"rule fail warn ignore"`
	Low           string          `json:"low,omitempty" words:"rule fail warn ignore"`
	Informational string          `json:"informational,omitempty" words:"rule fail warn ignore"`
	Rules         []DetectionRule `json:"rules,omitempty"` // single rules, before what their severity says
}

// DetectionRule gives one rule another effect.
type DetectionRule struct {
	Rule   string `json:"rule"`
	Effect string `json:"effect"`
	Reason string `json:"reason,omitempty"` // for the next person
}

// Effect returns what a detection of a rule costs: Fail, Warn or Ignore. own is what the rule says ("fail", "warn", "none").
func (d *Detections) Effect(rule, severity, own string) string {
	if i := slices.IndexFunc(d.Rules, func(r DetectionRule) bool { return r.Rule == rule }); i >= 0 {
		return d.Rules[i].Effect
	}
	word := map[string]string{"critical": d.Critical, "high": d.High, "medium": d.Medium, "low": d.Low, "informational": d.Informational}[severity]
	switch {
	case word == Fail || word == Warn || word == Ignore:
		return word
	case own == Fail || own == Warn:
		return own
	case own == "none":
		return Ignore
	}
	return Fail // a severity or an effect that nobody knows
}

var detectionRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

func (d *Detections) validate(e *errs) {
	seen := map[string]bool{}
	for _, r := range d.Rules {
		switch {
		case !detectionRule.MatchString(r.Rule) || seen[r.Rule]:
			e.add("runtime.detections.rules: %q is no name of a rule, or is there twice", r.Rule)
		case r.Effect != Fail && r.Effect != Warn && r.Effect != Ignore:
			e.add("runtime.detections.rules: effect %q of rule %s: want fail, warn or ignore", r.Effect, r.Rule)
		}
		seen[r.Rule] = true
	}
}
