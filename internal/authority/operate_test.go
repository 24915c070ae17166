package authority

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

func TestRolesAreKeptApart(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	wantProblem(t, "node on the operator API", w.call(m.http, http.MethodGet, protocol.PathNodes, nil, nil), http.StatusForbidden, "role")
	wantProblem(t, "nobody on the operator API", w.call(w.client(), http.MethodGet, protocol.PathNodes, nil, nil), http.StatusForbidden, "role")
	wantProblem(t, "nobody on the node API", w.call(w.client(), http.MethodGet, protocol.PathChallenge, nil, nil), http.StatusForbidden, "role")
	b, err := w.Operator("worker-1") // an operator of the same name is no node
	if err != nil {
		t.Fatal(err)
	}
	c, err := operator.New(*b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Nodes(context.Background()); err != nil {
		t.Errorf("Nodes() by an operator: %v", err)
	}
	for _, r := range w.routes() {
		if r.for_ != nodesOnly {
			continue
		}
		err := w.call(operatorHTTP(t, w, b), r.method, r.path, nil, nil)
		wantProblem(t, "operator on "+r.path, err, http.StatusForbidden, "role")
	}
}

func TestDeletedNode(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.attest()
	ctx := context.Background()
	if err := w.admin.Delete(ctx, "worker-1"); err != nil {
		t.Fatal(err)
	}
	_, err := m.send(m.document(m.next))
	wantProblem(t, "attestation of a removed node", err, http.StatusForbidden, "not-enrolled")
	_, err = w.admin.Node(ctx, "worker-1")
	wantProblem(t, "removed node", err, http.StatusNotFound, "no-node")
	changes, err := w.admin.History(ctx, "worker-1", 0, 0)
	if err != nil || len(changes) == 0 || changes[0].To != "" || changes[0].Cause != protocol.CauseOperator {
		t.Errorf("history of a removed node: got %+v, %v; want its removal first", changes, err)
	}
	if err := m.enrol(); err != nil {
		t.Fatalf("enrol again: %v", err)
	}
	m.attest()
	acts, err := w.admin.Acts(ctx, 10)
	if err != nil || len(acts) < 2 || acts[1].Act != "node.delete" || acts[1].Operator != "tester" {
		t.Errorf("Acts(): got %+v, %v; want the removal by tester", acts, err)
	}
}

func TestWhy(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	ctx := context.Background()
	r, err := w.admin.Why(ctx, "worker-1")
	if err != nil || string(r.Verdict) != "null" {
		t.Fatalf("Why() before evidence: got %s, %v; want null", r.Verdict, err)
	}
	m.list = append(m.list, "miner;"...)
	m.attest()
	if r, err = w.admin.Why(ctx, "worker-1"); err != nil {
		t.Fatal(err)
	}
	var v appraisal.Verdict
	if err := json.Unmarshal(r.Verdict, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Levels) != 5 || v.Levels[4].Findings[0].Rule != "runtime.files" {
		t.Errorf("Why(): got %+v, want the finding on level 5", v)
	}
	if n := r.Node; n.Trust != protocol.Untrusted || !strings.HasPrefix(n.Reason, "level 5 (runtime): ") {
		t.Errorf("Why(): got node %q because %q, want untrusted because of level 5", n.Trust, n.Reason)
	}
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ready, got := make(chan struct{}), make(chan protocol.Change, 10)
	ended := make(chan error, 1)
	go func() {
		_, err := w.admin.Events(ctx, -1, func() { close(ready) }, func(c protocol.Change) error { got <- c; return nil })
		ended <- err
	}()
	<-ready
	m.attest()
	m.attest() // no change, no event
	m.list = append(m.list, "miner;"...)
	m.attest()
	first, second := <-got, <-got
	if first.To != protocol.Trusted || second.To != protocol.Untrusted || second.ID <= first.ID {
		t.Errorf("events: got %+v and %+v, want trusted, then untrusted", first, second)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Events() after its context ended: got %v", err)
	}

	stop := errors.New("enough")
	var replay []int64
	last, err := w.admin.Events(context.Background(), first.ID-1, nil, func(c protocol.Change) error {
		replay = append(replay, c.ID)
		if c.ID == second.ID {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || len(replay) != 2 || last != first.ID {
		t.Errorf("Events() from %d: got %v up to %d, %v; want the two again", first.ID-1, replay, last, err)
	}
}

func TestPolicyChange(t *testing.T) {
	w := newWorld(t)
	m, good := w.enrolled("worker-1"), w.enrolled("worker-2")
	m.list = append(m.list, "backup;"...)
	m.attest()
	good.attest()
	ctx := context.Background()

	_, err := w.admin.SetPolicy(ctx, []byte("bad"))
	wantProblem(t, "policy that cannot be used", err, http.StatusUnprocessableEntity, "policy")
	if n := m.node(); n.Trust != protocol.Trusted || n.Snapshot != "one" {
		t.Fatalf("node after a refused policy: got %q by %q, want trusted by one", n.Trust, n.Snapshot)
	}

	w.judge = newJudge("two", "miner", "backup")
	s, err := w.admin.SetPolicy(ctx, []byte("new: policy"))
	if err != nil || s.ID != "two" || s.Pending != 2 {
		t.Fatalf("SetPolicy(): got %+v, %v; want snapshot two with 2 nodes pending", s, err)
	}
	w.rejudgeAll(ctx)
	if n := m.node(); n.Trust != protocol.Untrusted || n.Snapshot != "two" {
		t.Errorf("node that the new policy refuses: got %q by %q, want untrusted by two", n.Trust, n.Snapshot)
	}
	if n := good.node(); n.Trust != protocol.Trusted || n.Snapshot != "two" {
		t.Errorf("node that the new policy accepts: got %q by %q, want trusted by two", n.Trust, n.Snapshot)
	}
	changes, err := w.admin.History(ctx, "worker-1", 1, 0)
	if err != nil || changes[0].Cause != protocol.CausePolicy {
		t.Errorf("history: got %+v, %v; want a change by policy", changes, err)
	}
	before := w.judge.whole.Load()
	if a := good.attest(); !a.Trusted { // a challenge from before the change: it goes on where the new snapshot has judged
		t.Errorf("attestation under the new policy: got %+v, want trusted", a)
	}
	if got := w.judge.whole.Load(); got != before {
		t.Errorf("whole lists judged: got %d more, want none", got-before)
	}
	if b, err := w.admin.Policy(ctx); err != nil || string(b) != "new: policy" {
		t.Errorf("Policy(): got %q, %v", b, err)
	}
	w.restart()
	if b, err := w.admin.Policy(ctx); err != nil || string(b) != "new: policy" {
		t.Errorf("Policy() after a restart: got %q, %v", b, err)
	}
}

func TestAttestBeforeItsTurn(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.list = append(m.list, "backup;"...)
	m.attest()
	w.judge = newJudge("two", "backup")
	if _, err := w.admin.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	// Nothing new in the list, and the old checkpoint said good: the new snapshot must judge the whole list all the same.
	if a := m.attest(); a.Trusted {
		t.Errorf("attestation under a new snapshot: got %+v, want not trusted", a)
	}
}

func TestExpiry(t *testing.T) {
	w := newWorld(t)
	silent, alive := w.enrolled("worker-1"), w.enrolled("worker-2")
	silent.attest()
	w.clock.Advance(testLifetime - time.Minute)
	alive.attest()
	w.clock.Advance(2 * time.Minute)
	ctx := context.Background()
	next := w.expireDue(ctx)
	if n := silent.node(); n.Trust != protocol.Untrusted || !strings.HasPrefix(n.Reason, "silent: ") || n.Levels[0].Status != string(appraisal.Unknown) {
		t.Errorf("silent node: got %q because %q, want untrusted because silent", n.Trust, n.Reason)
	}
	if n := alive.node(); n.Trust != protocol.Trusted || !next.Truncate(time.Microsecond).Equal(n.Expires.Truncate(time.Microsecond)) {
		t.Errorf("other node: got %q until %v, want trusted until %v", n.Trust, n.Expires, next)
	}
	changes, err := w.admin.History(ctx, "worker-1", 1, 0)
	if err != nil || changes[0].Cause != protocol.CauseExpiry || changes[0].To != protocol.Untrusted {
		t.Errorf("history: got %+v, %v; want an expiry", changes, err)
	}
	_, err = w.admin.Result(ctx, "worker-1")
	wantProblem(t, "result of a silent node", err, http.StatusNotFound, "no-result")
	w.rejudgeAll(ctx)
	if a := silent.attest(); !a.Trusted {
		t.Errorf("evidence after silence: got %+v, want trusted", a)
	}
}

func TestExpiryByItself(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	m.attest()
	w.clock.Advance(testLifetime)
	w.enrolled("worker-2").attest() // the loop looks at the clock again when something is new
	w.expiry.wake <- struct{}{}
	written := func() bool {
		changes, err := w.admin.History(ctx, m.name, 1, 0)
		return err == nil && changes[0].Cause == protocol.CauseExpiry
	}
	for deadline := time.Now().Add(10 * time.Second); !written(); {
		if time.Now().After(deadline) {
			t.Fatal("a silent node is still trusted")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestSilentNodeGainsNothingFromPolicy(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.attest()
	ctx := context.Background()
	w.clock.Advance(testLifetime + time.Second)
	w.expireDue(ctx)
	w.judge = newJudge("two")
	if _, err := w.admin.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	w.rejudgeAll(ctx)
	if n := m.node(); n.Trust != protocol.Untrusted || n.Snapshot != "two" {
		t.Errorf("silent node under a new snapshot: got %q by %q, want untrusted by two", n.Trust, n.Snapshot)
	}
}

func TestRestart(t *testing.T) {
	w := newWorld(t)
	good, bad := w.enrolled("worker-1"), w.enrolled("worker-2")
	good.attest()
	bad.list = append(bad.list, "miner;"...)
	bad.attest()
	before := []protocol.Node{*good.node(), *bad.node()}
	calls := w.judge.calls.Load()
	w.restart()
	for i, m := range []*machine{good, bad} {
		m.connect()
		got, want := *m.node(), before[i]
		if got.Trust != want.Trust || got.Reason != want.Reason || got.IMABytes != want.IMABytes || got.Since.UnixMicro() != want.Since.UnixMicro() {
			t.Errorf("node after a restart: got %+v, want %+v", got, want)
		}
	}
	w.rejudgeAll(context.Background())
	if got := w.judge.calls.Load(); got != calls {
		t.Errorf("appraisals by a restart: got %d, want none", got-calls)
	}
	whole := w.judge.whole.Load()
	if a := good.attest(); !a.Trusted {
		t.Errorf("attestation after a restart: got %+v, want trusted", a)
	}
	if got := w.judge.whole.Load(); got != whole {
		t.Error("attestation after a restart began the list again")
	}
}

func TestRestartAfterSilence(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.attest()
	w.clock.Advance(testLifetime + time.Minute)
	w.restart()
	w.expireDue(context.Background())
	if n := w.node(m.name).view(w.clock.Now()); n.Trust != protocol.Untrusted {
		t.Errorf("node whose result ended while AIAS was away: got %q, want untrusted", n.Trust)
	}
}
