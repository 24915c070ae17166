package authority

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/version"
)

// save writes a step of a node to the store, then makes it visible, sets the time of its expiry and tells who waits for it. The caller
// holds the node. u carries what the step brings besides state and change.
func (a *Authority) save(ctx context.Context, n *node, s state, cause string, u *store.Update, signed string) error {
	before := n.current()
	record, err := s.record(signed)
	if err != nil {
		return err
	}
	u.Node, u.State = n.id, record
	if s.tag != before.tag {
		if u.Tag, err = s.tag.row(n.name); err != nil {
			return err
		}
	}
	if s.bad && !before.bad { // what it found lately may be what its intruder wants
		u.Revoke = revoked(&a.snapshot.Load().Images, a.now())
	}
	changed := s.changed(&before)
	if changed {
		u.Change = &store.Change{
			Node: n.name, At: s.since, Cause: cause, From: before.trust, To: s.trust, Reason: s.reason, Levels: record.Levels, Snapshot: s.snapshot,
		}
	}
	if _, err := a.store.Save(ctx, u); err != nil {
		return err
	}
	n.set(s, u.Challenge, a.now())
	if s.trust == protocol.Trusted {
		a.expiry.set(n, s.expires)
	} else {
		a.expiry.set(n, time.Time{})
	}
	a.feed.publish(protocol.NodeResult{Node: n.name, Result: signed, Trust: s.trust, Reason: s.reason})
	if changed {
		a.metrics.changes.WithLabelValues(cause, s.trust).Inc()
		a.log.Info("verdict changed", "node", n.name, "from", before.trust, "to", s.trust, "cause", cause, "reason", s.reason)
		a.changes.signal()
	}
	return nil
}

// recordAct writes down what an operator does to a node, before it is done. The caller holds the node.
func (a *Authority) recordAct(ctx context.Context, n *node, act store.Act) error {
	signed, err := a.storedResult(ctx, n)
	if err != nil {
		return err
	}
	return a.save(ctx, n, n.current(), protocol.CauseOperator, &store.Update{Act: &act}, signed)
}

// judged turns s into the state after a verdict at time now, whose result lives until expires.
func (s *state) judged(v *appraisal.Verdict, snapshot string, now, at, expires time.Time) {
	before := *s
	s.trust, s.reason = protocol.Trusted, ""
	if !v.Trusted {
		s.trust, s.reason = protocol.Untrusted, reason(v)
	}
	s.levels, s.posture = levelInfos(v), postureOf(v)
	s.attested, s.expires, s.snapshot, s.bad = at, expires, snapshot, !v.Trusted
	if s.changed(&before) {
		s.since = now
	}
}

// reason is why a verdict is not trusted, in one line: the lowest level that costs trust.
func reason(v *appraisal.Verdict) string {
	for _, want := range []appraisal.Status{appraisal.Fail, appraisal.Unknown} {
		for i := range v.Levels {
			if l := &v.Levels[i]; l.Status == want {
				return fmt.Sprintf("level %d (%s): %s", l.Level, l.Name, short(l.Reason()))
			}
		}
	}
	return "not trusted"
}

func levelInfos(v *appraisal.Verdict) []protocol.LevelInfo {
	out := make([]protocol.LevelInfo, len(v.Levels))
	for i := range v.Levels {
		l := &v.Levels[i]
		out[i] = protocol.LevelInfo{Level: l.Level, Name: l.Name, Status: string(l.Status)}
		if l.Status != appraisal.Pass {
			out[i].Reason = short(l.Reason())
		}
	}
	return out
}

// maxReason bounds a reason in bytes. It stands in the history for ever, in logs and in signed results, and paths of the node's choosing stand in it; the
// verdict has the whole.
const maxReason = 512

func short(reason string) string {
	if len(reason) <= maxReason {
		return reason
	}
	return clip(reason, maxReason) + "…"
}

// signResult signs what s says about n. akName is the Name of the key whose Evidence says so.
func (a *Authority) signResult(n *node, akName string, s *state, issued time.Time) (string, error) {
	r := &result.Result{
		Node: n.name, AKName: akName, Trusted: s.trust == protocol.Trusted, Snapshot: s.snapshot, SoftwareTPM: n.software,
		EKSHA256: hex.EncodeToString(n.ek[:]), Machine: s.machine,
		ID: result.NewID(), Build: buildVersion, Issued: issued, Expires: s.expires, Levels: make([]result.Level, len(s.levels)),
		Tags: s.tags, Compliance: n.scanned(s.posture), Audit: n.auditState(s.posture),
	}
	for i, l := range s.levels {
		r.Levels[i] = result.Level{Level: l.Level, Name: l.Name, Status: appraisal.Status(l.Status), Reason: l.Reason}
	}
	if c := s.checkpoint; c != nil {
		r.ResetCount, r.RestartCount = c.ResetCount, c.RestartCount
	}
	return result.Sign(a.results, r)
}

var buildVersion = version.String()

// verdictOf reads the last whole verdict of a node, null when there is none yet.
func (a *Authority) verdictOf(ctx context.Context, n *node) (json.RawMessage, error) {
	v, err := a.store.Verdict(ctx, n.id)
	if notFound(err) {
		return json.RawMessage("null"), nil
	}
	return v, err
}
