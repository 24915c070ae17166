package authority

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

const scanPolicy = "\nspec:\n  runtime: {compliance: {mode: required, profile: xccdf_x_profile_worker, maxAge: 24h, maxFailed: {low: 1}}}\n"

// scanWorld judges by a policy that demands a compliance scan.
func scanWorld(t testing.TB) *world { return worldWith(t, scanPolicy) }

// worldWith judges by the policy of the boots and more.
func worldWith(t testing.TB, more string) *world {
	return newWorld(t, func(w *world) {
		load := LoadFrom(filepath.Join(boots, "references"))
		policy := strings.Replace(string(bootFile(t, "policy.yaml")), "\nspec:\n", more, 1)
		w.loader = func([]byte) (*Snapshot, error) {
			s, err := load([]byte(policy))
			if err == nil {
				s.Roots, s.Links = w.roots, append(s.Links, w.maker.Issuer)
			}
			return s, err
		}
	})
}

// scanOf is a report of a scan of m at a time; rules are "id severity outcome" each.
func (m *machine) scanOf(at time.Time, rules ...string) *protocol.ComplianceReport {
	m.w.t.Helper()
	return m.packed(testResult(m.name, at, rules...), at)
}

func testResult(node string, at time.Time, rules ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<TestResult xmlns="%s" id="r" end-time="%s"><profile idref="xccdf_x_profile_worker"/><target-facts><fact name="%s" type="string">touchstone://node/%s</fact></target-facts>`,
		xccdf.Namespace, at.UTC().Format(time.RFC3339), xccdf.FactIdentifier, node)
	for _, r := range append(rules, "xccdf_x_rule_fine high pass") {
		f := strings.Fields(r)
		fmt.Fprintf(&b, `<rule-result idref="%s" severity="%s"><result>%s</result></rule-result>`, f[0], f[1], f[2])
	}
	b.WriteString("</TestResult>")
	return b.String()
}

func (m *machine) packed(xml string, at time.Time) *protocol.ComplianceReport {
	m.w.t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(xml)); err != nil {
		m.w.t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		m.w.t.Fatal(err)
	}
	return &protocol.ComplianceReport{TestResult: b.Bytes(), Content: strings.Repeat("ab", 32), Tool: "1.3.7", At: at,
		Words: map[string]verdict.Words{"xccdf_x_rule_telnet": {Title: "No telnet", Fix: "apt purge telnet"}}}
}

func (m *machine) report(r *protocol.ComplianceReport) (*protocol.ComplianceAnswer, error) {
	m.w.t.Helper()
	out := &protocol.ComplianceAnswer{}
	err := m.w.call(m.http, http.MethodPost, protocol.PathCompliance, r, out)
	if err == nil && len(r.TestResult) > 0 {
		m.scans = map[string][]byte{"host 1": digestOf(m.w.t, r)}
	}
	return out, err
}

