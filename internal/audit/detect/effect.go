package detect

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/internal/audit/detect/sigma"
)

// What a detection does to level 5.
const (
	Fail = "fail"
	Warn = "warn"
	None = "none" // kept and shown; also what only lifts others
)

// Who ends a detection.
const (
	ByTime     = "time"     // it counts until `for` has passed since it was seen last
	ByOperator = "operator" // it counts until somebody has looked: touchstone audit clear
	ByFix      = "fixed"    // it counts until the cause is gone: a boot, or what another rule sees
)

// Boot in FixedBy stands for a new boot of the worker.
const Boot = "boot"

// Effect is our section of a rule ("touchstone:").
type Effect struct {
	Effect  string   `json:"effect"`
	Clears  string   `json:"clears"`
	For     string   `json:"for"`     // "24h"
	FixedBy []string `json:"fixedBy"` // boot, or names of rules
	// Subject are the fields that tell detections of the rule on one node apart; those with the same values are one that is counted.
	Subject []string `json:"subject"`
	Remedy  string   `json:"remedy"`
	// UserSpace lets the rule look at what programs claim (msg.NAME).
	UserSpace bool `json:"userspace"`

	lifetime time.Duration
}

// defaultEffect is that of rules without our section: those that an operator brings from elsewhere. Nothing fails that nobody asked to fail.
func defaultEffect(level string) Effect {
	e := Effect{Effect: Warn, Clears: ByTime, For: "24h"}
	if level == "informational" || level == "low" {
		e.Effect = None
	}
	return e
}

// maxSubject bounds the fields that make a subject.
const maxSubject = 4

func readEffect(d *sigma.Document) (*Effect, error) {
	e := defaultEffect(d.Level)
	if d.Custom != nil {
		e = Effect{}
		if err := yaml.UnmarshalStrict(d.Custom, &e); err != nil {
			return nil, fmt.Errorf("touchstone: %w", err)
		}
	}
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("touchstone: %w", err)
	}
	return &e, nil
}

func (e *Effect) check() (err error) {
	if e.For != "" {
		if e.lifetime, err = time.ParseDuration(e.For); err != nil || e.lifetime < time.Minute || e.lifetime > 366*24*time.Hour {
			return fmt.Errorf("for %q: want 1m to 8784h", e.For)
		}
	}
	switch {
	case e.Effect != Fail && e.Effect != Warn && e.Effect != None:
		return fmt.Errorf("effect %q: want fail, warn or none", e.Effect)
	case e.Clears != ByTime && e.Clears != ByOperator && e.Clears != ByFix:
		return fmt.Errorf("clears %q: want time, operator or fixed", e.Clears)
	case e.Clears == ByTime && e.lifetime == 0:
		return errors.New("clears: time needs for (how long)")
	case e.Clears != ByTime && e.For != "":
		return errors.New("for goes with clears: time only")
	case (e.Clears == ByFix) != (len(e.FixedBy) > 0):
		return errors.New("clears: fixed and fixedBy go together")
	case len(e.Subject) > maxSubject:
		return fmt.Errorf("at most %d fields make a subject", maxSubject)
	case e.UserSpace && e.Effect == Fail:
		return errors.New("a rule that believes programs (userspace: true) can warn, not fail: what they say can be forged")
	}
	return nil
}

// Lifetime is how long a detection counts after it was seen last; 0: until it is cleared or fixed.
func (e *Effect) Lifetime() time.Duration { return e.lifetime }

// Until says in words when a detection stops to count.
func (e *Effect) Until() string {
	switch e.Clears {
	case ByTime:
		return e.For + " after it was seen last"
	case ByOperator:
		return "an operator clears it"
	}
	return "fixed: " + strings.Join(e.FixedBy, " or ")
}

var claimed = regexp.MustCompile(`"msg\.`)

// claims reports whether a rule looks at what programs claim.
func claims(d *sigma.Document, e *Effect) bool {
	if slices.ContainsFunc(append(slices.Clone(d.Fields), e.Subject...), func(f string) bool { return strings.HasPrefix(f, "msg.") }) {
		return true
	}
	for _, raw := range d.Detection {
		if claimed.Match(raw) {
			return true
		}
	}
	if d.Correlation == nil {
		return false
	}
	b, err := json.Marshal(d.Correlation)
	return err != nil || claimed.Match(b)
}
