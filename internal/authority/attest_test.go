package authority

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

func TestAttestOneRoundTrip(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	first := m.attest()
	if !first.Trusted || len(first.Levels) != 5 {
		t.Fatalf("first attestation: got trusted %v with %d levels, want trusted with 5", first.Trusted, len(first.Levels))
	}
	jwks, err := w.admin.JWKS(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	r, err := result.Verify(first.Result, jwks, result.Expectation{Node: "worker-1", AKName: m.node().AKName, Now: w.clock.Now()})
	if err != nil || !r.Trusted || r.ResetCount != 3 {
		t.Fatalf("result.Verify(%q): got %+v, %v; want a trusted one of reset 3", first.Result, r, err)
	}
	d := m.document(m.next)
	if len(d.EventLog)+len(d.Facts)+len(d.IMA) != 0 || d.IMAOffset != uint64(len(m.list)) {
		t.Errorf("second evidence: got %d, %d, %d bytes of logs from %d, want none from %d", len(d.EventLog), len(d.Facts), len(d.IMA), d.IMAOffset, len(m.list))
	}
	if _, err := m.send(d); err != nil {
		t.Fatalf("second attestation: %v", err)
	}
	m.list = append(m.list, "sshd;"...)
	if a := m.attest(); !a.Trusted {
		t.Errorf("attestation with a new good entry: got %+v, want trusted", a)
	}
	if got := w.judge.whole.Load(); got != 1 {
		t.Errorf("whole lists judged: got %d, want 1", got)
	}
}

func TestAttestFallAndRecovery(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.attest()
	m.list = append(m.list, "miner;"...)
	a := m.attest()
	if a.Trusted || a.Levels[4].Status != "fail" || !strings.Contains(a.Levels[4].Reason, "miner") {
		t.Fatalf("attestation with a miner: got %+v, want level 5 to fail for it", a)
	}
	m.attest() // still bad: no second change, first-bad stays
	m.clock.ResetCount, m.list = m.clock.ResetCount+1, []byte("boot_aggregate;again;")
	if a := m.attest(); !a.Trusted {
		t.Fatalf("attestation after a reboot: got %+v, want trusted", a)
	}
	changes, err := w.admin.History(context.Background(), "worker-1", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range changes {
		got = append(got, c.Cause+" "+c.From+">"+c.To)
	}
	want := "evidence untrusted>trusted,evidence trusted>untrusted,evidence unknown>trusted,enrolment >unknown"
	if strings.Join(got, ",") != want {
		t.Errorf("history: got %q, want %q", strings.Join(got, ","), want)
	}
}

func TestEvidenceIsKeptWhole(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.attest()
	m.list = append(m.list, "sshd;"...)
	m.attest()
	good := string(m.list)
	m.list = append(m.list, "miner;"...)
	m.attest()
	bad := string(m.list)
	m.list = append(m.list, "more;"...)
	m.attest()
	last := string(m.list)
	for which, want := range map[string]string{operator.LastGood: good, operator.FirstBad: bad, operator.Last: last} {
		b, err := w.admin.Evidence(context.Background(), "worker-1", which)
		if err != nil {
			t.Fatalf("Evidence(%s): %v", which, err)
		}
		d, err := evidence.Decode(b)
		if err != nil {
			t.Fatalf("Evidence(%s): %v", which, err)
		}
		if string(d.IMA) != want || d.IMAOffset != 0 {
			t.Errorf("Evidence(%s): got list %q from %d, want %q", which, d.IMA, d.IMAOffset, want)
		}
		if !bytes.Equal(d.EventLog, m.log) || len(d.Facts) != 1 || len(d.AK) == 0 || len(d.Nonce) == 0 {
			t.Errorf("Evidence(%s): event log %q, %d facts, key %d bytes, nonce %d bytes: want all of it", which, d.EventLog, len(d.Facts), len(d.AK), len(d.Nonce))
		}
	}
}

func TestNonceOfAnotherNode(t *testing.T) {
	w := newWorld(t)
	a, b := w.enrolled("worker-1"), w.enrolled("worker-2")
	_, err := a.send(a.document(b.next))
	p := wantProblem(t, "nonce of another node", err, http.StatusConflict, "stale-challenge")
	if p.Challenge == nil || bytes.Equal(p.Challenge.Nonce, b.next.Nonce) {
		t.Errorf("refusal: got challenge %v, want a fresh one", p.Challenge)
	}
}

func TestNonceStale(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	d := m.document(m.next)
	w.clock.Advance(time.Duration(w.cfg.ChallengeLifetime) + time.Second)
	_, err := m.send(d)
	p := wantProblem(t, "stale nonce", err, http.StatusConflict, "stale-challenge")
	if _, err := m.send(m.document(*p.Challenge)); err != nil {
		t.Errorf("evidence for the challenge of the refusal: %v", err)
	}
}

func TestNonceReused(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	used := m.next
	m.attest()
	_, err := m.send(m.document(used))
	wantProblem(t, "reused nonce", err, http.StatusConflict, "stale-challenge")
}

func TestSkippedChallenge(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	skipped := m.next
	if err := w.call(m.http, http.MethodGet, protocol.PathChallenge, nil, &m.next); err != nil {
		t.Fatal(err)
	}
	m.attest()
	_, err := m.send(m.document(skipped))
	wantProblem(t, "challenge older than the one answered", err, http.StatusConflict, "stale-challenge")
	none := m.document(protocol.Challenge{})
	_, err = m.send(none)
	wantProblem(t, "no challenge at all", err, http.StatusConflict, "stale-challenge")
}

func TestNonceReusedAfterRestart(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	used := m.next
	m.attest()
	w.restart()
	m.connect()
	_, err := m.send(m.document(used))
	wantProblem(t, "nonce reused after a restart", err, http.StatusConflict, "stale-challenge")
	m.attest() // and the one that is open still works
}

func TestNonceDiffersByCase(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	c := m.next
	for i := range c.Nonce {
		letter := c.Nonce[i] | 0x20
		if letter < 'a' || letter > 'z' {
			continue
		}
		changed := c
		changed.Nonce = bytes.Clone(c.Nonce)
		changed.Nonce[i] ^= 0x20
		_, err := m.send(m.document(changed))
		wantProblem(t, "nonce with a letter of another case", err, http.StatusConflict, "stale-challenge")
	}
	m.attest()
}

func TestOldQuoteReplayed(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	old := m.document(m.next)
	if _, err := m.send(old); err != nil {
		t.Fatal(err)
	}
	replay := m.document(m.next)
	replay.Quotes = old.Quotes
	a, err := m.send(replay)
	if err != nil || a.Trusted {
		t.Fatalf("old quote under a fresh nonce: got %+v, %v; want a verdict that is not trusted", a, err)
	}
	if n := m.node(); n.Trust != protocol.Untrusted {
		t.Errorf("node: got %q, want %q", n.Trust, protocol.Untrusted)
	}
	if a := m.attest(); !a.Trusted {
		t.Errorf("honest evidence after it: got %+v, want trusted", a)
	}
}

func TestDocumentNamesAnotherNode(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	w.enrolled("worker-2")
	d := m.document(m.next)
	d.Node = "worker-2"
	_, err := m.send(d)
	wantProblem(t, "document of another node", err, http.StatusForbidden, "other-node")
}

func TestCountersBackwards(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.attest()
	m.clock.ResetCount--
	d := m.document(m.next)
	a, err := m.send(d)
	if err != nil || a.Trusted {
		t.Fatalf("reset count going backwards: got %+v, %v; want not trusted", a, err)
	}
}

func TestGarbage(t *testing.T) {
	w := newWorld(t)
	m, other := w.enrolled("worker-1"), w.enrolled("worker-2")
	good, err := evidence.Encode(m.document(m.next))
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{"empty": {}, "truncated": good[:len(good)/2], "garbage": bytes.Repeat([]byte{0xa5}, 1000), "trailing": append(good, 0)} {
		err := w.call(m.http, http.MethodPost, protocol.PathAttest, body, nil)
		wantProblem(t, name, err, http.StatusBadRequest, "malformed-evidence")
	}
	if a := m.attest(); !a.Trusted {
		t.Errorf("good evidence after garbage: got %+v, want trusted", a)
	}
	other.attest()
}

func TestMalformedLogs(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.list = []byte("<malformed>")
	_, err := m.send(m.document(m.next))
	wantProblem(t, "malformed list", err, http.StatusBadRequest, "malformed-evidence")
}

func TestOversized(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	req, _ := http.NewRequest(http.MethodPost, w.url+protocol.PathAttest, strings.NewReader("x"))
	req.Header.Set("Content-Type", protocol.MediaTypeEvidence)
	req.ContentLength = evidence.MaxDocument + 1
	resp, err := m.http.Do(req)
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("oversized evidence: got status %d, want %d", resp.StatusCode, http.StatusRequestEntityTooLarge)
		}
	}
	req, _ = http.NewRequest(http.MethodPost, w.url+protocol.PathAttest, struct{ *strings.Reader }{strings.NewReader("x")})
	req.Header.Set("Content-Type", protocol.MediaTypeEvidence)
	req.ContentLength = -1
	resp, err = m.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusLengthRequired {
		t.Errorf("evidence of unknown length: got status %d, want %d", resp.StatusCode, http.StatusLengthRequired)
	}
}