// TestComplianceDecides: level 5 follows the newest scan at once, without new Evidence, over restarts, and until it is too old.
func TestComplianceDecides(t *testing.T) {
	w := scanWorld(t)
	m := w.enrolled("worker-1")
	bank := m.booted("good")
	attest := func(when, want string) {
		t.Helper()
		a, err := m.send(m.quoted(m.next, bank))
		if err != nil || a.Trusted != (want == "") || !strings.Contains(a.Levels[4].Reason, want) {
			t.Fatalf("%s: got %+v and %v, want level 5 %q", when, a, err, want)
		}
	}
	scan := func(when, want string, r *protocol.ComplianceReport) {
		t.Helper()
		got, err := m.report(r)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		n, err := w.admin.Node(t.Context(), "worker-1")
		if err != nil || got.Trusted != (want == "") || (n.Trust == protocol.Trusted) != got.Trusted || !strings.Contains(n.Reason, want) {
			t.Fatalf("%s: got %+v, node %s %q, %v; want %q", when, got, n.Trust, n.Reason, err, want)
		}
	}
	attest("no scan yet", "there is no compliance scan")
	scan("good", "", m.scanOf(w.clock.Now(), "xccdf_x_rule_a low fail"))
	attest("good", "")
	scan("telnet", "high rule telnet: fails", m.scanOf(w.clock.Now().Add(time.Second), "xccdf_x_rule_telnet high fail"))
	c, err := w.admin.Compliance(t.Context(), "worker-1")
	if err != nil || len(c.Problems) != 1 || c.Problems[0].Remedy != "apt purge telnet" || len(c.Drift) != 2 {
		t.Errorf("Compliance: got %+v, %v; want telnet with its remediation, and two rules that changed", c, err)
	}
	w.restart()
	m.connect()
	attest("telnet, after a restart", "high rule telnet: fails")
	jwt, err := w.admin.Result(t.Context(), "worker-1")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := result.Verify(jwt.Result, w.jwks, result.Expectation{Node: "worker-1", Now: w.clock.Now()}); err != nil || r.Compliance == nil || r.Compliance.Failed["high"] != 1 || r.Compliance.Status != appraisal.Fail {
		t.Errorf("the signed result says of the scan that fails: %+v, %v", r, err)
	}
	scan("mended", "", m.scanOf(w.clock.Now().Add(2*time.Second)))
	scan("error is no pass", "came to no result", &protocol.ComplianceReport{Error: "the canary died", At: w.clock.Now().Add(3 * time.Second)})
	w.restart()
	m.connect()
	attest("error, after a restart", "came to no result")
	w.clock.Advance(4 * time.Second)
	scan("good again", "", m.scanOf(w.clock.Now()))
	w.clock.Advance(25 * time.Hour)
	if err := w.call(m.http, http.MethodGet, protocol.PathChallenge, nil, &m.next); err != nil {
		t.Fatal(err)
	}
	attest("too old", "too old")
	jwt, err = w.admin.Result(t.Context(), "worker-1")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := result.Verify(jwt.Result, w.jwks, result.Expectation{Node: "worker-1", Now: w.clock.Now()}); err != nil || r.Compliance == nil || r.Compliance.Passed != 1 || r.Compliance.Tool != "1.3.7" || r.Compliance.Status != appraisal.Fail {
		t.Errorf("the signed result says of the scan: %+v, %v", r, err)
	}
}

