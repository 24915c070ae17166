package authority

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/nbde"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/verifier"
)

// attest judges Evidence that a node sent. The order is that of cost: whoever fails a cheap check causes no dear one.
//
//  1. The node is who its client certificate says. (done by nodeOf)
//  2. The document can be read, and does not claim to be another node's.
//  3. Its nonce is a challenge that was issued to this node, is fresh and was not answered before.
//  4. The verifier authenticates and appraises; logs that were not sent again come from the store.
//  5. One transaction writes watermark, verdict, Evidence and history; it refuses when the challenge was used meanwhile.
func (a *Authority) attest(ctx context.Context, n *node, body []byte, from netip.Addr) (*protocol.Attestation, error) {
	doc, err := evidence.Decode(body)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "malformed-evidence", "the Evidence cannot be read", err.Error(), "update the trust agent; see the log of AIAS")
	}
	if doc.Node != "" && doc.Node != n.name {
		return nil, refuse(http.StatusForbidden, "other-node", "the Evidence names another node than the client certificate",
			fmt.Sprintf("certificate %q, Evidence %q", n.name, doc.Node), "attest with the certificate of the enrolment under that name")
	}
	if err := n.lock(ctx); err != nil {
		return nil, err
	}
	defer n.unlock()
	now := a.now()
	issued, err := a.challenges.check(n.name, doc.Nonce, now, n.watermark)
	if err != nil {
		return nil, a.again(n, "stale-challenge", "the challenge is not one to answer now", err, true)
	}
	snap := a.snapshot.Load()
	if err := a.fresh(ctx, n, snap); err != nil {
		return nil, err
	}
	err = a.keeps(ctx, n, doc)
	var machine result.Machine
	if err == nil {
		machine, err = a.machine(ctx, n, doc)
	}
	var out *verifier.Outcome
	if err == nil {
		exp := a.expect(ctx, doc.Nonce, n.ak, n.checkpoint, now)
		exp.AssetTag = n.tag.wanted(a, n, doc.Nonce, now)
		exp.Detections = n.detected
		exp.Audit = a.auditExpectation(ctx, n)
		exp.Compliance, exp.Challenged = n.compliance.Load(), challengedAt(doc.Nonce)
		if exp.DiskKeys, err = a.diskKeys(ctx, n.name); err == nil {
			out, err = a.appraise(ctx, snap, doc, exp)
		}
	}
	switch {
	case errors.Is(err, verifier.ErrResume):
		return nil, a.again(n, "resume", "AIAS does not have the logs that this Evidence builds on", err, false)
	case errors.Is(err, verifier.ErrMalformed):
		return nil, refuse(http.StatusBadRequest, "malformed-evidence", "the Evidence cannot be read", err.Error(), "update the trust agent; see the log of AIAS")
	case err != nil:
		return nil, err
	}
	return a.conclude(ctx, n, snap, step{doc, out, machine, issued, now, from})
}

// again refuses Evidence and brings a challenge along, so that the node can go on in one more round trip.
func (a *Authority) again(n *node, kind, title string, err error, resume bool) error {
	p := refuse(http.StatusConflict, kind, title, err.Error(), "answer the challenge that comes with this refusal")
	c := a.challenge(n, resume)
	p.Challenge = &c
	return p
}

// appraise runs the verifier on one of the places for it. A panic on a node's bytes is this request's failure and nobody else's.
func (a *Authority) appraise(ctx context.Context, s *Snapshot, doc *evidence.Document, exp verifier.Expectation) (out *verifier.Outcome, err error) {
	a.metrics.waiting.Inc()
	err = a.cpu.Acquire(ctx, 1)
	a.metrics.waiting.Dec()
	if err != nil {
		return nil, err
	}
	defer a.cpu.Release(1)
	start := time.Now()
	defer func() {
		a.metrics.appraisal.Observe(time.Since(start).Seconds())
		if r := recover(); r != nil {
			a.metrics.panics.Inc()
			a.log.Error("the verifier panicked on evidence: please report it with the kept evidence", "panic", r, "stack", string(debug.Stack()))
			out, err = nil, fmt.Errorf("the verifier failed on this evidence: %v", r)
		}
	}()
	return s.Appraiser.Appraise(doc, exp)
}

