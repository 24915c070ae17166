package authority

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

// chained is a chain that a machine sends.
type chained struct {
	m  *machine
	at chain.Position
}

// batch makes the next entries.
func (s *chained) batch(n int, text string) *chain.Batch {
	b := &chain.Batch{Before: s.at}
	for range n {
		e := chain.Entry{Seq: s.at.Seq + 1, Time: s.m.w.clock.Now(), Kind: chain.KindEvent, Body: fmt.Appendf(nil, "%s %d", text, s.at.Seq+1)}
		raw, err := e.Append(nil)
		if err != nil {
			s.m.w.t.Fatal(err)
		}
		b.Entries, s.at = append(b.Entries, raw), s.at.After(raw)
	}
	return b
}

func (s *chained) send(b *chain.Batch, query string) (ack protocol.AuditAck, err error) {
	return ack, s.m.w.call(s.m.http, http.MethodPost, protocol.PathAudit+query, b, &ack)
}

// statement is what the machine would sign now.
func (s *chained) statement() *evidence.AuditStatement {
	return &evidence.AuditStatement{Chain: s.at.Chain[:], Seq: s.at.Seq, Head: slices.Clone(s.at.Head[:]), Enabled: 1, PID: 1}
}

func (s *chained) claim() claims.Audit {
	return s.m.w.auditExpectation(s.m.w.t.Context(), s.m.w.Authority.node(s.m.name))(&claims.Quote{ResetCount: s.m.clock.ResetCount}, s.statement())
}

func (w *world) chained(name string) *chained {
	return &chained{m: w.enrolled(name), at: chain.Start(chain.ID{1})}
}

func TestAuditIntake(t *testing.T) {
	w := newWorld(t)
	s := w.chained("worker-1")
	first := s.batch(3, "event")
	for range 2 { // the answer was lost
		if got, err := s.send(first, ""); err != nil || got != ack(s.at) {
			t.Fatalf("POST: %+v, %v; want %+v", got, err, ack(s.at))
		}
	}
	before := s.at
	s.batch(2, "event")
	p := wantProblem(t, "a batch too far", second(s.send(s.batch(1, "event"), "")), http.StatusConflict, "audit-behind")
	if p.Audit == nil || *p.Audit != ack(before) {
		t.Errorf("the refusal says %+v, want %+v", p.Audit, ack(before))
	}
	if got := w.Authority.node("worker-1").auditedUpTo(); got != 3 {
		t.Errorf("entries were looked at up to %d, want 3", got)
	}
	var got protocol.AuditAck
	w.restart()
	s.m.connect()
	if err := w.call(s.m.http, http.MethodGet, protocol.PathAudit, nil, &got); err != nil || got != ack(before) {
		t.Errorf("GET after a restart: %+v, %v; want %+v", got, err, ack(before))
	}
	wantProblem(t, "no certificate", w.call(w.client(), http.MethodPost, protocol.PathAudit, first, nil), http.StatusForbidden, "role")
	wantProblem(t, "garbage", w.call(s.m.http, http.MethodPost, protocol.PathAudit, []byte("x"), nil), http.StatusUnsupportedMediaType, "media-type")
}

func second[A any](_ A, err error) error { return err }

func TestAuditFindings(t *testing.T) {
	w := newWorld(t)
	s := w.chained("worker-1")
	if got := w.auditClaim(w.Authority.node("worker-1"), nil); got != (claims.Audit{}) {
		t.Errorf("a node that never stated anything: %+v", got)
	}
	if _, err := s.send(s.batch(3, "event"), ""); err != nil {
		t.Fatal(err)
	}
	if got := s.claim(); got.State != claims.AuditEqual {
		t.Errorf("all is here: %+v", got)
	}
	late := s.batch(2, "event")
	if got := s.claim(); got.State != claims.AuditBehind {
		t.Errorf("entries are on their way: %+v", got)
	}
	w.clock.Advance(auditGrace + time.Second)
	if got := s.claim(); got.State != claims.AuditOverdue {
		t.Errorf("entries are on their way for long: %+v", got)
	}
	if _, err := s.send(late, ""); err != nil {
		t.Fatal(err)
	}
	if got := s.claim(); got.State != claims.AuditEqual {
		t.Errorf("they came: %+v", got)
	}
	if got := w.auditClaim(w.Authority.node("worker-1"), nil); got.State != claims.AuditStopped {
		t.Errorf("no statement any more: %+v", got)
	}
	forged := &chained{m: s.m, at: late.Before}
	wantProblem(t, "another past", second(s.send(forged.batch(3, "forged"), "")), http.StatusConflict, "audit-fork")
	if got := s.claim(); got.State != claims.AuditForked || !strings.Contains(got.Observed, "entry 5") {
		t.Errorf("a fork: %+v", got)
	}
	var report protocol.AuditReport
	path := strings.Replace(protocol.PathAuditAccept, "{node}", "worker-1", 1)
	b, err := w.Operator("ann")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.call(operatorHTTP(t, w, b), http.MethodPost, path, struct{}{}, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Findings) != 1 || report.Findings[0].By != "ann" || report.At != ack(s.at) {
		t.Errorf("the report: %+v", report)
	}
	acts, err := w.store.Acts(t.Context(), 10)
	if err != nil || len(acts) == 0 || acts[0].Act != "audit.accept" || acts[0].Operator != "ann" || acts[0].Detail != "1 findings" {
		t.Errorf("acts: got %+v, %v, want that ann accepted 1 findings", acts, err)
	}
	if got := s.claim(); got.State != claims.AuditEqual {
		t.Errorf("the fork was accepted: %+v", got)
	}
	wantProblem(t, "a node may not", w.call(s.m.http, http.MethodPost, path, struct{}{}, nil), http.StatusForbidden, "role")
}

