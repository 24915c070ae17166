package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/compliance/content"
)

func withCompliance(lines ...string) []byte {
	return []byte("apiVersion: touchstone.dev/v1alpha1\nkind: TrustPolicy\nmetadata: {name: a}\nspec:\n  runtime:\n    compliance:\n      " + strings.Join(lines, "\n      ") + "\n")
}

func TestCompliance(t *testing.T) {
	p, err := Parse(withCompliance("mode: required", "maxAge: 25h", "maxFailed: {medium: 2, low: -1}", "undecided: ignore", "required: [xccdf_a_rule_b]",
		"waivers: [{rule: xccdf_a_rule_c, reason: ticket 4711, owner: ops, until: 2027-01-31}]"))
	if err != nil {
		t.Fatal(err)
	}
	r := p.Spec.Runtime.Compliance.Rules()
	if r.MaxAge != 25*time.Hour || r.MaxFailed.High != 0 || r.MaxFailed.Medium != 2 || r.MaxFailed.Low != -1 || !r.IgnoreUndecided || len(r.Required) != 1 {
		t.Errorf("Rules: got %+v", r)
	}
	if want := time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC); len(r.Waivers) != 1 || !r.Waivers[0].Until.Equal(want) {
		t.Errorf("waivers: got %+v, want one until %s", r.Waivers, want)
	}
}

// TestBaselineByName: a policy can name the baseline of this version, beside digests.
func TestBaselineByName(t *testing.T) {
	other := strings.Repeat("ab", 32)
	p, err := Parse(withCompliance("content: [baseline, " + other + "]"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Spec.Runtime.Compliance.Rules().Content, []string{content.Digest(), other}; !slices.Equal(got, want) {
		t.Errorf("content: got %q, want %q", got, want)
	}
}

func TestBadCompliance(t *testing.T) {
	for line, want := range map[string]string{
		"mode: on":      "runtime.compliance.mode",
		"content: [ab]": "runtime.compliance.content",
		"tailorings: [" + strings.Repeat("AB", 32) + "]": "runtime.compliance.tailorings",
		"maxAge: -1h":                     "runtime.compliance.maxAge",
		"minScore: 101":                   "runtime.compliance.minScore",
		"waivers: [{rule: a, reason: b}]": "owner and an end",
		"waivers: [{rule: a, owner: b, until: 2027-01-01}]": "reason",
	} {
		if _, err := Parse(withCompliance(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%s): %v, want an error on %s", line, err, want)
		}
	}
}
