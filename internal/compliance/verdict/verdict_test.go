package verdict

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// rules writes a result: "id severity outcome" each.
func result(lines ...string) *xccdf.TestResult {
	r := &xccdf.TestResult{ID: "r", Profile: "p", End: now.Add(-time.Hour), Scores: []xccdf.Score{{System: xccdf.DefaultScore, Maximum: 100, Value: 80}}}
	for _, l := range append(lines, "fine high pass") {
		f := strings.Fields(l)
		r.Rules = append(r.Rules, xccdf.RuleResult{ID: f[0], Severity: xccdf.Severity(f[1]), Outcome: xccdf.Outcome(f[2])})
	}
	return r
}

func scanOf(lines ...string) *Scan {
	s := NewScan(result(lines...), map[string]Words{"a": {Title: "Rule A", Fix: "mend a"}})
	s.Content, s.Tool = "c0ffee", "1.3.7"
	return s
}

func TestJudge(t *testing.T) {
	waiver := func(until time.Time) []Waiver {
		return []Waiver{{Rule: "a", Reason: "ticket 4711", Owner: "ops", Until: until}}
	}
	tests := []struct {
		name  string
		rules Rules
		scan  *Scan
		want  []string // beginnings of the problems' messages
	}{
		{"all pass", Rules{}, scanOf(), nil},
		{"one high fails", Rules{}, scanOf("a high fail"), []string{"high rule a: fails"}},
		{"within the budget", Rules{MaxFailed: Budget{High: 1}}, scanOf("a high fail"), nil},
		{"over the budget", Rules{MaxFailed: Budget{High: 1}}, scanOf("a high fail", "b high fail"), []string{"high rule a", "high rule b"}},
		{"any number", Rules{MaxFailed: Budget{Medium: -1}}, scanOf("a medium fail", "b medium fail"), nil},
		{"unknown severity is medium", Rules{MaxFailed: Budget{Medium: 0, Low: 9}}, scanOf("a unknown fail"), []string{"unknown rule a"}},
		{"error is a failure", Rules{}, scanOf("a low error"), []string{"low rule a: not decided (error)"}},
		{"unknown is a failure", Rules{}, scanOf("a low unknown"), []string{"low rule a"}},
		{"notchecked is a failure", Rules{}, scanOf("a low notchecked"), []string{"low rule a"}},
		{"undecided ignored", Rules{IgnoreUndecided: true}, scanOf("a low error", "b high fail"), []string{"high rule b"}},
		{"another profile", Rules{Profile: "q"}, scanOf(), []string{"the compliance scan used another profile"}},
		{"other content", Rules{Content: []string{"00"}}, scanOf(), []string{"the compliance scan used other content"}},
		{"approved content", Rules{Content: []string{"00", "c0ffee"}}, scanOf(), nil},
		{"old", Rules{MaxAge: time.Minute}, scanOf(), []string{"the compliance scan is too old"}},
		{"required passes", Rules{Required: []string{"fine"}}, scanOf(), nil},
		{"required fails in spite of the budget", Rules{Required: []string{"a"}, MaxFailed: Budget{Low: 9}}, scanOf("a low fail"), []string{"required rule a"}},
		{"required does not apply", Rules{Required: []string{"a"}}, scanOf("a low notapplicable"), []string{"required rule a was not judged"}},
		{"required is not there", Rules{Required: []string{"z"}}, scanOf(), []string{"required rule z was not judged"}},
		{"required undecided, though ignored", Rules{Required: []string{"a"}, IgnoreUndecided: true}, scanOf("a low error"), []string{"required rule a"}},
		{"waived", Rules{Waivers: waiver(now.Add(time.Hour))}, scanOf("a high fail"), nil},
		{"waiver has ended", Rules{Waivers: waiver(now)}, scanOf("a high fail"), []string{"high rule a"}},
		{"waiver of a required rule", Rules{Required: []string{"a"}, Waivers: waiver(now.Add(time.Hour))}, scanOf("a high fail"), nil},
		{"score", Rules{MinScore: 90}, scanOf(), []string{"the score"}},
		{"score is enough", Rules{MinScore: 80}, scanOf(), nil},
		{"worst of two instances", Rules{}, scanOf("a high pass", "a high fail"), []string{"high rule a"}},
	}
	tailored := scanOf()
	tailored.Tailoring = "7a"
	future := scanOf()
	future.At = now.Add(time.Hour)
	nothing := NewScan(&xccdf.TestResult{Profile: "p", End: now}, nil)
	tests = append(tests, []struct {
		name  string
		rules Rules
		scan  *Scan
		want  []string
	}{
		{"unnamed tailoring", Rules{}, tailored, []string{"the compliance scan used a tailoring"}},
		{"named tailoring", Rules{Tailoring: []string{"7a"}}, tailored, nil},
		{"future", Rules{}, future, []string{"the compliance scan is of the future"}},
		{"nothing judged", Rules{}, nothing, []string{"no rule passed"}},
	}...)
	for _, test := range tests {
		j := Judge(&test.rules, test.scan, now)
		ok := len(j.Problems) == len(test.want)
		for i := range min(len(j.Problems), len(test.want)) {
			ok = ok && strings.HasPrefix(j.Problems[i].Message, test.want[i])
			if p := j.Problems[i]; p.Expected == "" || p.Observed == "" || p.Cause == "" || p.Remedy == "" {
				t.Errorf("%s: a problem that does not explain itself: %+v", test.name, p)
			}
		}
		if !ok || j.Good() != (len(test.want) == 0) {
			t.Errorf("%s: Judge: got %+v, want %q", test.name, j.Problems, test.want)
		}
	}
}

