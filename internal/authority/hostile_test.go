package authority

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
)

// raw sends a request as text over TLS with a machine's certificate and returns the status, 0 when AIAS just closed.
func (m *machine) raw(request string) (int, error) {
	m.w.t.Helper()
	tr := m.http.Transport.(*http.Transport)
	c, err := tls.Dial("tcp", m.w.Authority.cfg.Address, tr.TLSClientConfig)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { _, _ = io.WriteString(c, request) }()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, nil
}

// TestBodyTricks: other forms of the same request are refused with a 4xx, and the next honest one is served.
func TestBodyTricks(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	good, err := evidence.Encode(m.document(m.next))
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(good)
	_ = z.Close()
	head := "POST " + protocol.PathAttest + " HTTP/1.1\r\nHost: a\r\nContent-Type: " + protocol.MediaTypeEvidence + "\r\n"
	for name, req := range map[string]string{
		"gzip":                  head + fmt.Sprintf("Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", packed.Len(), packed.Bytes()),
		"chunked":               head + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
		"chunked and length":    head + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
		"two lengths":           head + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
		"negative length":       head + "Content-Length: -1\r\n\r\n",
		"length of 2^63":        head + "Content-Length: 9223372036854775808\r\n\r\n",
		"length above all":      head + "Content-Length: 9223372036854775807\r\n\r\n",
		"unknown transfer":      head + "Transfer-Encoding: gzip, chunked\r\n\r\n",
		"huge header":           head + "X: " + strings.Repeat("a", 1<<21) + "\r\n\r\n",
		"other media type":      strings.Replace(head, protocol.MediaTypeEvidence, "application/json", 1) + "Content-Length: 2\r\n\r\n{}",
		"other method":          strings.Replace(head, "POST", "TRACE", 1) + "\r\n",
		"no HTTP":               "\x16\x03\x01\x00\x00 nonsense\r\n\r\n",
		"line ends in the path": "GET " + protocol.PathNodes + "/a%0d%0aX:%20b HTTP/1.1\r\nHost: a\r\n\r\n",
		"path that climbs":      "GET /v1/../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		if status, err := m.raw(req); err == nil && (status < 300 || status == 500) {
			t.Errorf("%s: got status %d, want a refusal", name, status)
		}
	}
	if a := m.attest(); !a.Trusted {
		t.Errorf("honest evidence after the tricks: got %+v, want trusted", a)
	}
}

// TestTruncatedAndFlippedAnywhere: Evidence that is cut at any byte, or has any byte changed, is a 4xx or a verdict that is no trust; AIAS and other
// nodes go on.
func TestTruncatedAndFlippedAnywhere(t *testing.T) {
	w := newWorld(t)
	m, other := w.enrolled("worker-1"), w.enrolled("worker-2")
	good, err := evidence.Encode(m.document(m.next))
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		err := w.call(m.http, http.MethodPost, protocol.PathAttest, good[:i], nil)
		wantProblem(t, fmt.Sprintf("cut at byte %d", i), err, http.StatusBadRequest, "malformed-evidence")
	}
	quoted := m.document(m.next).Quotes[0]
	for i := range quoted.Message {
		d := m.document(m.next)
		d.Quotes[0].Message[i] ^= 0x20
		if a, err := m.send(d); err == nil && a.Trusted {
			t.Errorf("byte %d of the quote changed: got trusted", i)
		}
	}
	for i := range quoted.Signature {
		d := m.document(m.next)
		d.Quotes[0].Signature[i] ^= 0x20
		if a, err := m.send(d); err == nil && a.Trusted {
			t.Errorf("byte %d of the signature changed: got trusted", i)
		}
	}
	if a := other.attest(); !a.Trusted {
		t.Errorf("another node: got %+v, want trusted", a)
	}
	w.node("worker-1").changes.SetLimit(rate.Inf)
	if a := m.attest(); !a.Trusted {
		t.Errorf("honest evidence at the end: got %+v, want trusted", a)
	}
}

