package archive

import (
	"context"
	"errors"
	"os"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
)

// Query says which entries to read. Zero fields do not limit.
type Query struct {
	Since, Until time.Time // by the worker's clock
	// Last is how many batches to begin before the end; 0: at the beginning.
	Last int
}

// Place is a batch in the order in which batches came, over all chains of a node.
type Place struct {
	Batch    *chain.Batch
	Received time.Time
}

// Read calls fn with the batches that may hold entries of the query, oldest first; entries outside of the times are in them. A block that
// is damaged is left out: what follows does not continue what was before, as after a hole.
func (n *Node) Read(ctx context.Context, q Query, fn func(*Place) error) error {
	var last *block
	blocks := n.blocks(q)
	for i := 0; i < len(blocks); i++ {
		b := blocks[i]
		if err := ctx.Err(); err != nil {
			return err
		}
		batch, err := b.read()
		if errors.Is(err, os.ErrNotExist) { // compacted, or removed for its age, meanwhile
			if last != nil {
				return n.From(ctx, last.after, fn)
			}
			if again := n.blocks(q); len(again) > 0 && again[0].file.path != b.file.path {
				return n.Read(ctx, q, fn)
			}
		}
		last = b
		if err != nil {
			n.opt.Log.Error("audit entries cannot be read", "node", n.name, "error", err)
			continue
		}
		if err := fn(&Place{Batch: batch, Received: time.Unix(0, b.received).UTC()}); err != nil {
			return err
		}
	}
	return nil
}

// blocks returns those that a query needs.
func (n *Node) blocks(q Query) []*block {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*block
	for _, s := range n.segments {
		for _, b := range s.blocks {
			if !q.Since.IsZero() && b.last < q.Since.UnixNano() || !q.Until.IsZero() && b.first > q.Until.UnixNano() {
				continue
			}
			out = append(out, b)
		}
	}
	if q.Last > 0 && len(out) > q.Last {
		out = out[len(out)-q.Last:]
	}
	return out
}

// Wait returns when there is something behind a position, or ctx ends.
func (n *Node) Wait(ctx context.Context, after chain.Position) error {
	for {
		n.mu.Lock()
		at, moved := n.at, n.moved
		n.mu.Unlock()
		if at != after {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// From calls fn with what came behind a position, without what it had already.
func (n *Node) From(ctx context.Context, after chain.Position, fn func(*Place) error) error {
	seen := after == (chain.Position{})
	for _, b := range n.blocks(Query{}) {
		if !seen {
			if b.before.Chain != after.Chain || b.after.Seq < after.Seq {
				continue
			}
			seen = true
		}
		if b.after.Chain == after.Chain && b.after.Seq <= after.Seq {
			continue
		}
		batch, err := b.read()
		if err != nil {
			return err
		}
		if b.before.Chain == after.Chain {
			if batch, err = behind(batch, after.Seq); err != nil {
				return err
			}
		}
		if err := fn(&Place{Batch: batch, Received: time.Unix(0, b.received).UTC()}); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// HeadAt is the head of a chain after an entry; false when that is not here (any more).
func (n *Node) HeadAt(id chain.ID, seq uint64) (chain.Head, bool) {
	if cut := n.Cut(); cut.Chain == id && cut.Seq == seq {
		return cut.Head, true
	}
	if seq == 0 {
		return chain.Genesis(id), true
	}
	for _, b := range n.blocks(Query{}) {
		switch {
		case b.before.Chain != id || seq < b.before.Seq || seq > b.after.Seq:
			continue
		case seq == b.before.Seq:
			return b.before.Head, true
		case seq == b.after.Seq:
			return b.after.Head, true
		}
		batch, err := b.read()
		if err != nil {
			return chain.Head{}, false
		}
		rest, err := behind(batch, seq)
		if err != nil {
			return chain.Head{}, false
		}
		return rest.Before.Head, true
	}
	return chain.Head{}, false
}

// Bytes is what the node's entries take on disk.
func (n *Node) Bytes() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	var sum int64
	for _, s := range n.segments {
		sum += s.size
	}
	return sum
}