// TestAuditSilence: a node that signs its chain and adds nothing to it is silent after a while, by the clock of AIAS alone, and an AIAS that was away does
// not blame the node.
func TestAuditSilence(t *testing.T) {
	w := newWorld(t)
	s := w.chained("worker-1")
	snap := *w.snapshot.Load()
	snap.MaxSilence = 10 * time.Minute
	w.snapshot.Store(&snap)
	if _, err := s.send(s.batch(3, "event"), ""); err != nil {
		t.Fatal(err)
	}
	state := func(want claims.AuditState) {
		t.Helper()
		if got := s.claim(); got.State != want {
			t.Errorf("state: got %+v, want %s", got, want)
		}
	}
	w.clock.Advance(9 * time.Minute)
	state(claims.AuditEqual)
	w.clock.Advance(2 * time.Minute)
	state(claims.AuditSilent)
	if _, err := s.send(s.batch(1, "event"), ""); err != nil {
		t.Fatal(err)
	}
	state(claims.AuditEqual)
	w.clock.Advance(time.Hour)
	w.restart()
	s.m.connect()
	w.snapshot.Store(&snap)
	state(claims.AuditEqual) // nothing is known of the time before
	w.clock.Advance(11 * time.Minute)
	state(claims.AuditSilent)
	if got := w.auditClaim(w.Authority.node("worker-1"), nil); got.State != claims.AuditStopped {
		t.Errorf("a node that states nothing any more: %+v", got)
	}
}

// TestAuditCatchesUp: events that are in the archive and were not looked at when AIAS ended are looked at before new ones are, and how far a quiet
// node's were is not forgotten.
func TestAuditCatchesUp(t *testing.T) {
	w := newWorld(t)
	s := w.chained("worker-1")
	ctx := t.Context()
	misuse := fmt.Sprintf("type=SYSCALL msg=audit(%d.500:7): %s", w.clock.Now().Unix(), strings.TrimPrefix(load, "SYSCALL "))
	if _, err := s.send(s.batch(1, misuse), ""); err != nil {
		t.Fatal(err)
	}
	found := func() []protocol.Detection {
		l, err := w.admin.Detections(ctx, "worker-1")
		if err != nil {
			t.Fatal(err)
		}
		return l.Detections
	}
	before := found()
	if len(before) != 1 {
		t.Fatalf("detections: got %+v, want one", before)
	}
	// As if AIAS had ended between the archive and the look.
	id := w.Authority.node("worker-1").id
	if err := w.store.SaveDetections(ctx, &store.DetectionStep{Node: id, Remove: []string{before[0].ID}, Seen: &store.Seen{}}); err != nil {
		t.Fatal(err)
	}
	w.restart()
	if got := found(); len(got) != 0 {
		t.Fatalf("detections: got %+v, want none yet", got)
	}
	if _, err := s.send(s.batch(3, "type=LOGIN msg=audit(1795000000.000:8): pid=9 uid=0 ses="), ""); err != nil {
		t.Fatal(err)
	}
	if got := found(); len(got) != 1 || got[0].ID != before[0].ID {
		t.Errorf("detections: got %+v, want %+v again", got, before)
	}
	w.clock.Advance(seenEvery)
	w.flushDetections(ctx)
	if seen, err := w.store.DetectionsSeen(ctx); err != nil || seen[id].Seq != s.at.Seq {
		t.Errorf("seen: got %+v, %v, want entry %d", seen, err, s.at.Seq)
	}
}
