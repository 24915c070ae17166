package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/protocol"
)

// auditBatch is about how many bytes of entries travel at once, before compression.
const auditBatch = 1 << 20

// auditSender brings the chain to AIAS, in order. It uses the connection of the present session, and waits while there is none.
type auditSender struct {
	spool *chain.Spool
	wait  backoff
	ask   func() // for an attestation
	log   *slog.Logger

	mu   sync.Mutex
	link Link
	came chan struct{} // closed when there is a link
}

func newAuditSender(spool *chain.Spool, wait backoff, ask func(), log *slog.Logger) *auditSender {
	return &auditSender{spool: spool, wait: wait, ask: ask, log: log, came: make(chan struct{})}
}

// enter gives the sender a link; leave takes it away.
func (s *auditSender) enter(l Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		close(s.came)
	}
	s.link = l
}

func (s *auditSender) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != nil {
		s.link, s.came = nil, make(chan struct{})
	}
}

// connected waits for a link; nil when ctx ended.
func (s *auditSender) connected(ctx context.Context) Link {
	for {
		s.mu.Lock()
		link, came := s.link, s.came
		s.mu.Unlock()
		if link != nil {
			return link
		}
		select {
		case <-ctx.Done():
			return nil
		case <-came:
		}
	}
}

// run sends until ctx ends. After a failure it asks AIAS anew where it is.
func (s *auditSender) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.send(ctx)
		if ctx.Err() != nil {
			return
		}
		d := s.wait.next()
		var r *Refusal
		if errors.As(err, &r) && r.RetryAfter > 0 {
			d = r.RetryAfter
		}
		s.log.Warn("audit events wait for AIAS", "error", err, "entries", s.spool.Head().Seq-s.spool.Acked(), "trying again in", d.Round(time.Millisecond))
		sleep(ctx, d)
	}
}

// send goes on from where AIAS is until something fails.
func (s *auditSender) send(ctx context.Context) error {
	link := s.connected(ctx)
	if link == nil {
		return ctx.Err()
	}
	at, err := link.AuditAt(ctx)
	if err != nil {
		return err
	}
	seq, err := s.place(at)
	if err != nil {
		return err
	}
	for {
		if err := s.spool.Wait(ctx, seq); err != nil {
			return err
		}
		if link = s.connected(ctx); link == nil {
			return ctx.Err()
		}
		b, err := s.spool.Read(seq, auditBatch)
		if err != nil {
			return err
		}
		if len(b.Entries) == 0 {
			seq = b.Before.Seq
			continue
		}
		lost := b.Before.Seq > seq
		got, err := link.SendAudit(ctx, chain.Pack(b), lost)
		if err != nil {
			return s.refused(err)
		}
		s.wait.reset()
		if got.Attest {
			s.ask()
		}
		if seq, err = s.place(got); err != nil {
			return err
		}
	}
}

// place finds where to go on when AIAS is at a position, and lets go of what it has.
func (s *auditSender) place(at *protocol.AuditAck) (uint64, error) {
	head := s.spool.Head()
	switch {
	case at.Chain == head.Chain.String() && at.Seq <= head.Seq:
		s.spool.Ack(at.Seq)
		return at.Seq, nil
	case at.Chain == head.Chain.String():
		return 0, s.renew(fmt.Sprintf("AIAS has entry %d, and this chain ends with %d: the disk was put back", at.Seq, head.Seq))
	case at.Seq > 0 && s.spool.Oldest() > 0:
		return 0, s.renew("AIAS has another chain, and the beginning of this one is gone")
	}
	return 0, nil // AIAS has nothing of this chain yet
}

// refused does what a refusal asks for. The error says why sending begins anew.
func (s *auditSender) refused(err error) error {
	var r *Refusal
	if errors.As(err, &r) && r.Type == protocol.ProblemAuditFork {
		return s.renew("AIAS has other entries")
	}
	return err
}

// renew begins a new chain: AIAS judges what that means.
func (s *auditSender) renew(why string) error {
	if err := s.spool.Renew(why); err != nil {
		return err
	}
	return errors.New("a new audit chain was begun: " + why)
}
