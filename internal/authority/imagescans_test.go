package authority

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

var (
	someManifest = "sha256:" + strings.Repeat("a1", 32)
	someConfig   = "sha256:" + strings.Repeat("b2", 32)
)

// scanOf is a report of a scan in which one rule of high severity has an outcome.
func scanOf(t testing.TB, target, outcome string, at time.Time) *protocol.ImageReport {
	t.Helper()
	stamp := at.UTC().Format(time.RFC3339)
	text := fmt.Sprintf(`<TestResult xmlns="http://checklists.nist.gov/xccdf/1.2" id="xccdf_x_testresult_y" start-time="%s" end-time="%s" version="1" test-system="cpe:/a:redhat:openscap:1.3.7">
<benchmark href="x" id="xccdf_x_benchmark_y"/><profile idref="baseline"/><target>whatever</target><target-facts><fact name="urn:xccdf:fact:identifier" type="string">%s</fact></target-facts>
<rule-result idref="xccdf_x_rule_telnet" severity="high"><result>%s</result></rule-result><rule-result idref="xccdf_x_rule_other" severity="low"><result>pass</result></rule-result>
<score system="urn:xccdf:scoring:default" maximum="100">50</score></TestResult>`, stamp, stamp, target, outcome)
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &protocol.ImageReport{Manifest: someManifest, Config: someConfig, TestResult: b.Bytes(), Content: strings.Repeat("c", 64), At: at,
		Feed: &protocol.ImageFeed{SHA256: strings.Repeat("d", 64), Made: at, Packages: 1, Judged: 2, Flaws: []protocol.ImageFlaw{{ID: "CVE-2026-1", Severity: "low", Package: "p", Installed: "1"}}}}
}

func TestImageScans(t *testing.T) {
	w := newWorld(t)
	now := w.clock.Now().Truncate(time.Second)
	target := protocol.ScanTargetImage(someManifest)
	if _, err := w.admin.SubmitImage(t.Context(), someManifest, scanOf(t, target, "pass", now)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.admin.SubmitImage(t.Context(), someManifest, scanOf(t, target, "fail", now.Add(time.Second))); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start() // kept on disk
	for _, digest := range []string{someManifest, someConfig} {
		all, err := w.admin.Image(t.Context(), digest)
		if err != nil || len(all) != 1 {
			t.Fatalf("%s: got %d results, %v, want the newest", digest, len(all), err)
		}
		keys, err := w.admin.JWKS(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		said, err := result.VerifyImage(all[0].Statement, keys, digest, w.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		if said.Profile != "baseline" || said.Failed["high"] != 1 || said.Passed != 1 || said.Flaws["low"] != 1 || said.By != "tester" || !said.Scanned.Equal(now.Add(time.Second)) {
			t.Errorf("%s: AIAS says %+v", digest, said)
		}
	}
	list, err := w.admin.Images(t.Context())
	if err != nil || len(list) != 1 || list[0].Scan.Rules != nil || list[0].Statement != "" {
		t.Errorf("got list %+v, %v", list, err)
	}
	if none, err := w.admin.Image(t.Context(), "sha256:"+strings.Repeat("0", 64)); err != nil || len(none) != 0 {
		t.Errorf("an image that was never scanned: got %v, %v", none, err)
	}
}

// TestImageScansRefused: what is about another image, older, of the future or malformed changes nothing.
func TestImageScansRefused(t *testing.T) {
	w := newWorld(t)
	now := w.clock.Now().Truncate(time.Second)
	target := protocol.ScanTargetImage(someManifest)
	if _, err := w.admin.SubmitImage(t.Context(), someManifest, scanOf(t, target, "fail", now)); err != nil {
		t.Fatal(err)
	}
	good := func(change func(*protocol.ImageReport)) *protocol.ImageReport {
		r := scanOf(t, target, "pass", now)
		change(r)
		return r
	}
	for name, r := range map[string]*protocol.ImageReport{
		"about another image": scanOf(t, protocol.ScanTargetImage(someConfig), "pass", now),
		"about a node":        scanOf(t, "touchstone://node/worker-1", "pass", now),
		"nothing applies":     scanOf(t, target, "notapplicable", now.Add(-time.Hour)),
		"older":               scanOf(t, target, "pass", now.Add(-time.Hour)),
		"of the future":       scanOf(t, target, "pass", now.Add(time.Hour)),
		"no gzip":             good(func(r *protocol.ImageReport) { r.TestResult = []byte("x") }),
		"entities": good(func(r *protocol.ImageReport) {
			r.TestResult = gzipped(t, `<!DOCTYPE a [<!ENTITY b "c">]><TestResult/>`)
		}),
		"no content":     good(func(r *protocol.ImageReport) { r.Content = "" }),
		"other manifest": good(func(r *protocol.ImageReport) { r.Manifest = someConfig }),
		"nothing":        good(func(r *protocol.ImageReport) { r.TestResult, r.Feed = nil, nil }),
		"odd severity":   good(func(r *protocol.ImageReport) { r.Feed.Flaws[0].Severity = "none" }),
		"empty feed":     good(func(r *protocol.ImageReport) { r.Feed.Judged = 0 }),
	} {
		if _, err := w.admin.SubmitImage(t.Context(), someManifest, r); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	all, err := w.admin.Image(t.Context(), someManifest)
	if err != nil || len(all) != 1 || all[0].Scan.Rules[1].Outcome != "fail" {
		t.Errorf("got %+v, %v, want the scan that failed", all, err)
	}
	n := w.enrolled("worker-1")
	wantProblem(t, "a node", w.call(n.http, http.MethodPut, "/v1/images/"+someManifest, good(func(*protocol.ImageReport) {}), nil), http.StatusForbidden, "role")
}

func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(text))
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
