package ledger

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/transparency-dev/tessera"
)

const (
	// treeSpacing is between two batches that the tree gets: each costs some 20 files, whatever its size.
	treeSpacing = CheckpointInterval / 2
	retryTime   = time.Second
	openTime    = time.Minute // for what is in the journal when the ledger is opened
)

// sequence brings what is in the journal into the tree, until the journal is closed. It is the only goroutine that writes to the tree.
func (l *Ledger) sequence(ctx context.Context, size uint64) {
	defer close(l.sequenced)
	defer l.spare.release()
	for {
		batch := l.journal.next()
		if len(batch) == 0 {
			return
		}
		start := time.Now()
		failed, err := l.integrate(ctx, batch, &size)
		l.journal.told(time.Now(), len(failed) < len(batch), err)
		l.journal.done(len(batch), failed, size)
		wait := treeSpacing - time.Since(start)
		if err != nil {
			slog.Error("the ledger cannot be written: its entries wait in its journal", "err", err)
			wait = retryTime
		}
		select {
		case <-l.done: // nothing comes any more
			if err != nil {
				return // the journal keeps it
			}
		case <-time.After(wait):
		}
	}
}

// integrate adds a batch, and returns what could not be added.
func (l *Ledger) integrate(ctx context.Context, batch [][]byte, size *uint64) (failed [][]byte, err error) {
	if err := l.spare.fill(); err != nil {
		return slices.Clone(batch), err
	}
	l.spare.release()
	defer func() { _ = l.spare.fill() }() // what fails now is tried again before the next batch
	futures := make([]tessera.IndexFuture, len(batch))
	for i, data := range batch {
		futures[i] = l.add(ctx, tessera.NewEntry(data))
	}
	for i, data := range batch {
		index, e := futures[i]()
		if e != nil {
			failed, err = append(failed, data), e
			continue
		}
		*size = max(*size, index.Index+1)
	}
	return failed, err
}

// recover hands those entries of the journal to the tree that it does not have, and waits until a checkpoint covers all.
func (l *Ledger) recover(ctx context.Context, entries [][]byte, size uint64) error {
	have := map[[sha256.Size]byte]int{}
	if len(entries) > 0 {
		for e, err := range l.reader.raw(ctx, &Checkpoint{Size: size}, l.journal.base) {
			if err != nil {
				return err
			}
			have[sha256.Sum256(e.data)]++
		}
	}
	var missing [][]byte
	for _, data := range entries {
		if sum := sha256.Sum256(data); have[sum] > 0 {
			have[sum]--
		} else {
			missing = append(missing, data)
		}
	}
	l.journal.add(missing)
	go l.sequence(ctx, size)
	size += uint64(len(missing))
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	for {
		cp, err := l.reader.Checkpoint(ctx)
		if err != nil || cp.Size >= size {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d entries, and a checkpoint of %d after %s", size, cp.Size, openTime)
		case <-time.After(CheckpointInterval / 4):
		}
	}
}
