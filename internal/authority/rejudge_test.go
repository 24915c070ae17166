package authority

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
	"touchstone.dev/touchstone/internal/verifier"
)

// damage changes the database behind AIAS's back.
func (w *world) damage(query string, args ...any) {
	w.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.cfg.Data, "aias.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query, args...); err != nil {
		w.t.Fatal(err)
	}
}

// rekey: the machine keeps a machine that kept its endorsement key and made another attestation key, and enrolled with it.
func (m *machine) rekey() {
	m.w.t.Helper()
	m.tpm = m.tpm.WithOtherAK([]byte("second key"))
	ch, err := m.begin(m.request("")) // its certificate stands for it
	if err != nil {
		m.w.t.Fatal(err)
	}
	if err := m.finish(m.proof(ch)); err != nil {
		m.w.t.Fatal(err)
	}
}

// TestKeptEvidenceIsJudgedByItsOwnKey: a node that has enrolled with a new attestation key keeps its verdict, and a new policy judges the Evidence of
// the old key by the old key.
func TestKeptEvidenceIsJudgedByItsOwnKey(t *testing.T) {
	w := newWorld(t)
	m, bad := w.enrolled("worker-1"), w.enrolled("worker-2")
	m.attest()
	bad.list = append(bad.list, "backup;"...)
	bad.attest()
	old := m.node().AKName
	m.rekey()
	bad.rekey()
	if n := m.node(); n.AKName == old || n.Trust != protocol.Trusted {
		t.Fatalf("node with a new key: got %q, key changed %v; want trusted, true", n.Trust, n.AKName != old)
	}
	ctx := context.Background()
	w.judge = newJudge("two", "backup")
	if _, err := w.admin.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	w.rejudgeAll(ctx)
	if n := m.node(); n.Trust != protocol.Trusted || n.Snapshot != "two" {
		t.Errorf("good node: got %q by %q because %q, want trusted by two", n.Trust, n.Snapshot, n.Reason)
	}
	if n := bad.node(); n.Trust != protocol.Untrusted || !strings.Contains(n.Reason, "backup") {
		t.Errorf("node that the new policy refuses: got %q because %q, want untrusted for backup", n.Trust, n.Reason)
	}
	jwks, err := w.admin.JWKS(ctx)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := w.admin.Result(ctx, "worker-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := result.Verify(signed.Result, jwks, result.Expectation{AKName: old, Now: w.clock.Now()}); err != nil {
		t.Errorf("result from the old key's evidence: got %v, want it to name that key", err)
	}
	b, err := w.admin.Evidence(ctx, "worker-1", operator.LastGood)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := evidence.Decode(b); err != nil || string(d.AK) != string(softtpm.New([]byte("worker-1")).AKArea()) {
		t.Errorf("kept evidence: got another key (%v), want the one that made it", err)
	}
	if a := m.attest(); !a.Trusted {
		t.Errorf("evidence of the new key: got %+v, want trusted", a)
	}
}

// TestKeptEvidenceNamesTheEnrolledKey: whatever key a node writes into its document.
func TestKeptEvidenceNamesTheEnrolledKey(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	d := m.document(m.next)
	d.AK = softtpm.New([]byte("stranger")).AKArea()
	if _, err := m.send(d); err != nil {
		t.Fatal(err)
	}
	b, err := w.admin.Evidence(context.Background(), "worker-1", operator.Last)
	if err != nil {
		t.Fatal(err)
	}
	if d, err = evidence.Decode(b); err != nil || string(d.AK) != string(m.tpm.AKArea()) {
		t.Errorf("kept evidence: got the key of the document (%v), want that of the enrolment", err)
	}
}

// TestLostEvidenceIsNotJudgedAnew: where nothing can be judged again, the verdict stays the old snapshot's, and says so.
func TestLostEvidenceIsNotJudgedAnew(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.attest()
	ctx := context.Background()
	w.damage(`DELETE FROM blobs`)
	w.judge = newJudge("two", "boot_aggregate")
	if _, err := w.admin.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	w.rejudgeAll(ctx)
	if n := m.node(); n.Snapshot != "one" {
		t.Errorf("node without evidence: got a verdict of %q, want that of one", n.Snapshot)
	}
	if s := w.snapshotInfo(); s.Pending != 1 {
		t.Errorf("nodes pending: got %d, want 1", s.Pending)
	}
	_, err := m.send(m.document(m.next))
	p := wantProblem(t, "evidence that builds on what is lost", err, 409, "resume")
	a, err := m.send(m.document(*p.Challenge))
	if err != nil || a.Trusted || m.node().Snapshot != "two" {
		t.Errorf("whole evidence: got %+v, %v by %q; want untrusted by two", a, err, m.node().Snapshot)
	}
}

// slow is an Appraiser that waits in the middle.
type slow struct {
	*judge
	once           sync.Once
	begun, release chan struct{}
}

func (s *slow) Appraise(doc *evidence.Document, exp verifier.Expectation) (*verifier.Outcome, error) {
	s.once.Do(func() { close(s.begun); <-s.release })
	return s.judge.Appraise(doc, exp)
}

// TestReloadWhileAttesting: Evidence that is being judged when a policy comes in is judged by that one, too, also when it is the node's first.
func TestReloadWhileAttesting(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	old := &slow{judge: newJudge("one"), begun: make(chan struct{}), release: make(chan struct{})}
	s := *w.snapshot.Load()
	s.Appraiser = old
	w.adopt(&s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	answered := make(chan struct{})
	go func() { defer close(answered); m.attest() }()
	<-old.begun
	w.judge = newJudge("two", "boot_aggregate")
	if _, err := w.admin.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // the round of the reload is over
	close(old.release)
	<-answered
	for deadline := time.Now().Add(10 * time.Second); m.node().Snapshot != "two"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("node: got a verdict of snapshot %q, want two", m.node().Snapshot)
		}
	}
	if n := m.node(); n.Trust != protocol.Untrusted || n.Levels[4].Status != string(appraisal.Fail) {
		t.Errorf("node: got %q, want untrusted", n.Trust)
	}
}

// TestDeleteWhileAttesting: Evidence that is being judged when its node is removed ends before or is refused; nothing comes back to life.
func TestDeleteWhileAttesting(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	var wg sync.WaitGroup
	for range 8 {
		b, err := evidence.Encode(m.document(w.challenge(w.node("worker-1"), true)))
		if err != nil {
			t.Fatal(err)
		}
		wg.Add(1)
		go func() { defer wg.Done(); _ = w.call(m.http, "POST", protocol.PathAttest, b, nil) }()
	}
	if err := w.admin.Delete(context.Background(), "worker-1"); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	_, err := w.admin.Node(context.Background(), "worker-1")
	wantProblem(t, "removed node", err, 404, "no-node")
	w.restart()
	_, err = w.admin.Node(context.Background(), "worker-1")
	wantProblem(t, "removed node after a restart", err, 404, "no-node")
}
