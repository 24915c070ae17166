package class

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func node(change ...func(*Node)) Node {
	n := Node{
		Valid: true, Levels: map[int32]string{1: "pass", 2: "pass", 3: "pass", 4: "pass", 5: "pass"}, Tags: map[string]string{"country": "de"},
		Issued: now.Add(-time.Minute), Expires: now.Add(4 * time.Minute),
	}
	for _, f := range change {
		f(&n)
	}
	return n
}

func TestMeets(t *testing.T) {
	minutes := func(m int) *metav1.Duration { return &metav1.Duration{Duration: time.Duration(m) * time.Minute} }
	level := func(l int32, s string) func(*Node) { return func(n *Node) { n.Levels[l] = s } }
	tests := []struct {
		name    string
		spec    v1alpha1.TrustClassSpec
		node    Node
		missing string // part of what is said; "" when it meets
		until   time.Duration
	}{
		{"strict", v1alpha1.TrustClassSpec{}, node(), "", 4 * time.Minute},
		{"no result", v1alpha1.TrustClassSpec{}, Node{Why: "rebooted"}, "rebooted", 0},
		{"nothing known", v1alpha1.TrustClassSpec{}, Node{}, "no fresh result", 0},
		{"no levels known", v1alpha1.TrustClassSpec{Levels: []int32{1}}, node(func(n *Node) { n.Levels = nil }), "level 1 is unknown", 0},
		{"level fails", v1alpha1.TrustClassSpec{}, node(level(4, "fail")), "level 4 is fail", 0},
		{"level that does not matter fails", v1alpha1.TrustClassSpec{Levels: []int32{3, 1}}, node(level(4, "fail")), "", 4 * time.Minute},
		{"unknown is no pass", v1alpha1.TrustClassSpec{}, node(level(2, "unknown")), "level 2 is unknown", 0},
		{"a word that is none", v1alpha1.TrustClassSpec{}, node(level(2, "PASS")), "level 2 is PASS", 0},
		{"warning", v1alpha1.TrustClassSpec{}, node(level(1, "warn")), "", 4 * time.Minute},
		{"warning, allowed", v1alpha1.TrustClassSpec{Warnings: v1alpha1.Allow}, node(level(1, "warn")), "", 4 * time.Minute},
		{"warning, denied", v1alpha1.TrustClassSpec{Warnings: v1alpha1.Deny}, node(level(1, "warn")), "level 1 is warn", 0},
		{"software TPM", v1alpha1.TrustClassSpec{}, node(func(n *Node) { n.SoftwareTPM = true }), "TPM is a program", 0},
		{"software TPM, allowed", v1alpha1.TrustClassSpec{SoftwareTPM: v1alpha1.Allow}, node(func(n *Node) { n.SoftwareTPM = true }), "", 4 * time.Minute},
		{"too old", v1alpha1.TrustClassSpec{MaxResultAge: minutes(1)}, node(), "older than 1m0s", 0},
		{"soon too old", v1alpha1.TrustClassSpec{MaxResultAge: minutes(2)}, node(), "", time.Minute},
		{"age beyond expiry", v1alpha1.TrustClassSpec{MaxResultAge: minutes(60)}, node(), "", 4 * time.Minute},
		{"age zero", v1alpha1.TrustClassSpec{MaxResultAge: minutes(0)}, node(), "older than 0s", 0},
		{"expired", v1alpha1.TrustClassSpec{}, node(func(n *Node) { n.Expires = now }), "expired", 0},
		{"tag", v1alpha1.TrustClassSpec{Tags: map[string]v1alpha1.TagValues{"country": {"fr", "de"}}}, node(), "", 4 * time.Minute},
		{"other value", v1alpha1.TrustClassSpec{Tags: map[string]v1alpha1.TagValues{"country": {"fr"}}}, node(), "tag country is de, want fr", 0},
		{"no tag", v1alpha1.TrustClassSpec{Tags: map[string]v1alpha1.TagValues{"owner": {"a", "b"}}}, node(), "tag owner is not proven, want a or b", 0},
		{"no value is no value", v1alpha1.TrustClassSpec{Tags: map[string]v1alpha1.TagValues{"owner": {""}}}, node(), "tag owner is not proven", 0},
		{"one tag of two", v1alpha1.TrustClassSpec{Tags: map[string]v1alpha1.TagValues{"country": {"de"}, "owner": {"a"}}}, node(), "owner", 0},
	}
	for _, tt := range tests {
		a := Meets(&tt.spec, tt.node, now)
		if a.Meets != (tt.missing == "") || !strings.Contains(strings.Join(a.Missing, "; "), tt.missing) {
			t.Errorf("%s: Meets(): got %v %q, want %q", tt.name, a.Meets, a.Missing, tt.missing)
		}
		if a.Meets && !a.Until.Equal(now.Add(tt.until)) {
			t.Errorf("%s: Meets(): until %s, want %s", tt.name, a.Until.Sub(now), tt.until)
		}
	}
}

// TestFromTrust: a NodeTrust says as much as the result it was made from.
func TestFromTrust(t *testing.T) {
	nt := &v1alpha1.NodeTrust{Status: v1alpha1.NodeTrustStatus{
		Trusted: true, SoftwareTPM: true, Tags: map[string]string{"country": "de"}, VerifiedAt: &metav1.Time{Time: now}, ExpiresAt: &metav1.Time{Time: now.Add(time.Minute)},
		Levels: []v1alpha1.LevelStatus{{Level: 1, Status: "warn", Reason: "old"}}, Conditions: []metav1.Condition{{Type: v1alpha1.ConditionBound, Status: metav1.ConditionTrue}},
	}}
	n := FromTrust(nt)
	if !n.Valid || !n.SoftwareTPM || n.Levels[1] != "warn" || n.Reasons[1] != "old" || n.Tags["country"] != "de" || !n.Expires.Equal(now.Add(time.Minute)) {
		t.Errorf("FromTrust(): got %+v", n)
	}
	nt.Status.Conditions[0].Status = metav1.ConditionFalse
	if FromTrust(nt).Valid {
		t.Error("FromTrust() of a result that does not count: valid")
	}
}
