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

// TestTailored: a scan must be by the generated tailoring and by its profile; where it stands in the policy does not count.
func TestTailored(t *testing.T) {
	parse := func(tailoring string) *Policy {
		t.Helper()
		p, err := Parse(withCompliance("profile: xccdf_a_profile_b", tailoring))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := parse("tailoring: {select: [{rule: xccdf_a_rule_x}], deselect: [{rule: xccdf_a_rule_y, reason: console}, {rule: xccdf_a_rule_z, reason: b}], values: [{value: xccdf_a_value_v, set: '12'}]}")
	r, made := p.Spec.Runtime.Compliance.Rules(), p.Spec.Runtime.Compliance.Tailored()
	if !r.MustTailor || r.Profile != made.ID() || r.Profile == "xccdf_a_profile_b" || !slices.Equal(r.Tailoring, []string{made.Digest()}) {
		t.Errorf("Rules: got %+v", r)
	}
	same := parse("tailoring: {values: [{set: '12', value: xccdf_a_value_v}], deselect: [{rule: xccdf_a_rule_z, reason: b}, {rule: xccdf_a_rule_y, reason: console}], select: [{rule: xccdf_a_rule_x}]}")
	if got := same.Spec.Runtime.Compliance.Tailored().Digest(); got != made.Digest() {
		t.Errorf("the same in another order: got %s, want %s", got, made.Digest())
	}
}

func TestBadCompliance(t *testing.T) {
	for line, want := range map[string]string{
		"mode: on":      "runtime.compliance.mode",
		"content: [ab]": "runtime.compliance.content",
		"tailorings: [" + strings.Repeat("AB", 32) + "]": "runtime.compliance.tailorings",
		"maxAge: -1h": "runtime.compliance.maxAge",
		"tailoring: {select: [{rule: xccdf_a_rule_x}]}":                                                                                         "tailoring: profile",
		"profile: xccdf_a_profile_b\n      tailoring: {}":                                                                                       "0 changes",
		"profile: xccdf_a_profile_b\n      tailoring: {deselect: [{rule: xccdf_a_rule_x}]}":                                                     "want a reason",
		"tailorings: [" + strings.Repeat("ab", 32) + "]\n      profile: xccdf_a_profile_b\n      tailoring: {select: [{rule: xccdf_a_rule_x}]}": "exclude each other",
		"minScore: 101":                                     "runtime.compliance.minScore",
		"waivers: [{rule: a, reason: b}]":                   "owner and an end",
		"waivers: [{rule: a, owner: b, until: 2027-01-01}]": "reason",
	} {
		if _, err := Parse(withCompliance(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%s): %v, want an error on %s", line, err, want)
		}
	}
}
