package authority

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// TestTailoringOfPolicy: AIAS names the tailoring of its policy with the challenge, hands it over, and accepts scans by this one only.
func TestTailoringOfPolicy(t *testing.T) {
	w := worldWith(t, strings.Replace(scanPolicy, "maxAge: 24h", "maxAge: 24h, tailoring: {deselect: [{rule: xccdf_x_rule_a, reason: console}]}", 1))
	m := w.enrolled("worker-1")
	a, err := m.send(m.quoted(m.next, m.booted("good")))
	if err != nil {
		t.Fatal(err)
	}
	got := &protocol.Tailoring{}
	if err := w.call(m.http, http.MethodGet, protocol.PathTailoring, nil, got); err != nil || got.SHA256 != a.Next.Tailoring || got.SHA256 == "" || !strings.Contains(string(got.Document), "xccdf_x_rule_a") {
		t.Fatalf("tailoring: %+v, %v; the challenge named %q", got, err, a.Next.Tailoring)
	}
	_, err = m.report(m.scanOf(w.clock.Now()))
	wantProblem(t, "by the profile as it was", err, http.StatusUnprocessableEntity, "other-profile")
	tailored := strings.Replace(testResult("worker-1", w.clock.Now()), "xccdf_x_profile_worker", got.Profile, 1)
	for i, test := range []struct{ name, tailoring, want string }{
		{"by no tailoring", "", "did not use the tailoring of the policy"},
		{"by another one", strings.Repeat("ab", 32), "a tailoring that the policy does not name"},
		{"by that of the policy", got.SHA256, ""},
	} {
		r := m.packed(tailored, w.clock.Now().Add(time.Duration(i)*time.Second))
		r.Tailoring = test.tailoring
		_, err := m.report(r)
		n, errNode := w.admin.Node(t.Context(), "worker-1")
		if err != nil || errNode != nil || (n.Trust == protocol.Trusted) != (test.want == "") || !strings.Contains(n.Reason, test.want) {
			t.Errorf("%s: got %v, %v, node %s: %q; want %q", test.name, err, errNode, n.Trust, n.Reason, test.want)
		}
	}
}

// TestNoTailoring: a policy without one says so.
func TestNoTailoring(t *testing.T) {
	w := scanWorld(t)
	m := w.enrolled("worker-1")
	if m.next.Tailoring != "" {
		t.Errorf("challenge: got tailoring %q", m.next.Tailoring)
	}
	wantProblem(t, "tailoring", w.call(m.http, http.MethodGet, protocol.PathTailoring, nil, nil), http.StatusNotFound, "no-tailoring")
}
