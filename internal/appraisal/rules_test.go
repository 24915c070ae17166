package appraisal

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/policy"
)

// ruleCase changes the good world in one point, and says what one rule then finds.
type ruleCase struct {
	rule   string
	name   string
	change func(*world)
	want   Status // the worst of the rule's findings
	has    string // in one of the texts of such a finding
	prov   claims.Provenance
}

// cases are those of all rules.
var cases = slices.Concat(firmwareCases, secureBootCases, bootLoaderCases, dataAtRestCases, kernelCases, commandLineCases, initrdCases, moduleCases, runtimeCases, auditCases, complianceCases, detectionCases)

func ruleNamed(t *testing.T, name string) rule {
	t.Helper()
	for _, l := range levels {
		for _, r := range l {
			if r.name == name {
				return r
			}
		}
	}
	t.Fatalf("no rule %s", name)
	return rule{}
}

// TestRules runs every case of every rule.
func TestRules(t *testing.T) {
	for _, tt := range cases {
		t.Run(tt.rule+"/"+tt.name, func(t *testing.T) {
			w := newWorld(t)
			if tt.change != nil {
				tt.change(w)
			}
			fs := w.input().apply(ruleNamed(t, tt.rule))
			if got := worst(fs); got != tt.want {
				t.Fatalf("%s: got %s, want %s: %s", tt.rule, got, tt.want, dump(fs))
			}
			found := false
			for i := range fs {
				f := &fs[i]
				if f.Rule != tt.rule || f.Message == "" || f.Provenance == "" {
					t.Errorf("finding: got %+v, want rule, message and provenance", f)
				}
				if f.Status == Fail && (f.Cause == "" || f.Remedy == "") {
					t.Errorf("finding: got %+v, want cause and remedy", f)
				}
				text := strings.Join([]string{f.Message, f.Expected, f.Observed}, "\n")
				found = found || f.Status == tt.want && strings.Contains(text, tt.has) && (tt.prov == "" || f.Provenance == string(tt.prov))
			}
			if !found {
				t.Errorf("%s: got %s, want one with %q, %s", tt.rule, dump(fs), tt.has, tt.prov)
			}
		})
	}
}

// shown are rules that judge nothing.
var shown = []string{"firmware.dynamic-launch"}

// TestEveryRuleHasCases: each rule has a case in which it passes, and one in which it does not.
func TestEveryRuleHasCases(t *testing.T) {
	statuses := make(map[string]map[Status]bool)
	for _, c := range cases {
		if statuses[c.rule] == nil {
			statuses[c.rule] = make(map[Status]bool)
		}
		statuses[c.rule][c.want] = true
	}
	for _, name := range RuleNames() {
		s := statuses[name]
		switch {
		case name == RuleEvidence: // has no check: see package verifier
		case !s[Pass]:
			t.Errorf("rule %s has no case in which it passes", name)
		case len(s) < 2 && !slices.Contains(shown, name):
			t.Errorf("rule %s has no case in which it does not pass", name)
		}
	}
}

// TestGoodWorld: the world that the cases start from passes, level by level.
func TestGoodWorld(t *testing.T) {
	v := Appraise(newWorld(t).input())
	if !v.Trusted {
		t.Errorf("Appraise(good): got %s", dump(v))
	}
	for i, l := range v.Levels {
		if l.Level != i+1 || l.Name != LevelNames[i] || l.Status != Pass || l.Reason() != "" {
			t.Errorf("level %d: got %d %s, %s, %q", i+1, l.Level, l.Name, l.Status, l.Reason())
		}
	}
}

// TestAppraiseInParts: levels of the boot, kept and completed, are the whole verdict, and are not changed by it.
func TestAppraiseInParts(t *testing.T) {
	in := newWorld(t).input()
	boot := AppraiseBoot(in)
	before, err := json.Marshal(boot)
	if err != nil {
		t.Fatal(err)
	}
	bare := *in
	bare.Runtime = nil
	AppraiseRuntime(&bare, boot)
	got := AppraiseRuntime(in, boot)
	if d := cmp.Diff(Appraise(in), got); d != "" {
		t.Errorf("AppraiseRuntime differs from Appraise (-want +got):\n%s", d)
	}
	if after, _ := json.Marshal(boot); string(after) != string(before) {
		t.Error("AppraiseRuntime changed the levels of the boot")
	}
}

// TestNothingKnown: without any evidence no level passes, and nothing panics.
func TestNothingKnown(t *testing.T) {
	w := newWorld(t)
	w.log, w.entries, w.facts, w.sources, w.quoted = nil, nil, nil, nil, 0
	v := Appraise(w.input())
	for _, l := range v.Levels {
		if l.Status == Pass || l.Status == Warn {
			t.Errorf("level %s: got %s: %s", l.Name, l.Status, dump(l))
		}
	}
	if r := Refused(Finding{Rule: RuleEvidence, Status: Fail, Message: "forged"}); r.Trusted || len(r.Levels) != 5 || r.Levels[4].Reason() != "forged" {
		t.Errorf("Refused: got %s", dump(r))
	}
}

// TestSoften: an exception turns findings of its rule into warnings, for as long as it holds.
func TestSoften(t *testing.T) {
	until := policy.Time{Time: now.Add(time.Hour)}
	for _, tt := range []struct {
		exception policy.Exception
		now       time.Time
		want      Status
	}{
		{policy.Exception{Rule: "secure-boot.state", Allow: "fail", Reason: "ticket"}, now, Warn},
		{policy.Exception{Rule: "secure-boot.state", Allow: "unknown"}, now, Fail},
		{policy.Exception{Rule: "secure-boot.mode", Allow: "fail"}, now, Fail},
		{policy.Exception{Rule: "secure-boot.state", Allow: "fail", Until: &until}, now, Warn},
		{policy.Exception{Rule: "secure-boot.state", Allow: "fail", Until: &until}, until.Time, Fail},
	} {
		w := newWorld(t)
		w.set("SecureBoot", replace([]byte{0}))
		w.spec.Exceptions = []policy.Exception{tt.exception}
		in := w.input()
		in.Now = tt.now
		fs := in.apply(ruleNamed(t, "secure-boot.state"))
		if got := worst(fs); got != tt.want || (got == Warn && !strings.Contains(fs[0].Message, "excepted by the policy")) {
			t.Errorf("%+v: got %s, want %s", tt.exception, dump(fs), tt.want)
		}
	}
}

// TestBounded: a rule with thousands of findings keeps the worst and says how many there were.
func TestBounded(t *testing.T) {
	var fs []Finding
	for i := range 1000 {
		fs = append(fs, pass(claims.Proven, "fine %d", i))
	}
	fs = append(fs, fail(claims.Proven, "evil"))
	got := bounded(fs)
	if len(got) != maxFindings+1 || got[0].Message != "evil" || !strings.Contains(got[maxFindings].Message, fmt.Sprint(1001-maxFindings)) {
		t.Errorf("bounded: got %d findings, first %+v, last %+v", len(got), got[0], got[len(got)-1])
	}
	if s := cut(strings.Repeat("ä", maxText)); len(s) > maxText+3 || !strings.HasSuffix(s, "ä...") {
		t.Errorf("cut: got %d bytes", len(s))
	}
}
