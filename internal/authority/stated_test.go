package authority

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
)

// digestOf is the SHA-256 of the result in a report.
func digestOf(t testing.TB, r *protocol.ComplianceReport) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(r.TestResult))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// TestScanMustBeStated: a result at AIAS that the worker's TPM did not sign for costs trust, once the worker was asked after it came; also when kept Evidence is
// judged again, after a restart.
func TestScanMustBeStated(t *testing.T) {
	w := scanWorld(t)
	m := w.enrolled("worker-1")
	bank := m.booted("good")
	stated := map[string][]byte{}
	m.states = func() *evidence.Statement { return &evidence.Statement{Compliance: stated} }
	attest := func(when, want string) {
		t.Helper()
		w.clock.Advance(2 * time.Second)
		if err := w.call(m.http, http.MethodGet, protocol.PathChallenge, nil, &m.next); err != nil {
			t.Fatal(err)
		}
		a, err := m.send(m.quoted(m.next, bank))
		if err != nil || a.Trusted != (want == "") || !strings.Contains(a.Levels[4].Reason, want) {
			t.Fatalf("%s: got %+v and %v, want level 5 %q", when, a, err, want)
		}
	}
	report := func() []byte {
		t.Helper()
		r := m.scanOf(w.clock.Now())
		if _, err := m.report(r); err != nil {
			t.Fatal(err)
		}
		return digestOf(t, r)
	}
	attest("no scan", "there is no compliance scan")
	one := report()
	if n, err := w.admin.Node(t.Context(), "worker-1"); err != nil || n.Trust != protocol.Trusted {
		t.Errorf("a scan that came after the statement: %+v, %v; want trusted", n, err)
	}
	attest("none is stated", "signs that it made none")
	stated["host 1"] = one
	attest("it is stated", "")
	w.clock.Advance(2 * time.Second)
	two := report()
	stated["host 2"] = bytes.Repeat([]byte{1}, sha256.Size)
	attest("only the one before and another one are stated", "none of those that the worker signed")
	w.restart()
	m.connect()
	if n, err := w.admin.Node(t.Context(), "worker-1"); err != nil || n.Trust == protocol.Trusted {
		t.Errorf("after a restart: %+v, %v; want not trusted", n, err)
	}
	stated["host 2"] = two
	attest("both are stated, as while the second is on its way", "")
	delete(stated, "host 1")
	attest("the newest is stated", "")
}