// expect is what the verifier is told besides the document. Logs that the document names by digest only come from the store, when they are needed;
// one that is not there has to be sent again.
func (a *Authority) expect(ctx context.Context, nonce []byte, ak *tpm.Public, c *verifier.Checkpoint, now time.Time) verifier.Expectation {
	return verifier.Expectation{
		Nonce: nonce, AK: ak, Checkpoint: c, Now: now,
		EventLog: func(digest []byte) ([]byte, error) {
			b, err := a.kept(ctx, digest)
			return b, lost(err, "event log", digest)
		},
		Facts: func(digest []byte) (map[string][]byte, error) {
			b, err := a.kept(ctx, digest)
			if err != nil {
				return nil, lost(err, "facts", digest)
			}
			return decodeFacts(b)
		},
	}
}

// keeps makes sure that the logs that the document only names are in the store, also when the verifier needs no look at them: Evidence
// that cannot be put together again could not be judged again. Those of the checkpoint are there.
func (a *Authority) keeps(ctx context.Context, n *node, doc *evidence.Document) error {
	c := n.checkpoint
	if c == nil {
		c = &verifier.Checkpoint{}
	}
	for _, l := range []struct {
		what         string
		named, known []byte
	}{{"event log", doc.EventLogDigest, c.LogDigest}, {"facts", doc.FactsDigest, c.FactsDigest}} {
		if len(l.named) == 0 || bytes.Equal(l.named, l.known) {
			continue
		}
		if _, err := a.kept(ctx, l.named); err != nil {
			return lost(err, l.what, l.named)
		}
	}
	return nil
}

func lost(err error, what string, digest []byte) error {
	if notFound(err) {
		return fmt.Errorf("%w: %s %x", verifier.ErrResume, what, digest)
	}
	return err
}

// step is one attestation on its way into the store.
type step struct {
	doc     *evidence.Document
	out     *verifier.Outcome
	machine result.Machine
	issued  int64 // issue time of the challenge
	now     time.Time
	from    netip.Addr // of the node's connection
}

// conclude writes the outcome and answers.
func (a *Authority) conclude(ctx context.Context, n *node, snap *Snapshot, st step) (*protocol.Attestation, error) {
	s, out, now := n.current(), st.out, st.now
	before := n.current()
	s.judged(out.Verdict, out.Snapshot, now, now, now.Add(snap.Lifetime))
	s.tagged(out.AssetTag, now)
	if falls := n.trust == protocol.Trusted && s.trust != protocol.Trusted; !falls && s.changed(&before) && !n.changes.Allow() {
		// The history is kept for ever, so a node may not write it at will. A fall is never held back.
		return nil, refuse(http.StatusTooManyRequests, "too-many", "the verdict on this node changes too often", "", "find out what makes it change; it is judged again in a while")
	}
	u := &store.Update{Challenge: st.issued}
	if err := keep(n, &s, st.doc, out, u); err != nil {
		return nil, err
	}
	s.machine, s.machineFacts = st.machine, nil
	if c := out.Checkpoint; out.Authentic && c != nil {
		s.machineFacts = c.FactsDigest
	}
	signed, err := a.signResult(n, n.akName, &s, now)
	if err != nil {
		return nil, err
	}
	if err := a.putVerdict(n, u, out.Verdict); err != nil {
		return nil, err
	}
	if err := a.save(ctx, n, s, protocol.CauseEvidence, u, signed); err != nil {
		if errors.Is(err, store.ErrUsed) {
			return nil, a.again(n, "stale-challenge", "the challenge is not one to answer now", errReused, true)
		}
		return nil, err
	}
	n.verdict = out.Verdict
	if c := out.Checkpoint; out.Authentic && c != nil {
		n.boot = nbde.Attestation{Node: n.name, Source: st.from, ResetCount: c.ResetCount, Latch: out.Latch}
		a.disks.Attested(ctx, n.boot)
	}
	if a.snapshot.Load() != snap {
		a.askRejudge() // the policy changed meanwhile, and who goes through the nodes may have passed this one
	}
	a.metrics.attestations.WithLabelValues(s.trust).Inc()
	return &protocol.Attestation{
		Trusted: out.Verdict.Trusted, Levels: s.levels, Result: signed, Expires: s.expires, Next: a.challenge(n, true),
		Disks: a.disksNow(ctx, n, out.Verdict, st.from),
	}, nil
}

// putVerdict puts the verdict into u when it differs from the one in the store. The verifier shares verdicts that say the same, so that
// comparing pointers finds nearly all of them.
func (a *Authority) putVerdict(n *node, u *store.Update, v *appraisal.Verdict) error {
	if v == n.verdict {
		return nil
	}
	b, err := json.Marshal(v)
	u.Verdict = b
	return err
}