// TestBadScans: what is no scan of this node, now, by what the policy names, is refused and changes nothing.
func TestBadScans(t *testing.T) {
	w := scanWorld(t)
	m := w.enrolled("worker-1")
	now := w.clock.Now()
	_, err := m.report(m.scanOf(now))
	wantProblem(t, "not attested", err, http.StatusForbidden, "not-attested")
	if _, err := m.send(m.quoted(m.next, m.booted("good"))); err != nil {
		t.Fatal(err)
	}
	if _, err := m.report(m.scanOf(now)); err != nil {
		t.Fatal(err)
	}
	change := func(f func(r *protocol.ComplianceReport)) *protocol.ComplianceReport {
		r := m.scanOf(now.Add(time.Second))
		f(r)
		return r
	}
	words := map[string]verdict.Words{}
	for i := range protocol.MaxRuleWords + 1 {
		words[fmt.Sprint(i)] = verdict.Words{}
	}
	good := testResult("worker-1", now)
	for _, test := range []struct {
		name string
		r    *protocol.ComplianceReport
		code int
		kind string
	}{
		{"older than the newest", m.scanOf(now.Add(-time.Minute)), http.StatusConflict, "older-scan"},
		{"stale", m.scanOf(now.Add(-49 * time.Hour)), http.StatusUnprocessableEntity, "stale"},
		{"of the future", m.scanOf(now.Add(time.Hour)), http.StatusUnprocessableEntity, "future"},
		{"error of the future", &protocol.ComplianceReport{Error: "x", At: now.Add(time.Hour)}, http.StatusUnprocessableEntity, "future"},
		{"nothing", &protocol.ComplianceReport{At: now}, http.StatusUnprocessableEntity, "scan"},
		{"of another node", m.packed(testResult("worker-2", now), now), http.StatusUnprocessableEntity, "other-target"},
		{"of nobody", m.packed(strings.Replace(good, "touchstone://node/worker-1", "", 1), now), http.StatusUnprocessableEntity, "other-target"},
		{"another profile", m.packed(strings.Replace(good, "profile_worker", "profile_easy", 1), now), http.StatusUnprocessableEntity, "other-profile"},
		{"malformed", m.packed(good[:len(good)-5], now), http.StatusUnprocessableEntity, "scan"},
		{"entities", m.packed(`<!DOCTYPE a [<!ENTITY b "c">]>`+good, now), http.StatusUnprocessableEntity, "scan"},
		{"bomb", m.packed(good+strings.Repeat(" ", xccdf.MaxTestResult), now), http.StatusUnprocessableEntity, "scan"},
		{"not compressed", change(func(r *protocol.ComplianceReport) { r.TestResult = []byte(good) }), http.StatusUnprocessableEntity, "scan"},
		{"no content", change(func(r *protocol.ComplianceReport) { r.Content = "" }), http.StatusUnprocessableEntity, "scan"},
		{"tailoring", change(func(r *protocol.ComplianceReport) { r.Tailoring = "ab" }), http.StatusUnprocessableEntity, "scan"},
		{"many words", change(func(r *protocol.ComplianceReport) { r.Words = words }), http.StatusUnprocessableEntity, "scan"},
		{"long words", change(func(r *protocol.ComplianceReport) {
			r.Words = map[string]verdict.Words{"a": {Fix: strings.Repeat("x", protocol.MaxWords+1)}}
		}), http.StatusUnprocessableEntity, "scan"},
		{"oversized", change(func(r *protocol.ComplianceReport) { r.TestResult = make([]byte, maxRequest) }), http.StatusRequestEntityTooLarge, "too-large"},
	} {
		_, err := m.report(test.r)
		wantProblem(t, test.name, err, test.code, test.kind)
	}
	if n, err := w.admin.Node(t.Context(), "worker-1"); err != nil || n.Trust != protocol.Trusted {
		t.Errorf("after bad scans: node %+v, %v; want trusted by the good one", n, err)
	}
	w.clock.Advance(testLifetime * 2)
	_, err = m.report(m.scanOf(w.clock.Now()))
	wantProblem(t, "attestation has expired", err, http.StatusForbidden, "not-attested")
}

// TestScanAsked: an operator's wish reaches the node with its next challenge, and is over when a scan comes, over restarts of AIAS.
func TestScanAsked(t *testing.T) {
	w := scanWorld(t)
	m := w.enrolled("worker-1")
	bank := m.booted("good")
	ask, err := w.admin.AskScan(t.Context(), "worker-1", false)
	if err != nil {
		t.Fatal(err)
	}
	w.restart()
	m.connect()
	a, err := m.send(m.quoted(m.next, bank))
	if err != nil || a.Next.Scan != ask.Number {
		t.Fatalf("next challenge: %+v, %v; want scan %d", a, err, ask.Number)
	}
	r := m.scanOf(w.clock.Now())
	r.Asked = ask.Number
	if _, err := m.report(r); err != nil {
		t.Fatal(err)
	}
	if a, err = m.send(m.quoted(a.Next, bank)); err != nil || a.Next.Scan != 0 {
		t.Errorf("challenge after the scan: %+v, %v; want none asked for", a, err)
	}
	w.restart()
	if c, err := w.admin.Compliance(t.Context(), "worker-1"); err != nil || !c.Asked.IsZero() {
		t.Errorf("after the scan and a restart: asked at %s, %v", c.Asked, err)
	}
}
