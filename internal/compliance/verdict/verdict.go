// Package verdict judges the results of a compliance scan by what a policy demands: profile and content, age, rules that must pass, how many may
// fail by severity, and last the score, which hides more than it shows. It is pure, and knows nothing of who was scanned: whoever calls it
// has bound the result to a node or an image digest.
//
// What was not judged never counts as passed: an error, an unknown outcome and a rule that was not checked are failures unless the rules say
// otherwise; a required rule that does not apply, or is not in the result, has not passed.
package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

// Rules are what a result must be like. The zero value demands that no rule of high severity fails.
type Rules struct {
	Profile   string   // id that the scan must have used; empty: any
	Content   []string // SHA-256 of content that counts, hexadecimal; empty: any
	Tailoring []string // SHA-256 of tailorings that count; empty: none may be used
	// MustTailor says that one of Tailoring must have been used.
	MustTailor bool
	MaxAge     time.Duration // of the scan; 0: DefaultMaxAge
	Required   []string      // ids of rules that must have passed
	MaxFailed  Budget
	// Undecided says whether error, unknown and notchecked count as failures.
	IgnoreUndecided bool
	MinScore        float64 // of xccdf.DefaultScore, in per cent of its maximum; 0: none
	Waivers         []Waiver
}

// DefaultMaxAge is how old a scan may be when the rules do not say.
const DefaultMaxAge = 36 * time.Hour

// FutureLimit is how far ahead of our clock a scan's own time may be.
const FutureLimit = 5 * time.Minute

// Budget is how many rules may fail, by severity. Negative: any number.
type Budget struct{ High, Medium, Low int }

// of returns the budget of a severity. A rule that does not say how severe it is counts as medium.
func (b Budget) of(s xccdf.Severity) int {
	switch s {
	case xccdf.SeverityHigh:
		return b.High
	case xccdf.SeverityLow, xccdf.SeverityInfo:
		return b.Low
	case xccdf.SeverityMedium, xccdf.SeverityUnknown:
	}
	return b.Medium
}

// Waiver lets one rule fail, or one vulnerability be there, until it ends.
type Waiver struct {
	Rule   string
	Flaw   string // id of a vulnerability, instead of a rule
	Reason string
	Owner  string
	Until  time.Time
}

// Scan is a result that somebody has bound to what was scanned.
type Scan struct {
	Profile   string    `json:"profile"`
	Benchmark string    `json:"benchmark"`
	Content   string    `json:"content"`             // SHA-256, hexadecimal
	Tailoring string    `json:"tailoring,omitempty"` // the same; empty: none
	Tool      string    `json:"tool"`                // version of oscap
	At        time.Time `json:"at"`                  // end of the scan
	Score     float64   `json:"score"`               // per cent
	Passed    int       `json:"passed"`
	NotApply  int       `json:"notApplicable"`
	Rules     []Rule    `json:"rules"` // all that were selected and apply, by id
}

// Rule is the outcome of one rule, with what a person needs.
type Rule struct {
	ID       string         `json:"id"`
	Severity xccdf.Severity `json:"severity"`
	Outcome  xccdf.Outcome  `json:"outcome"`
	Title    string         `json:"title,omitempty"`
	Fix      string         `json:"fix,omitempty"`
}

// Words are title and remediation of a rule.
type Words struct {
	Title string `json:"title,omitempty"`
	Fix   string `json:"fix,omitempty"`
}

// NewScan takes from a result what is judged. Of a rule with several instances or checks the worst outcome counts.
func NewScan(r *xccdf.TestResult, words map[string]Words) *Scan {
	s := &Scan{Profile: r.Profile, Benchmark: r.Benchmark.ID, Tool: r.Fact(xccdf.FactScannerVersion), At: r.End}
	for _, score := range r.Scores {
		if score.System == xccdf.DefaultScore && score.Maximum > 0 {
			s.Score = 100 * score.Value / score.Maximum
		}
	}
	for i := range r.Rules {
		x := &r.Rules[i]
		switch x.Outcome {
		case xccdf.NotSelected, xccdf.Informational:
			continue
		case xccdf.NotApplicable:
			s.NotApply++
			continue
		case xccdf.Pass, xccdf.Fixed, xccdf.Fail, xccdf.Error, xccdf.Unknown, xccdf.NotChecked:
		}
		w := words[x.ID]
		s.Rules = append(s.Rules, Rule{ID: x.ID, Severity: x.Severity, Outcome: x.Outcome, Title: w.Title, Fix: w.Fix})
	}
	slices.SortStableFunc(s.Rules, func(a, b Rule) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), badness(b.Outcome)-badness(a.Outcome))
	})
	s.Rules = slices.CompactFunc(s.Rules, func(a, b Rule) bool { return a.ID == b.ID })
	for i := range s.Rules {
		if badness(s.Rules[i].Outcome) == 0 {
			s.Passed++
		}
	}
	return s
}

// badness orders outcomes: 0 passes, 1 was not decided, 2 fails.
func badness(o xccdf.Outcome) int {
	switch o {
	case xccdf.Pass, xccdf.Fixed:
		return 0
	case xccdf.Error, xccdf.Unknown, xccdf.NotChecked:
		return 1
	case xccdf.Fail, xccdf.NotApplicable, xccdf.NotSelected, xccdf.Informational:
	}
	return 2
}

// Failed counts the rules that did not pass by the severity whose budget they use: high, medium or low.
func (s *Scan) Failed() map[string]int {
	n := map[string]int{}
	for i := range s.Rules {
		if x := &s.Rules[i]; badness(x.Outcome) > 0 {
			n[string(groupOf(x.Severity))]++
		}
	}
	return n
}

// Rule returns the outcome of a rule, or nil when it was not judged.
func (s *Scan) Rule(id string) *Rule {
	i, ok := slices.BinarySearchFunc(s.Rules, id, func(r Rule, id string) int { return strings.Compare(r.ID, id) })
	if !ok {
		return nil
	}
	return &s.Rules[i]
}

// Summary is the scan in one line.
func (s *Scan) Summary() string {
	failed := map[xccdf.Severity]int{}
	undecided := 0
	for i := range s.Rules {
		switch badness(s.Rules[i].Outcome) {
		case 1:
			undecided++
		case 2:
			failed[s.Rules[i].Severity]++
		}
	}
	all := 0
	for _, n := range failed {
		all += n
	}
	out := fmt.Sprintf("%d passed, %d failed", s.Passed, all)
	if all > 0 {
		out += fmt.Sprintf(" (%d high, %d medium, %d low)", failed[xccdf.SeverityHigh], failed[xccdf.SeverityMedium]+failed[xccdf.SeverityUnknown],
			failed[xccdf.SeverityLow]+failed[xccdf.SeverityInfo])
	}
	if undecided > 0 {
		out += fmt.Sprintf(", %d undecided", undecided)
	}
	return out + fmt.Sprintf(", score %.1f", s.Score)
}
