package isecl

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// trusts are NodeTrusts of n nodes.
func trusts(n int) []v1alpha1.NodeTrust {
	list := make([]v1alpha1.NodeTrust, n)
	for i := range list {
		list[i].Name = fmt.Sprintf("n%03d", n-i)
		list[i].Status = v1alpha1.NodeTrustStatus{Trusted: true, Result: "a.b.c", ExpiresAt: &metav1.Time{Time: now}, Tags: map[string]string{"Country": "DE"}}
	}
	return list
}

func byName(hosts []Host) map[string]Host {
	m := map[string]Host{}
	for _, h := range hosts {
		m[h.Name] = h
	}
	return m
}

// TestMerge: what leads to a write at once, what to one that can wait, and whose time of change moves.
func TestMerge(t *testing.T) {
	before, n := merge(hosts(trusts(2)), nil, now)
	if n != words || before[0].Name != "n001" || before[0].Updated == "" {
		t.Fatalf("merge() with no object: got %v, %v", n, before)
	}
	for _, tc := range []struct {
		name   string
		change func([]Host) []Host
		want   news
	}{
		{"nothing", func(h []Host) []Host { return h }, nothing},
		{"a newer result", func(h []Host) []Host { h[0].ValidTo, h[0].Report = "2026-11-24T12:05:00Z", "d.e.f"; return h }, times},
		{"a fall", func(h []Host) []Host { h[0].Trusted = false; return h }, words},
		{"a tag", func(h []Host) []Host { h[0].Tags = map[string]string{"TAG_Country": "FR"}; return h }, words},
		{"a feature", func(h []Host) []Host { h[0].Features = map[string]string{"FEATURE_TPM": "true"}; return h }, words},
		{"another node", func(h []Host) []Host { h[0].Name = "n009"; return h }, words},
		{"a node less", func(h []Host) []Host { return h[1:] }, words},
	} {
		got, n := merge(tc.change(hosts(trusts(2))), byName(before), now.Add(time.Hour))
		if n != tc.want {
			t.Errorf("%s: merge(): got %d, want %d", tc.name, n, tc.want)
		}
		last := got[len(got)-1]
		if last.Updated != before[1].Updated {
			t.Errorf("%s: merge(): the time of a host that did not change: got %s, want %s", tc.name, last.Updated, before[1].Updated)
		}
		if changed := got[0].Updated != before[0].Updated; len(got) == 2 && changed != (tc.want != nothing) {
			t.Errorf("%s: merge(): the time of the host: got %s", tc.name, got[0].Updated)
		}
	}
}

// TestManyHosts: the object of a large cluster leaves the signed results out: it would be too large for etcd.
func TestManyHosts(t *testing.T) {
	for n, want := range map[int]string{maxReports: "a.b.c", maxReports + 1: ""} {
		if got := hosts(trusts(n))[0].Report; got != want {
			t.Errorf("hosts() of %d nodes: got result %q, want %q", n, got, want)
		}
	}
}
