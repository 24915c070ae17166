package verdict

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

// Problem is one way in which a scan is not as demanded, or (in Judgement.Waived) would be without a waiver.
type Problem struct {
	Rule     string // id of a rule; empty: the scan as a whole, or vulnerabilities
	Flaws    bool   `json:",omitempty"` // it is about vulnerabilities
	Title    string
	Message  string
	Expected string
	Observed string
	Cause    string
	Remedy   string
}

// Judgement is what came of it: good when there are no problems.
type Judgement struct {
	Problems []Problem
	Waived   []Problem // rules that failed, and a waiver covers them
	Within   []Problem // rules that failed within the budget
	Unused   []Waiver  // waivers that have ended, of rules that fail
}

// Good reports whether the scan is as demanded.
func (j *Judgement) Good() bool { return len(j.Problems) == 0 }

const rescan = "scan again: `touchstone compliance scan`; see the agent's log for why it does not"

// Judge holds a scan against rules at time now.
func Judge(r *Rules, s *Scan, now time.Time) *Judgement {
	j := &Judgement{}
	j.whole(r, s, now)
	j.required(r, s, now)
	j.failed(r, s, now)
	if r.MinScore > 0 && s.Score < r.MinScore {
		j.add(Problem{Message: "the score of the compliance scan is too low", Expected: fmt.Sprintf("at least %.1f", r.MinScore), Observed: fmt.Sprintf("%.1f", s.Score),
			Cause: "too many rules fail", Remedy: "mend the rules that fail"})
	}
	return j
}

func (j *Judgement) add(p Problem) { j.Problems = append(j.Problems, p) }