// TestWorseNeverHelps: a rule that falls makes no scan good that was not.
func TestWorseNeverHelps(t *testing.T) {
	order := []xccdf.Outcome{xccdf.Pass, xccdf.Error, xccdf.Fail}
	for _, severity := range xccdf.Severities {
		for _, rules := range []Rules{{}, {Required: []string{"a"}}, {MaxFailed: Budget{1, 1, 1}}, {IgnoreUndecided: true}} {
			good := true
			for _, o := range order {
				j := Judge(&rules, scanOf(fmt.Sprintf("a %s %s", severity, o)), now)
				if j.Good() && !good {
					t.Errorf("severity %s, rules %+v: %s is good, and what is better is not", severity, rules, o)
				}
				good = j.Good()
			}
		}
	}
}

func TestEpoch(t *testing.T) {
	r := &Rules{MaxAge: 2 * time.Hour, Waivers: []Waiver{{Rule: "a", Until: now.Add(30 * time.Minute)}}}
	s := scanOf("a high fail")
	last, verdict := r.Epoch(s, now), Judge(r, s, now).Good()
	changes := 0
	for at := now; at.Before(now.Add(4 * time.Hour)); at = at.Add(time.Minute) {
		e, v := r.Epoch(s, at), Judge(r, s, at)
		if v.Good() != verdict && e == last {
			t.Errorf("at %s the verdict changes, and the epoch does not", at)
		}
		if e != last {
			changes++
		}
		last, verdict = e, v.Good()
	}
	if changes != 2 {
		t.Errorf("%d epochs begin, want 2: the waiver ends, the scan is too old", changes)
	}
}

func TestDrift(t *testing.T) {
	got := Drift(scanOf("a high pass", "b low fail", "c low pass", "d low pass"), scanOf("a high fail", "b low pass", "d low pass", "e low fail"))
	want := []string{"a pass>fail true", "b fail>pass false", "c pass> true", "e >fail false"}
	var have []string
	for i := range got {
		have = append(have, fmt.Sprintf("%s %s>%s %v", got[i].ID, got[i].Was, got[i].Now, got[i].Worse()))
	}
	if !slices.Equal(have, want) {
		t.Errorf("Drift: got %q, want %q", have, want)
	}
	if got[0].Fix != "mend a" {
		t.Errorf("Drift of a rule that fell: remediation %q", got[0].Fix)
	}
}

func TestSummary(t *testing.T) {
	const want = "1 passed, 2 failed (1 high, 1 medium, 0 low), 1 undecided, score 80.0"
	if got := scanOf("a high fail", "b unknown fail", "c low error").Summary(); got != want {
		t.Errorf("Summary: got %q, want %q", got, want)
	}
}
