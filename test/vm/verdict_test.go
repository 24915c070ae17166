//go:build vm

package vm

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
)

// judged waits until a verdict on evidence younger than since satisfies the condition, and returns it.
func (a *aias) judged(t *testing.T, node string, since time.Time, what string, ok func(*protocol.Node, *appraisal.Verdict) bool) *appraisal.Verdict {
	t.Helper()
	var last appraisal.Verdict
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := json.MarshalIndent(last, "", " ")
			t.Logf("last verdict on %s, waiting until %s:\n%s", node, what, b)
		}
	})
	eventually(t, node+" "+what, func() bool {
		r, err := a.Why(t.Context(), node)
		if err != nil || r.Node.Attested.Before(since) || len(r.Verdict) == 0 {
			return false
		}
		last = appraisal.Verdict{}
		if err := json.Unmarshal(r.Verdict, &last); err != nil {
			t.Fatal(err)
		}
		return len(last.Levels) == len(appraisal.LevelNames) && ok(&r.Node, &last)
	})
	t.Logf("%s %s", node, what)
	for _, l := range last.Levels {
		t.Logf("  level %d %-12s %s", l.Level, l.Name, l.Status)
		for _, f := range l.Findings {
			if f.Status == appraisal.Fail {
				t.Logf("    %s: %s (expected %q, observed %q)", f.Rule, f.Message, f.Expected, f.Observed)
			}
		}
	}
	return &last
}

// failing returns the levels that do not pass, in order.
func failing(v *appraisal.Verdict) []int {
	var levels []int
	for _, l := range v.Levels {
		if l.Status == appraisal.Fail || l.Status == appraisal.Unknown {
			levels = append(levels, l.Level)
		}
	}
	return levels
}

// failedRules returns the rules that do not pass, sorted, each once.
func failedRules(v *appraisal.Verdict) []string {
	var rules []string
	for _, l := range v.Levels {
		for _, f := range l.Findings {
			if f.Status == appraisal.Fail || f.Status == appraisal.Unknown {
				rules = append(rules, f.Rule)
			}
		}
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}
