// Package xccdf reads results of XCCDF 1.2 (NIST IR 7275 revision 4), as OpenSCAP writes them.
//
// Extract finds the TestResult in a large file (an ARF of 20 MB is mostly content) without keeping the rest; that element is what travels
// from a worker to AIAS. Parse reads it into values. Both take hostile input: sizes and depth are bounded, document types and entities are
// refused, and a document that is not well-formed to its end is no result at all. Nothing is judged here; that is package verdict.
package xccdf

import "time"

// Outcome is the result of one rule (XCCDF 1.2, table 26).
type Outcome string

// The outcomes. The zero value is none of them.
const (
	Pass          Outcome = "pass"
	Fail          Outcome = "fail"
	Error         Outcome = "error"         // the checking system failed
	Unknown       Outcome = "unknown"       // it could not tell
	NotApplicable Outcome = "notapplicable" // the rule is not for this machine
	NotChecked    Outcome = "notchecked"    // there is no check that the tool knows
	NotSelected   Outcome = "notselected"   // not in the profile
	Informational Outcome = "informational" // says something, demands nothing
	Fixed         Outcome = "fixed"         // failed, and was mended
)

// Outcomes are all outcomes that XCCDF knows.
var Outcomes = []Outcome{Pass, Fail, Error, Unknown, NotApplicable, NotChecked, NotSelected, Informational, Fixed}

// Severity of a rule.
type Severity string

// The severities, from the least to the worst, after the two that say nothing. A rule that names none is SeverityUnknown.
const (
	SeverityUnknown Severity = "unknown"
	SeverityInfo    Severity = "info"
	SeverityLow     Severity = "low"
	SeverityMedium  Severity = "medium"
	SeverityHigh    Severity = "high"
)

// Severities are all severities that XCCDF knows.
var Severities = []Severity{SeverityUnknown, SeverityInfo, SeverityLow, SeverityMedium, SeverityHigh}

// TestResult is what one run of a checklist found.
type TestResult struct {
	ID         string
	Version    string // of the benchmark
	TestSystem string // the tool, "cpe:/a:redhat:openscap:1.3.7"
	Start, End time.Time
	Benchmark  Benchmark
	Title      string
	Profile    string // idref; empty: none was chosen
	Tailoring  Tailoring
	// Target is a text that the machine chose itself (of an image: a file in the image): it proves nothing.
	Target    string
	Addresses []string
	Facts     []Fact
	Platforms []string // CPE names that apply to the target
	Values    []Value  // settings that the profile or a tailoring made
	Rules     []RuleResult
	Scores    []Score
}

// Benchmark names the checklist.
type Benchmark struct{ ID, Href string }

// Tailoring names the tailoring file that was used, if one was.
type Tailoring struct{ ID, Href, Version string }

// Fact is one fact on the target.
type Fact struct{ Name, Type, Value string }

// Value is one set-value.
type Value struct{ ID, Value string }

// RuleResult is the result of one rule.
type RuleResult struct {
	ID       string
	Version  string
	Role     string // "full", "unscored" or "unchecked"
	Severity Severity
	Weight   float64
	Time     time.Time
	Outcome  Outcome
	Instance string // what of several things the rule was held against; empty for most
	Idents   []Ident
	Messages []Message
	Checks   []Check
}

// Ident is a name of the rule elsewhere, such as a CCE number.
type Ident struct{ System, Value string }

// Message is what the checking system said.
type Message struct{ Severity, Text string }

// Check is the check that the rule stands on.
type Check struct{ System, Href, Name string }

// Score is one score; most tools give one by the default model.
type Score struct {
	System  string
	Maximum float64
	Value   float64
}

// DefaultScore is the scoring system of most tools.
const DefaultScore = "urn:xccdf:scoring:default"

// Fact returns the value of the first fact of a name, or "".
func (r *TestResult) Fact(name string) string {
	for _, f := range r.Facts {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// Names of facts.
const (
	FactScanner        = "urn:xccdf:fact:scanner:name"
	FactScannerVersion = "urn:xccdf:fact:scanner:version"
	// FactIdentifier is what whoever ran the tool says is the target (OSCAP_EVALUATION_TARGET).
	FactIdentifier = "urn:xccdf:fact:identifier"
)

// Count returns how many rules have one of the outcomes.
func (r *TestResult) Count(outcomes ...Outcome) int {
	n := 0
	for i := range r.Rules {
		for _, o := range outcomes {
			if r.Rules[i].Outcome == o {
				n++
			}
		}
	}
	return n
}
