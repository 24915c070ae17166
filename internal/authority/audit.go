package authority

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"touchstone.dev/touchstone/internal/audit/archive"
	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/export"
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
)

// Audit says how AIAS keeps the audit events of nodes.
type Audit struct {
	MaxBytes int64    `json:"maxBytes"` // on disk for each node; the oldest are removed first
	MaxAge   Duration `json:"maxAge"`
	PerNode  int64    `json:"perNode"` // bytes a second that a node may send in the long run, compressed; it waits otherwise

	Export []export.Config `json:"export,omitempty"` // where the events go besides
}

func (c *Audit) complete() error {
	if c.MaxBytes < 1<<20 || c.MaxAge < Duration(time.Hour) || c.PerNode < 16<<10 {
		return fmt.Errorf("configuration: audit: maxBytes must be at least 1048576, maxAge 1h, perNode 16384")
	}
	if err := export.Validate(c.Export); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// auditGrace is how long entries that a node has signed may take to get here.
const auditGrace = 5 * time.Minute

// auditFolder is where the archive is in the data folder.
const auditFolder = "audit"

// auditor is the audit part of AIAS.
type auditor struct {
	archive   *archive.Archive
	exporters []*export.Exporter // since Run

	mu     sync.Mutex
	limits map[string]*rate.Limiter
}

func (a *Authority) openAudit() (*auditor, error) {
	u := &auditor{limits: map[string]*rate.Limiter{}}
	var err error
	u.archive, err = archive.Open(archive.Options{
		Dir: filepath.Join(a.cfg.Data, auditFolder), MaxBytes: a.cfg.Audit.MaxBytes, MaxAge: time.Duration(a.cfg.Audit.MaxAge), Now: a.now, Log: a.log,
		Accepted: func(node string, id chain.ID, entries []chain.Entry) {
			u.wake(node)
			if n := a.node(node); n != nil {
				a.lookAt(n, id, entries)
			}
		},
	})
	return u, err
}

// lookAt has entries that are in the archive looked at. What that could not write down is looked at again when the process begins anew.
func (a *Authority) lookAt(n *node, id chain.ID, entries []chain.Entry) {
	ctx, cancel := context.WithTimeout(context.Background(), handleTime)
	defer cancel()
	if err := a.audited(ctx, n, id, entries); err != nil {
		a.log.Error("audit events were not looked at", "node", n.name, "err", err)
	}
}

// catchUp has entries looked at that were taken in before this process began, and not looked at before the one before it ended. New ones wait for that:
// entries are looked at in order, or not at all.
func (a *Authority) catchUp(n *node, f *archive.Node) error {
	n.catching.Lock()
	defer n.catching.Unlock()
	if n.caught {
		return nil
	}
	if at := f.Position(); at.Seq > n.auditedUpTo() {
		at.Seq = n.auditedUpTo()
		err := f.From(context.Background(), at, func(p *archive.Place) error {
			a.lookAt(n, p.Batch.Before.Chain, archive.Entries(p.Batch))
			return nil
		})
		if err != nil {
			return err
		}
	}
	n.caught = true
	return nil
}

// limit is how fast a node may send, in bytes.
func (u *auditor) limit(node string, perSecond int64) *rate.Limiter {
	u.mu.Lock()
	defer u.mu.Unlock()
	l := u.limits[node]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(perSecond), max(chain.MaxBatch, int(4*perSecond)))
		u.limits[node] = l
	}
	return l
}

// auditExpectation compares the statement of new Evidence with the archive, and remembers what was signed.
func (a *Authority) auditExpectation(ctx context.Context, n *node) func(*claims.Quote, *evidence.AuditStatement) claims.Audit {
	return func(q *claims.Quote, s *evidence.AuditStatement) claims.Audit {
		if s != nil {
			if err := a.signedAudit(ctx, n, q, s); err != nil {
				a.log.Error("the signed state of an audit chain cannot be kept", "node", n.name, "err", err)
			}
		}
		return a.auditClaim(n, s)
	}
}

// signedAudit remembers what the TPM of a node signed. Detections that a boot ends are ended by what its quotes say of boots.
func (a *Authority) signedAudit(ctx context.Context, n *node, q *claims.Quote, s *evidence.AuditStatement) error {
	f, err := a.audit.archive.Node(n.name)
	if err != nil {
		return err
	}
	st := &archive.Statement{BootID: s.BootID, Lost: s.Lost, Key: n.akName, ResetCount: q.ResetCount, RestartCount: q.RestartCount}
	st.Position.Seq = s.Seq
	copy(st.Position.Chain[:], s.Chain)
	copy(st.Position.Head[:], s.Head)
	if err := f.Signed(st); err != nil {
		return err
	}
	n.watch.mu.Lock()
	defer n.watch.mu.Unlock()
	return a.keepDetections(ctx, n, n.watch.booted(a.rules.Load(), f), nil, false)
}

