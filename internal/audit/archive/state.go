package archive

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
)

// Lately is how long a loss is shown.
const Lately = time.Hour

// State is where a node stands.
type State struct {
	At       chain.Position
	Received time.Time // when the last entry came
	Bytes    int64
	Cut      Cut
	Stated   *Stated
	Sealed   *Stated // the newest one whose entries are here, and agree
	Waiting  []Stated
	Findings []Finding
	Lost     uint64 // lately
	Gaps     uint64 // lately
	// Progress is when the last entry came, or the first statement when none came since the archive was opened; zero before that. It has a reading of the
	// monotonic clock.
	Progress time.Time
}

// State returns where the node stands.
func (n *Node) State() State {
	bytes := n.Bytes()
	n.mu.Lock()
	defer n.mu.Unlock()
	s := State{At: n.at, Bytes: bytes, Cut: n.book.Cut, Stated: n.book.Stated, Sealed: n.book.Sealed, Waiting: slices.Clone(n.book.Waiting), Findings: slices.Clone(n.book.Findings),
		Progress: n.progress}
	if n.received > 0 {
		s.Received = time.Unix(0, n.received).UTC()
	}
	for _, g := range n.book.Grown {
		if n.opt.Now().Sub(g.At) < Lately {
			s.Lost += g.Lost
			s.Gaps += g.Gaps
		}
	}
	return s
}

// Open returns the finding that stands longest, nil when there is none.
func (s *State) Open() *Finding {
	for i := range s.Findings {
		if s.Findings[i].Accepted == nil {
			return &s.Findings[i]
		}
	}
	return nil
}

// Statement is the state of a chain as the node's TPM signed it in a new statement.
type Statement struct {
	Position chain.Position
	BootID   string // as the node tells
	Lost     uint64
	// What the quote says that covers the statement: the key that signed (its Name), and the TPM's counters.
	Key                      string
	ResetCount, RestartCount uint32
}

// Signed compares a signed statement with what is here, and remembers it. Contradictions become findings.
func (n *Node) Signed(s *Statement) error {
	now := n.opt.Now().UTC()
	stated := Stated{Chain: s.Position.Chain.String(), Seq: s.Position.Seq, Head: s.Position.Head.String(), At: now}
	f := n.contradiction(s)
	if f != nil {
		if err := n.find(*f); err != nil {
			return err
		}
	}
	at := n.Position()
	head, here := n.HeadAt(s.Position.Chain, s.Position.Seq)
	ahead := at.Chain != s.Position.Chain || s.Position.Seq > at.Seq
	var odd []Finding
	err := n.change(func(b *book) {
		if n.progress.IsZero() {
			n.progress = n.opt.Now()
		}
		odd = b.quoted(s)
		if b.Boot == s.BootID && s.Lost > b.Lost {
			b.grow(now, s.Lost-b.Lost, 0)
		}
		b.Boot, b.Lost, b.Stated = s.BootID, s.Lost, &stated
		if !ahead {
			if f == nil && here && head == s.Position.Head {
				b.Sealed = &stated
			}
			return
		}
		if len(b.Waiting) >= maxWaiting { // the oldest one tells how long, the newest ones what
			b.Waiting = slices.Delete(b.Waiting, 1, 2)
		}
		b.Waiting = append(b.Waiting, stated)
	})
	return errors.Join(err, n.findAll(odd))
}

// contradiction finds what an honest worker would not sign.
func (n *Node) contradiction(s *Statement) *Finding {
	p := s.Position
	n.mu.Lock()
	last, at := n.book.Stated, n.at
	n.mu.Unlock()
	if last != nil && last.Chain == p.Chain.String() {
		if p.Seq < last.Seq || p.Seq == last.Seq && p.Head.String() != last.Head {
			return &Finding{Kind: Rollback, Seq: p.Seq, Expected: fmt.Sprintf("at least entry %d, head %s, as signed before", last.Seq, last.Head), Observed: fmt.Sprintf("entry %d, head %v", p.Seq, p.Head)}
		}
	}
	if p.Chain != at.Chain {
		if n.knows(p.Chain) {
			return &Finding{Kind: Rollback, Seq: p.Seq, Expected: "chain " + at.Chain.String(), Observed: "the earlier chain " + p.Chain.String()}
		}
		return nil
	}
	if head, ok := n.HeadAt(p.Chain, p.Seq); ok && head != p.Head {
		return &Finding{Kind: Fork, Seq: p.Seq, Expected: head.String(), Observed: p.Head.String() + ", as signed"}
	}
	return nil
}

// settle checks statements whose entries have come now, and removes what is too old or too much.
func (n *Node) settle(b *chain.Batch, now time.Time) error {
	n.mu.Lock()
	waiting := slices.Clone(n.book.Waiting)
	at := n.at
	n.mu.Unlock()
	if len(waiting) > 0 {
		if err := n.settleStated(waiting, at); err != nil {
			return err
		}
	}
	return n.expire(now)
}

func (n *Node) settleStated(waiting []Stated, at chain.Position) error {
	var left []Stated
	var sealed *Stated
	for _, w := range waiting {
		if w.Chain != at.Chain.String() || w.Seq > at.Seq {
			if w.Chain == at.Chain.String() || !n.knowsText(w.Chain) {
				left = append(left, w)
			}
			continue
		}
		head, ok := n.HeadAt(at.Chain, w.Seq)
		if ok && head.String() == w.Head {
			sealed = &w
		} else if ok {
			if err := n.find(Finding{Kind: Fork, Seq: w.Seq, Expected: w.Head + ", as signed " + w.At.Format(time.RFC3339), Observed: head.String()}); err != nil {
				return err
			}
		}
	}
	if len(left) == len(waiting) {
		return nil
	}
	return n.change(func(b *book) {
		b.Waiting = left
		if sealed != nil {
			b.Sealed = sealed
		}
	})
}

func (n *Node) knowsText(id string) bool {
	var c chain.ID
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != len(c) {
		return false
	}
	copy(c[:], b)
	return n.knows(c)
}

// expire removes the oldest segments beyond the bounds. The head at the cut is kept, before anything is removed.
func (n *Node) expire(now time.Time) error {
	for {
		n.mu.Lock()
		var sum int64
		for _, s := range n.segments {
			sum += s.size
		}
		if len(n.segments) < 2 || len(n.segments[1].blocks) == 0 {
			n.mu.Unlock()
			return nil
		}
		oldest, next := n.segments[0], n.segments[1].blocks[0].before
		var newest int64
		if k := len(oldest.blocks); k > 0 {
			newest = oldest.blocks[k-1].received
		}
		n.mu.Unlock()
		if sum <= n.opt.MaxBytes && now.Sub(time.Unix(0, newest)) <= n.opt.MaxAge {
			return nil
		}
		err := n.change(func(b *book) {
			b.Cut = Cut{Chain: next.Chain.String(), Seq: next.Seq, Head: next.Head.String(), At: now.UTC()}
			for _, blk := range oldest.blocks {
				if id := blk.before.Chain.String(); !slices.Contains(b.Chains, id) && blk.before.Chain != next.Chain {
					b.Chains = append(b.Chains, id)
				}
			}
		})
		if err != nil {
			return err
		}
		if err := os.Remove(oldest.path); err != nil {
			return err
		}
		n.mu.Lock()
		n.segments = n.segments[1:]
		n.mu.Unlock()
	}
}

// Sealed is the newest signed head whose entries are here, and agree; nil when there is none.
func (n *Node) Sealed() *Stated {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.book.Sealed
}
