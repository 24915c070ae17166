package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
)

// Bundles yields all entries that cp commits to, as they were hashed: up to 256 in each, with a size of two bytes before each (C2SP tlog-tiles).
func (r *Reader) Bundles(ctx context.Context, cp *Checkpoint) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		var bundle []byte
		for e, err := range r.raw(ctx, cp, 0) {
			if err != nil {
				yield(nil, err)
				return
			}
			bundle = append(binary.BigEndian.AppendUint16(bundle, uint16(len(e.data))), e.data...)
			if e.Index%layout.EntryBundleWidth == layout.EntryBundleWidth-1 || e.Index == cp.Size-1 {
				if !yield(bundle, nil) {
					return
				}
				bundle = nil
			}
		}
	}
}

// Rebuild makes a ledger again from its entries.
type Rebuild struct{ ledger *Ledger }

// NewRebuild begins a ledger in an empty folder.
func NewRebuild(ctx context.Context, dir, secret, public string) (*Rebuild, error) {
	l, err := Open(ctx, dir, secret, public)
	if err != nil {
		return nil, err
	}
	cp, err := l.reader.Checkpoint(ctx)
	if err == nil && cp.Size > 0 {
		err = fmt.Errorf("there is a ledger in %s already", dir)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &Rebuild{l}, nil
}

// Add writes the entries of one bundle.
func (b *Rebuild) Add(ctx context.Context, bundle []byte) error {
	var entries api.EntryBundle
	if err := entries.UnmarshalText(bundle); err != nil {
		return fmt.Errorf("%w: entries: %w", ErrTampered, err)
	}
	items := make([]*item, len(entries.Entries))
	for i, data := range entries.Entries {
		items[i] = &item{data, make(chan error, 1)}
	}
	return b.ledger.put(ctx, items)
}

// Close ends the ledger, and compares it with the checkpoint of the one that it is to be (text, a signed note).
func (b *Rebuild) Close(ctx context.Context, text string) error {
	if err := b.ledger.Close(); err != nil {
		return err
	}
	want, err := b.ledger.reader.Parse([]byte(text))
	if err != nil {
		return err
	}
	got, err := b.ledger.reader.Checkpoint(ctx)
	if err != nil {
		return err
	}
	if got.Size != want.Size || string(got.Root) != string(want.Root) {
		return fmt.Errorf("%w: its entries are not those that its checkpoint commits to", ErrTampered)
	}
	return nil
}

// Abandon closes a ledger that is not wanted any more.
func (b *Rebuild) Abandon() { _ = b.ledger.Close() }
