package archive

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
)

// Batches are small when little happens. A segment that is full is written anew in large blocks: it compresses better, and its index is short.
const (
	maxBlocks   = 4096    // in one segment before it is full
	blockTarget = 1 << 20 // bytes of entries in a compacted block
	compacted   = "-c" + suffix
)

// compact writes a full segment anew beside the old one, which is removed then. The caller holds append.
func (n *Node) compact(i int) error {
	old := n.segments[i]
	if strings.HasSuffix(old.path, compacted) || len(old.blocks) < 2 {
		return nil
	}
	fresh := &segment{path: strings.TrimSuffix(old.path, suffix) + compacted, size: int64(len(segmentMagic))}
	tmp := filepath.Join(n.dir, ".compact")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) //nolint:errcheck // gone after the rename
	_, err = f.WriteString(segmentMagic)
	if err == nil {
		err = merge(old, func(b *chain.Batch, after chain.Position, received int64) error {
			blk, data := newBlock(b, after, time.Unix(0, received))
			blk.file, blk.offset = fresh, fresh.size+blockHead
			fresh.blocks = append(fresh.blocks, blk)
			fresh.size += int64(len(data))
			_, err := f.Write(data)
			return err
		})
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, fresh.path); err != nil {
		return err
	}
	if err := syncDir(n.dir); err != nil {
		return err
	}
	n.mu.Lock()
	n.segments[i] = fresh
	n.mu.Unlock()
	return os.Remove(old.path)
}

// merge calls fn with what the blocks hold, in large batches that follow each other as the blocks did.
func merge(s *segment, fn func(b *chain.Batch, after chain.Position, received int64) error) error {
	var all *chain.Batch
	var last *block
	size := 0
	flush := func() error {
		if all == nil {
			return nil
		}
		err := fn(all, last.after, last.received)
		all, size = nil, 0
		return err
	}
	for _, blk := range s.blocks {
		b, err := blk.read()
		if err != nil {
			return err
		}
		if all != nil && (last.after != blk.before || size > blockTarget || len(all.Entries)+len(b.Entries) > chain.MaxBatchEntries || size+b.Size() > chain.MaxBatch) {
			if err := flush(); err != nil {
				return err
			}
		}
		if all == nil {
			all = &chain.Batch{Before: b.Before}
		}
		all.Entries = append(all.Entries, b.Entries...)
		size += b.Size()
		last = blk
	}
	return flush()
}

// dropDoubles removes segments that a crash left beside their compacted form.
func dropDoubles(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		if _, err := os.Stat(strings.TrimSuffix(name, suffix) + compacted); err == nil && !strings.HasSuffix(name, compacted) {
			if err := os.Remove(name); err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, name)
	}
	return out, nil
}