// TestRequestBodies: JSON is taken only in one spelling.
func TestRequestBodies(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	for name, body := range map[string]string{
		"unknown field":        `{"node":"a","colour":"red"}`,
		"field twice":          `{"node":"a","node":"b"}`,
		"field in two cases":   `{"node":"a","Node":"b"}`,
		"deep nesting":         `{"node":` + strings.Repeat("[", 200000) + `}`,
		"an array":             `[]`,
		"null":                 `null`,
		"two values":           `{"node":"a"}{"node":"b"}`,
		"wrong type":           `{"node":7}`,
		"no JSON":              "\x00\xff",
		"nothing":              ``,
		"cut":                  `{"node":"a`,
		"number out of bounds": `{"node":1e999999}`,
	} {
		for _, path := range []string{protocol.PathEnrol, protocol.PathActivate} {
			req, _ := http.NewRequest(http.MethodPost, w.url+path, strings.NewReader(body))
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusBadRequest || !bytes.Contains(b, []byte("malformed-request")) || len(b) > 2000 {
				t.Errorf("%s at %s: got %d %.200s, want 400 malformed-request", name, path, resp.StatusCode, b)
			}
		}
	}
	req, _ := http.NewRequest(http.MethodPost, w.url+protocol.PathEnrol, strings.NewReader(`{"node":"`+strings.Repeat("a", maxRequest)+`"}`))
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("huge body: got %d, want %d", resp.StatusCode, http.StatusRequestEntityTooLarge)
	}
}

// TestAgentNameIsPrintable: what a node says about its program reaches terminals and logs.
func TestAgentNameIsPrintable(t *testing.T) {
	w := newWorld(t)
	m := w.machine("worker-1")
	r := m.request(w.token(protocol.TokenRequest{}))
	r.Agent = "1.0\x1b[2J\n\u202eevil"
	ch, err := m.begin(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.finish(m.proof(ch)); err != nil {
		t.Fatal(err)
	}
	if n := m.node(); n.Agent != "1.0[2Jevil" {
		t.Errorf("agent: got %q, want it without control characters", n.Agent)
	}
}

// TestFlappingNode: a node whose verdict changes all the time cannot fill the history, and its fall is never held back.
func TestFlappingNode(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	w.node("worker-1").changes.SetBurst(3)
	m.attest()
	ctx := context.Background()
	held := false
	for i := range 20 {
		m.clock.ResetCount++
		m.list = []byte("boot_aggregate;miner;")
		if a := m.attest(); a.Trusted {
			t.Fatalf("fall %d: got trusted", i)
		}
		m.clock.ResetCount++
		m.list = []byte("boot_aggregate;")
		if _, err := m.send(m.document(m.next)); err != nil {
			wantProblem(t, "recovery of a node that flaps", err, http.StatusTooManyRequests, "too-many")
			held = true
		}
	}
	changes, err := w.admin.History(ctx, "worker-1", 100, 0)
	if err != nil || !held || len(changes) > 10 {
		t.Errorf("history of a node that flaps: got %d changes, %v, held back %v; want at most 10, true", len(changes), err, held)
	}
	if n := m.node(); n.Trust != protocol.Untrusted {
		t.Errorf("node that flaps: got %q, want untrusted", n.Trust)
	}
}

// TestLargeEvidenceCountsAsSeveral: the bytes that a node may send in the long run are bounded, too.
func TestLargeEvidenceCountsAsSeveral(t *testing.T) {
	w := newWorld(t, func(w *world) { w.cfg.Limits.PerNode, w.cfg.Limits.PerNodeBurst = 0.001, 6 })
	m, other := w.enrolled("worker-1"), w.enrolled("worker-2")
	m.list = append(m.list, make([]byte, 3*largeUnit)...) // 1 and 3 of 6
	m.attest()
	m.clock.ResetCount++
	_, err := m.send(m.document(m.next))
	wantProblem(t, "large evidence again", err, http.StatusTooManyRequests, "too-many")
	other.attest()
}

// TestReasonsAreShort: what a node can put into logs, history and results is bounded.
func TestReasonsAreShort(t *testing.T) {
	long := "unknown file " + strings.Repeat("/\xe2\x82\xac", 10000)
	w := newWorld(t)
	m := w.enrolled("worker-1")
	w.judge.forbidden = append(w.judge.forbidden, long)
	m.list = append(m.list, long...)
	a := m.attest()
	changes, err := w.admin.History(context.Background(), "worker-1", 1, 0)
	if err != nil || a.Trusted {
		t.Fatalf("attestation: got %v, %v; want not trusted", a.Trusted, err)
	}
	if n, l, r := len(changes[0].Reason), len(a.Levels[4].Reason), len(a.Result); n > 2*maxReason || l > 2*maxReason || r > 8<<10 {
		t.Errorf("reason in the history, of the level, result: got %d, %d, %d bytes", n, l, r)
	}
}
