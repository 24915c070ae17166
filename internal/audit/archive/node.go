package archive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
)

// Node is the archive of one node.
type Node struct {
	name string
	dir  string
	opt  *Options

	append sync.Mutex // held over a write; before mu

	mu       sync.Mutex
	segments []*segment
	file     *os.File // the last segment
	at       chain.Position
	received int64
	progress time.Time // see State
	book     book
	moved    chan struct{} // closed when entries come
}

const suffix = ".seg"

func (n *Node) load() error {
	names, err := filepath.Glob(filepath.Join(n.dir, "*"+suffix))
	if err != nil {
		return err
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	if names, err = dropDoubles(names); err != nil {
		return err
	}
	if err := n.loadBook(); err != nil {
		return err
	}
	for i, name := range names {
		s, err := scan(name, i == len(names)-1)
		if errors.Is(err, errDamaged) {
			n.opt.Log.Error("a segment of the audit archive is damaged and left out: its entries are a hole", "file", name, "error", err)
			if err := os.Rename(name, name+".damaged"); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		n.segments = append(n.segments, s)
		if k := len(s.blocks); k > 0 {
			n.at, n.received = s.blocks[k-1].after, s.blocks[k-1].received
		}
	}
	if n.at == (chain.Position{}) {
		n.at = n.book.Cut.position()
	}
	return nil
}

func (n *Node) close() {
	n.append.Lock()
	defer n.append.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file != nil {
		_ = n.file.Close() // synced after each write
		n.file = nil
	}
}

// Position is the end of what is here; zero when there is nothing.
func (n *Node) Position() chain.Position {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.at
}

// Append takes the entries of a batch that are not here yet, and returns the new end. enrolled is when the node enrolled last: after that
// it may begin a new chain. With lost, the node says that it does not have the entries before the batch any more: they become a hole, which is
// a finding. Errors are ErrBehind, ErrFork (a finding too), ErrFull, and chain.ErrEntry.
func (n *Node) Append(b *chain.Batch, enrolled time.Time, lost bool) (chain.Position, error) {
	n.append.Lock()
	defer n.append.Unlock()
	at := n.Position()
	if len(b.Entries) == 0 {
		return at, nil
	}
	b, finding, err := n.fit(at, b, enrolled, lost)
	if err != nil || b == nil {
		if finding != nil {
			err = errors.Join(err, n.find(*finding))
		}
		return at, err
	}
	after, err := chain.Verify(b.Before, b.Entries)
	if err != nil {
		return at, err
	}
	if finding != nil {
		if err := n.find(*finding); err != nil {
			return at, err
		}
	}
	now := n.opt.Now()
	if err := n.write(b, after, now); err != nil {
		return at, fmt.Errorf("%w: %w", ErrFull, err)
	}
	if err := n.tell(b, now); err != nil {
		return after, err
	}
	return after, n.settle(b, now)
}

// fit cuts off what is here already, and says what is odd about the rest. It returns nil when nothing is left.
func (n *Node) fit(at chain.Position, b *chain.Batch, enrolled time.Time, lost bool) (*chain.Batch, *Finding, error) {
	if at.Chain != b.Before.Chain {
		return n.fitNew(at, b, enrolled)
	}
	if b.Before.Seq > at.Seq {
		if !lost {
			return nil, nil, ErrBehind
		}
		return b, n.lost(at, b.Before.Seq), nil
	}
	end := b.Before.Seq + uint64(len(b.Entries))
	overlap := min(at.Seq, end)
	rest, err := behind(b, overlap)
	if err != nil {
		return nil, nil, err
	}
	if head, ok := n.HeadAt(at.Chain, overlap); ok && head != rest.Before.Head {
		return nil, &Finding{Kind: Fork, Seq: overlap, Expected: head.String(), Observed: rest.Before.Head.String()}, ErrFork
	}
	if end <= at.Seq {
		return nil, nil, nil
	}
	return rest, nil, nil
}

// fitNew judges a batch of another chain than the last one here.
func (n *Node) fitNew(at chain.Position, b *chain.Batch, enrolled time.Time) (*chain.Batch, *Finding, error) {
	if n.knows(b.Before.Chain) {
		return nil, &Finding{Kind: Fork, Seq: b.Before.Seq, Expected: "chain " + at.Chain.String(), Observed: "the earlier chain " + b.Before.Chain.String()}, ErrFork
	}
	if b.Before != chain.Start(b.Before.Chain) {
		if at == (chain.Position{}) { // AIAS has nothing: it was put back, or the archive was removed
			return b, &Finding{Kind: Hole, Seq: 1, Last: b.Before.Seq, Observed: "the first entries never came"}, nil
		}
		return nil, nil, ErrBehind
	}
	last := time.Unix(0, n.received)
	if at == (chain.Position{}) || enrolled.After(last) {
		return b, nil, nil
	}
	return b, &Finding{Kind: Restart, Seq: at.Seq, Expected: fmt.Sprintf("entry %d of chain %v", at.Seq+1, at.Chain), Observed: "chain " + b.Before.Chain.String()}, nil
}

// knows reports whether a chain was here before the last one.
func (n *Node) knows(id chain.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.segments {
		for _, b := range s.blocks {
			if b.before.Chain == id {
				return true
			}
		}
	}
	return slices.Contains(n.book.Chains, id.String())
}

// write appends a block and syncs it.
func (n *Node) write(b *chain.Batch, after chain.Position, now time.Time) error {
	if err := n.open(); err != nil {
		return err
	}
	s := n.segments[len(n.segments)-1]
	blk, data := newBlock(b, after, now)
	_, err := n.file.WriteAt(data, s.size)
	if err == nil {
		err = n.file.Sync()
	}
	if err != nil {
		return errors.Join(err, n.file.Truncate(s.size))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	blk.file, blk.offset = s, s.size+blockHead
	s.blocks = append(s.blocks, blk)
	s.size += int64(len(data))
	n.at, n.received, n.progress = after, now.UnixNano(), now
	close(n.moved)
	n.moved = make(chan struct{})
	return nil
}

// open makes sure that there is a segment to write to.
func (n *Node) open() error {
	k := len(n.segments)
	if k > 0 && n.segments[k-1].size < n.opt.Segment && len(n.segments[k-1].blocks) < maxBlocks && !strings.HasSuffix(n.segments[k-1].path, compacted) {
		if n.file != nil {
			return nil
		}
		f, err := os.OpenFile(n.segments[k-1].path, os.O_RDWR, 0)
		n.file = f
		return err
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	// By time, as chains begin anew; behind the last one in any case.
	name := fmt.Sprintf("%020d", n.opt.Now().UnixNano())
	if k > 0 {
		if last := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(n.segments[k-1].path), suffix), "-c"); name <= last {
			name = last + "0" // the clock went back
		}
	}
	s := &segment{path: filepath.Join(n.dir, name+suffix), size: int64(len(segmentMagic))}
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(segmentMagic); err == nil {
		err = errors.Join(f.Sync(), syncDir(n.dir), syncDir(filepath.Dir(n.dir)))
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(s.path))
	}
	if n.file != nil {
		_ = n.file.Close() // synced after each write
	}
	n.mu.Lock()
	n.file = f
	n.segments = append(n.segments, s)
	n.mu.Unlock()
	if k > 0 {
		if err := n.compact(k - 1); err != nil {
			n.opt.Log.Warn("a segment of the audit archive could not be compacted", "node", n.name, "error", err)
		}
	}
	return nil
}

// tell calls Accepted with the entries.
func (n *Node) tell(b *chain.Batch, now time.Time) error {
	entries := Entries(b)
	var starts []*chain.Entry
	for i := range entries {
		switch entries[i].Kind {
		case chain.KindGap:
			n.noteGap(now)
		case chain.KindStart:
			starts = append(starts, &entries[i])
		}
	}
	if err := n.begin(b.Before.Chain.String(), starts); err != nil {
		return err
	}
	if n.opt.Accepted != nil {
		n.opt.Accepted(n.name, b.Before.Chain, entries)
	}
	return nil
}

// Entries parses the entries of a batch.
func Entries(b *chain.Batch) []chain.Entry {
	out := make([]chain.Entry, 0, len(b.Entries))
	for _, raw := range b.Entries {
		e, err := chain.Parse(raw)
		if err != nil {
			continue // DecodeBatch parsed it: not reached
		}
		out = append(out, e)
	}
	return out
}