// auditStates are the claims that findings become.
var auditStates = map[string]claims.AuditState{
	archive.Fork: claims.AuditForked, archive.Restart: claims.AuditRestarted, archive.Hole: claims.AuditHole, archive.Rollback: claims.AuditRolledBack,
	archive.Boot: claims.AuditBooted, archive.Reset: claims.AuditReset,
}

// auditClaim says how a node stands; s is what it stated, nil when it stated nothing.
func (a *Authority) auditClaim(n *node, s *evidence.AuditStatement) claims.Audit {
	f, err := a.audit.archive.Node(n.name)
	if err != nil {
		a.log.Error("the audit archive of a node cannot be read", "node", n.name, "err", err)
		return claims.Audit{State: claims.AuditHole, Expected: "the audit archive of the node", Observed: "AIAS cannot read it: see its log"}
	}
	st := f.State()
	c := claims.Audit{NewLost: st.Lost, Gaps: st.Gaps}
	switch open := st.Open(); {
	case open != nil:
		c.State, c.Expected = auditStates[open.Kind], open.Expected
		c.Observed = fmt.Sprintf("%s (entry %d, %s)", open.Observed, open.Seq, open.At.Format(time.RFC3339))
	case s == nil && st.Stated != nil && !n.enrolled.After(st.Stated.At):
		c.State, c.Expected, c.Observed = claims.AuditStopped, "a statement on the audit chain, as "+st.Stated.At.Format(time.RFC3339), "none"
	case s == nil:
	case len(st.Waiting) > 0 && a.now().Sub(st.Waiting[0].At) > auditGrace:
		w := st.Waiting[0]
		c.State = claims.AuditOverdue
		c.Expected = fmt.Sprintf("entry %d, signed %s", w.Seq, w.At.Format(time.RFC3339))
		c.Observed = fmt.Sprintf("%d entries here", st.At.Seq)
	case a.silence(st.Progress) > 0:
		c.State = claims.AuditSilent
		c.Expected = fmt.Sprintf("an entry each minute, or at least within %v (policy: runtime.audit.maxSilence)", a.snapshot.Load().MaxSilence)
		c.Observed = fmt.Sprintf("entry %d, and none since %s", st.At.Seq, st.Progress.UTC().Format(time.RFC3339))
	case len(st.Waiting) > 0:
		c.State = claims.AuditBehind
	default:
		c.State = claims.AuditEqual
	}
	return c
}

// silence is by how much a node has been silent for too long. It is measured with the clock that only goes forward, from what this process saw itself:
// neither a clock that is set, here or there, nor an AIAS that was away makes a node silent.
func (a *Authority) silence(progress time.Time) time.Duration {
	most := a.snapshot.Load().MaxSilence
	if most == 0 || progress.IsZero() {
		return 0
	}
	return a.now().Sub(progress) - most
}

// auditReport is the state of a node for operators.
func auditReport(name string, st *archive.State) *protocol.AuditReport {
	out := &protocol.AuditReport{Node: name, At: ack(st.At), Received: st.Received, Bytes: st.Bytes, Waiting: len(st.Waiting), Lost: st.Lost, Gaps: st.Gaps}
	if c := st.Cut; c.Chain != "" {
		out.Cut = &protocol.AuditAck{Chain: c.Chain, Seq: c.Seq, Head: c.Head}
	}
	if s := st.Stated; s != nil {
		out.Stated, out.StatedAt = &protocol.AuditAck{Chain: s.Chain, Seq: s.Seq, Head: s.Head}, s.At
	}
	for _, f := range st.Findings {
		p := protocol.AuditFinding{Kind: f.Kind, At: f.At, Seq: f.Seq, Last: f.Last, Expected: f.Expected, Observed: f.Observed, By: f.By}
		if f.Accepted != nil {
			p.Accepted = *f.Accepted
		}
		out.Findings = append(out.Findings, p)
	}
	return out
}

func ack(p chain.Position) protocol.AuditAck {
	return protocol.AuditAck{Chain: p.Chain.String(), Seq: p.Seq, Head: p.Head.String()}
}
