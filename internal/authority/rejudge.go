package authority

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"time"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/verifier"
)

// rejudgeLoop has nodes judged again from kept Evidence whenever a new snapshot is in force.
func (a *Authority) rejudgeLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.rejudge:
			a.rejudgeAll(ctx)
		}
	}
}

// rejudgeAll goes through the nodes one by one, so that nodes that attest now are not kept waiting.
func (a *Authority) rejudgeAll(ctx context.Context) {
	start, s := time.Now(), a.snapshot.Load()
	nodes := a.outdated(s)
	for _, n := range nodes {
		if ctx.Err() != nil || a.snapshot.Load() != s {
			return
		}
		if err := n.lock(ctx); err != nil {
			continue
		}
		err := a.fresh(ctx, n, s)
		n.unlock()
		if err != nil && ctx.Err() == nil {
			a.log.Error("judge a node again", "node", n.name, "err", err)
		}
	}
	if len(nodes) > 0 {
		a.log.Info("nodes judged again from kept evidence", "nodes", len(nodes), "took", time.Since(start).Round(time.Millisecond))
	}
}

// outdated returns the nodes whose verdict another snapshot gave.
func (a *Authority) outdated(s *Snapshot) []*node {
	var out []*node
	for _, n := range a.all() {
		n.mu.RLock()
		old := n.snapshot != "" && n.snapshot != s.Appraiser.Snapshot()
		n.mu.RUnlock()
		if old {
			out = append(out, n)
		}
	}
	return out
}

// fresh makes sure that the node's verdict and checkpoint come from snapshot s: if they do not, its last Evidence is put together from the
// store and judged again, whole. A checkpoint of another snapshot is never built upon. The caller holds the node.
func (a *Authority) fresh(ctx context.Context, n *node, s *Snapshot) error {
	if n.snapshot == "" || n.snapshot == s.Appraiser.Snapshot() {
		return nil
	}
	g, err := a.judgeKept(ctx, n, s, n.tag)
	if err == nil {
		g.st, g.cause, g.update = n.current(), protocol.CausePolicy, &store.Update{}
		return a.concludeAgain(ctx, n, g)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// Nothing to judge from: the old snapshot's verdict stays, and is shown as that, until the node's next Evidence, which must be whole, or
	// until it expires.
	if c := n.checkpoint; c == nil || c.Snapshot == s.Appraiser.Snapshot() {
		return nil
	}
	a.log.Warn("kept evidence cannot be judged again: the verdict of the old policy stays until the next evidence or its expiry", "node", n.name, "err", err)
	st := n.current()
	st.checkpoint = counters(n.checkpoint, s.Appraiser.Snapshot())
	signed, err := a.storedResult(ctx, n)
	if err != nil {
		return err
	}
	return a.save(ctx, n, st, protocol.CausePolicy, &store.Update{}, signed)
}

// judgeAgain judges the last Evidence of a node again, because AIAS has learnt something about it, with asset tags t. It reports false, and writes
// nothing, when there is nothing to judge from: then the node's next Evidence is judged with it. The caller holds the node.
func (a *Authority) judgeAgain(ctx context.Context, n *node, t *tag, cause string, u *store.Update) (bool, error) {
	snap := a.snapshot.Load()
	if err := a.fresh(ctx, n, snap); err != nil {
		return false, err
	}
	if n.snapshot != snap.Appraiser.Snapshot() {
		return false, nil
	}
	g, err := a.judgeKept(ctx, n, snap, t)
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		a.log.Warn("kept evidence cannot be judged again: the next evidence is", "node", n.name, "cause", cause, "err", err)
		return false, nil
	}
	g.st, g.cause, g.update = n.current(), cause, u
	if t != n.tag {
		g.st.tag, g.st.tags = t, nil
	}
	return true, a.concludeAgain(ctx, n, g)
}

// judgeAudited judges a node again for what its audit events show.
func (a *Authority) judgeAudited(ctx context.Context, n *node) error {
	if err := n.lock(ctx); err != nil {
		if errors.Is(err, errGone) {
			return nil
		}
		return err
	}
	defer n.unlock()
	_, err := a.judgeAgain(ctx, n, n.tag, protocol.CauseAudit, &store.Update{})
	return err
}

