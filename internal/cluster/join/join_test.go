package join

import (
	"testing"
	"time"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/verdict"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// TestJudge: a request is approved for an attested node and a key of its kubelet, and nothing else; what may still come is waited for.
func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Request, *verdict.Said, *v1alpha1.NodeBinding)
		code   string
		wait   bool
	}{
		{"good", func(*Request, *verdict.Said, *v1alpha1.NodeBinding) {}, "Attested", false},
		{"renewal", func(q *Request, _ *verdict.Said, _ *v1alpha1.NodeBinding) { q.Key, q.Credential = "in-memory", "key" }, "Attested", false},
		{"nothing said", func(_ *Request, s *verdict.Said, _ *v1alpha1.NodeBinding) { *s = verdict.Said{} }, "NotAttested", true},
		{"removed", func(_ *Request, s *verdict.Said, _ *v1alpha1.NodeBinding) { s.Removed = true }, "NotAttested", true},
		{"refused", func(_ *Request, s *verdict.Said, _ *v1alpha1.NodeBinding) { *s = verdict.Said{Problem: "no key"} }, "NotAttested", true},
		{"expires now", func(_ *Request, s *verdict.Said, _ *v1alpha1.NodeBinding) { s.Result.Expires = now }, "NotAttested", true},
		{"issued in the future", func(_ *Request, s *verdict.Said, _ *v1alpha1.NodeBinding) {
			s.Result.Issued = now.Add(61 * time.Second)
		}, "NotAttested", true},
		{"clocks differ a little", func(_ *Request, s *verdict.Said, _ *v1alpha1.NodeBinding) {
			s.Result.Issued = now.Add(59 * time.Second)
		}, "Attested", false},
		{"untrusted", func(_ *Request, s *verdict.Said, _ *v1alpha1.NodeBinding) { s.Result.Trusted = false }, "Untrusted", false},
		{"AIAS took it back", func(_ *Request, s *verdict.Said, _ *v1alpha1.NodeBinding) { s.Trust = protocol.Untrusted }, "NotAttested", true},
		{"other node", func(q *Request, _ *verdict.Said, _ *v1alpha1.NodeBinding) { q.Node = "w2" }, "OtherNode", false},
		{"other TPM", func(_ *Request, _ *verdict.Said, b *v1alpha1.NodeBinding) { b.AKName = "other" }, "OtherTPM", false},
		{"key of nobody", func(q *Request, _ *verdict.Said, _ *v1alpha1.NodeBinding) { q.Key = "other" }, "UnknownKey", true},
		{"credential of another machine", func(q *Request, _ *verdict.Said, _ *v1alpha1.NodeBinding) { q.Key, q.Credential = "other", "other" }, "UnknownKey", true},
		{"no key reported, none asked with", func(q *Request, s *verdict.Said, _ *v1alpha1.NodeBinding) {
			q.Key, s.Result.Machine.KubeletKeys = "", nil
		}, "UnknownKey", true},
	} {
		asked, bound := &Request{Node: "w1", Key: "key"}, &v1alpha1.NodeBinding{AKName: "ak"}
		said := verdict.Said{Trust: protocol.Trusted, Result: &result.Result{
			Node: "w1", AKName: "ak", Trusted: true, Issued: now.Add(-time.Minute), Expires: now.Add(time.Minute), Machine: result.Machine{KubeletKeys: []string{"key"}},
		}}
		tc.change(asked, &said, bound)
		got := Judge(asked, said, bound, now)
		if got.Code != tc.code || got.Wait != tc.wait || got.Approve != (tc.code == "Attested") || got.Reason == "" {
			t.Errorf("%s: Judge(): got %+v, want %s, wait %v", tc.name, got, tc.code, tc.wait)
		}
	}
}