func TestPanicHarmsNobodyElse(t *testing.T) {
	w := newWorld(t)
	m, other := w.enrolled("worker-1"), w.enrolled("worker-2")
	m.list = []byte("<panic>")
	_, err := m.send(m.document(m.next))
	wantProblem(t, "evidence that makes the verifier panic", err, http.StatusInternalServerError, "internal")
	if a := other.attest(); !a.Trusted {
		t.Errorf("another node after the panic: got %+v, want trusted", a)
	}
	m.list = []byte("fine")
	if a := m.attest(); !a.Trusted {
		t.Errorf("the same node after the panic: got %+v, want trusted", a)
	}
}

func TestResumeLost(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.attest()
	d := m.document(m.next)
	d.IMAOffset--
	_, err := m.send(d)
	p := wantProblem(t, "list that goes on elsewhere", err, http.StatusConflict, "resume")
	if c := p.Challenge; c == nil || c.IMAOffset != 0 || c.EventLogDigest != nil || c.FactsDigest != nil {
		t.Fatalf("challenge after a lost point: got %+v, want one from zero", c)
	}
	if _, err := m.send(m.document(*p.Challenge)); err != nil {
		t.Errorf("whole evidence after it: %v", err)
	}
}

func TestRateLimit(t *testing.T) {
	w := newWorld(t, func(w *world) { w.cfg.Limits.PerNode, w.cfg.Limits.PerNodeBurst = 0.001, 2 })
	m, other := w.enrolled("worker-1"), w.enrolled("worker-2")
	m.attest()
	m.attest()
	_, err := m.send(m.document(m.next))
	wantProblem(t, "third attestation at once", err, http.StatusTooManyRequests, "too-many")
	other.attest()
}