// judgeKept judges the last Evidence of a node again, whole, with a snapshot and asset tags; st, cause and update are left to the caller.
func (a *Authority) judgeKept(ctx context.Context, n *node, s *Snapshot, t *tag) (*rejudged, error) {
	doc, err := a.document(ctx, n, n.lastKind())
	if err != nil {
		return nil, err
	}
	g := &rejudged{snap: s, machine: machineOf(doc.Facts), now: a.now()}
	if g.key, err = tpm.ParsePublic(doc.AK); err != nil {
		return nil, err
	}
	exp := a.expect(ctx, doc.Nonce, g.key, nil, g.now)
	exp.AssetTag = t.wanted(a, n, doc.Nonce, g.now)
	exp.Detections = n.detected
	exp.Audit = func(_ *claims.Quote, s *evidence.AuditStatement) claims.Audit { return a.auditClaim(n, s) }
	exp.Compliance, exp.Challenged = n.compliance.Load(), challengedAt(doc.Nonce)
	if exp.DiskKeys, err = a.diskKeys(ctx, n.name); err != nil {
		return nil, err
	}
	g.out, err = a.appraise(ctx, s, doc, exp)
	return g, err
}

// rejudged is kept Evidence that was judged again, on its way into the store.
type rejudged struct {
	st      state // to go on from
	snap    *Snapshot
	key     *tpm.Public // that made the Evidence: the same TPM may have enrolled with another one since
	out     *verifier.Outcome
	machine result.Machine
	now     time.Time
	cause   string
	update  *store.Update
}

// concludeAgain writes what came of it. The Evidence is as old as it was: a node that fell silent gains nothing.
func (a *Authority) concludeAgain(ctx context.Context, n *node, g *rejudged) error {
	s, out, key, now := g.st, g.out, g.key, g.now
	s.machine, s.machineFacts = g.machine, nil
	s.judged(out.Verdict, out.Snapshot, now, n.attested, n.attested.Add(g.snap.Lifetime))
	s.tags = out.AssetTag.Tags // whether they are proven now, the next Evidence tells
	old := n.checkpoint
	switch {
	case !bytes.Equal(key.Name(), n.ak.Name()):
		// The counters of another key may be other ones (TPM 2.0 Library part 1, 36.7): the next Evidence starts anew.
	case !out.Authentic || out.Checkpoint == nil:
		s.checkpoint = counters(old, out.Snapshot)
	case old != nil && (old.ResetCount > out.Checkpoint.ResetCount || old.Clock > out.Checkpoint.Clock):
		// The kept Evidence is older than the last authentic one: the counters may not go back.
		s.checkpoint = counters(old, out.Snapshot)
	default:
		s.checkpoint = out.Checkpoint
	}
	if s.trust == protocol.Trusted && over(s.expires, now) {
		s.silent(now)
		s.since = n.since
		if n.trust != s.trust {
			s.since = now
		}
	}
	signed, err := a.signResult(n, hex.EncodeToString(key.Name()), &s, now)
	if err != nil {
		return err
	}
	u := g.update
	if err := a.putVerdict(n, u, out.Verdict); err != nil {
		return err
	}
	if err := a.keepKind(ctx, n, &s, u); err != nil {
		return err
	}
	if err := a.save(ctx, n, s, g.cause, u, signed); err != nil {
		return err
	}
	n.verdict = out.Verdict
	return nil
}

// keepKind files the kept Evidence anew when the new snapshot judges it the other way.
func (a *Authority) keepKind(ctx context.Context, n *node, s *state, u *store.Update) error {
	if s.bad == n.bad {
		return nil
	}
	e, err := a.store.Evidence(ctx, n.id, n.lastKind())
	if err != nil {
		return err
	}
	if !s.bad {
		e.Kind = store.LastGood
		u.Evidence = append(u.Evidence, *e)
		return nil
	}
	for _, k := range []store.Kind{store.LastBad, store.FirstBad} {
		e.Kind = k
		u.Evidence = append(u.Evidence, *e)
	}
	return nil
}

// counters is a checkpoint that only remembers how far the TPM's counters had come: logs must be sent whole.
func counters(c *verifier.Checkpoint, snapshot string) *verifier.Checkpoint {
	if c == nil {
		return nil
	}
	return &verifier.Checkpoint{
		Snapshot: snapshot, Clock: c.Clock, ResetCount: c.ResetCount, RestartCount: c.RestartCount, Firmware: c.Firmware,
	}
}

func (a *Authority) storedResult(ctx context.Context, n *node) (string, error) {
	r, err := a.store.Result(ctx, n.id)
	if notFound(err) {
		return "", nil
	}
	return r, err
}