// whole judges what the scan was made with, and when.
func (j *Judgement) whole(r *Rules, s *Scan, now time.Time) {
	if r.Profile != "" && s.Profile != r.Profile {
		j.add(Problem{Message: "the compliance scan used another profile", Expected: r.Profile, Observed: s.Profile,
			Cause: "the configuration of the scan and the policy differ", Remedy: "set the profile in the agent's configuration, or in the policy"})
	}
	if len(r.Content) > 0 && !slices.Contains(r.Content, s.Content) {
		j.add(Problem{Message: "the compliance scan used other content", Expected: strings.Join(r.Content, " or "), Observed: s.Content,
			Cause: "the content was updated or changed on the worker", Remedy: "install the approved content, or add the digest to the policy"})
	}
	if s.Tailoring == "" && r.MustTailor {
		j.add(Problem{Message: "the compliance scan did not use the tailoring of the policy", Expected: strings.Join(r.Tailoring, " or "), Observed: "none",
			Cause: "it was made before the policy was changed", Remedy: rescan})
	}
	if s.Tailoring != "" && !slices.Contains(r.Tailoring, s.Tailoring) {
		j.add(Problem{Message: "the compliance scan used a tailoring that the policy does not name", Expected: orNone(strings.Join(r.Tailoring, " or ")), Observed: s.Tailoring,
			Cause: "the policy's tailoring was changed after the scan, or somebody softened the profile on the worker", Remedy: "take a tailoring of the worker's own away, or add its digest to the policy, and " + rescan})
	}
	switch age := now.Sub(s.At); {
	case age < -FutureLimit:
		j.add(Problem{Message: "the compliance scan is of the future", Expected: "at most " + now.UTC().Format(time.RFC3339), Observed: s.At.UTC().Format(time.RFC3339),
			Cause: "the worker's clock is wrong", Remedy: "set its clock, and " + rescan})
	case age > r.maxAge():
		j.add(Problem{Message: "the compliance scan is too old", Expected: "at most " + r.maxAge().String(), Observed: s.At.UTC().Format(time.RFC3339),
			Cause: "scans are not made, fail, or do not reach AIAS", Remedy: rescan})
	}
	if s.Passed == 0 {
		j.add(Problem{Message: "no rule passed in the compliance scan", Expected: "content that applies", Observed: s.Summary(),
			Cause: "the content is for another system", Remedy: "use content for this system"})
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (r *Rules) maxAge() time.Duration {
	if r.MaxAge == 0 {
		return DefaultMaxAge
	}
	return r.MaxAge
}

// required judges the rules that must pass, whatever the budget says.
func (j *Judgement) required(r *Rules, s *Scan, now time.Time) {
	for _, id := range r.Required {
		x := s.Rule(id)
		switch {
		case x == nil:
			j.add(Problem{Rule: id, Message: "required rule " + short(id) + " was not judged", Expected: "pass", Observed: "not selected, or does not apply",
				Cause: "the profile does not have it", Remedy: "select it by a tailoring, or use another profile"})
		case badness(x.Outcome) > 0:
			p := problem(x, "required rule "+short(id)+" does not pass")
			if j.waive(r, p, now) {
				continue
			}
			j.add(p)
		}
	}
}

// failed judges the rules that fail by their severity.
func (j *Judgement) failed(r *Rules, s *Scan, now time.Time) {
	over := map[xccdf.Severity][]Problem{}
	for i := range s.Rules {
		x := &s.Rules[i]
		if b := badness(x.Outcome); b == 0 || b == 1 && r.IgnoreUndecided || slices.Contains(r.Required, x.ID) {
			continue
		}
		p := problem(x, fmt.Sprintf("%s rule %s: %s", x.Severity, short(x.ID), said(x.Outcome)))
		if !j.waive(r, p, now) {
			group := groupOf(x.Severity)
			over[group] = append(over[group], p)
		}
	}
	for _, severity := range []xccdf.Severity{xccdf.SeverityHigh, xccdf.SeverityMedium, xccdf.SeverityLow} {
		if n := r.MaxFailed.of(severity); n >= 0 && len(over[severity]) > n {
			for _, p := range over[severity] {
				if n > 0 {
					p.Expected = fmt.Sprintf("at most %d %s rules that fail, not %d", n, severity, len(over[severity]))
				}
				j.add(p)
			}
		} else {
			j.Within = append(j.Within, over[severity]...)
		}
	}
}

// groupOf is the severity whose budget a rule uses.
func groupOf(s xccdf.Severity) xccdf.Severity {
	switch s {
	case xccdf.SeverityUnknown:
		return xccdf.SeverityMedium
	case xccdf.SeverityInfo:
		return xccdf.SeverityLow
	case xccdf.SeverityLow, xccdf.SeverityMedium, xccdf.SeverityHigh:
	}
	return s
}

func said(o xccdf.Outcome) string {
	switch badness(o) {
	case 1:
		return "not decided (" + string(o) + ")"
	case 2:
		return "fails"
	}
	return "passes"
}

func problem(x *Rule, message string) Problem {
	p := Problem{Rule: x.ID, Title: x.Title, Message: message, Expected: "pass", Observed: string(x.Outcome), Cause: x.Title, Remedy: x.Fix}
	if p.Cause == "" {
		p.Cause = "the system is not as the rule wants it, or was changed"
	}
	if p.Remedy == "" {
		p.Remedy = "see the rule in the content's guide: `oscap xccdf generate guide`"
	}
	return p
}

// waive files a problem under a waiver that is valid.
func (j *Judgement) waive(r *Rules, p Problem, now time.Time) bool {
	for _, w := range r.Waivers {
		if w.Rule != p.Rule {
			continue
		}
		if !now.Before(w.Until) {
			j.Unused = append(j.Unused, w)
			continue
		}
		p.Expected = w.String()
		j.Waived = append(j.Waived, p)
		return true
	}
	return false
}

// String says until when the waiver holds, whose it is and why.
func (w *Waiver) String() string {
	return fmt.Sprintf("waived until %s by %s: %s", w.Until.UTC().Format(time.DateOnly), w.Owner, w.Reason)
}

// Epoch changes when Judge may say something else of the same scan because time went on.
func (r *Rules) Epoch(s *Scan, now time.Time) string {
	if s == nil {
		return ""
	}
	alive := 0
	for _, w := range r.Waivers {
		if now.Before(w.Until) {
			alive++
		}
	}
	return fmt.Sprint(now.Sub(s.At) > r.maxAge(), now.Sub(s.At) < -FutureLimit, alive)
}

// short is the part of a rule's id that says what it is about.
func short(id string) string {
	if i := strings.Index(id, "_rule_"); strings.HasPrefix(id, "xccdf_") && i > 0 {
		return id[i+len("_rule_"):]
	}
	return id
}
