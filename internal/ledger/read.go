package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"
)

// Why a ledger does not verify.
var (
	ErrSignature = errors.New("the checkpoint is not signed by the key of this ledger")
	ErrTampered  = errors.New("the ledger was tampered with")
)

// Source is where a ledger is read from: a folder, or AIAS.
type Source interface {
	ReadCheckpoint(ctx context.Context) ([]byte, error)
	ReadTile(ctx context.Context, level, index uint64, partial uint8) ([]byte, error)
	ReadEntryBundle(ctx context.Context, index uint64, partial uint8) ([]byte, error)
}

// Folder reads a ledger from its folder, or a copy of it.
func Folder(dir string) Source { return client.FileFetcher{Root: dir} }

// Checkpoint commits to the first Size entries.
type Checkpoint struct {
	Size uint64
	Root []byte
	Text string // the signed note
}

// Reader reads a ledger and believes nothing that its key has not signed.
type Reader struct {
	source   Source
	verifier note.Verifier
}

// NewReader returns a reader for a public key, as NewKey made it.
func NewReader(s Source, public string) (*Reader, error) {
	v, err := note.NewVerifier(public)
	if err != nil {
		return nil, fmt.Errorf("public key of the ledger %.80q: %w", public, err)
	}
	return &Reader{s, v}, nil
}

// Checkpoint returns the newest checkpoint.
func (r *Reader) Checkpoint(ctx context.Context) (*Checkpoint, error) {
	text, err := r.source.ReadCheckpoint(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no ledger, or no checkpoint in it: %w", err)
	}
	if err != nil {
		return nil, err
	}
	return r.Parse(text)
}

// Parse reads a checkpoint and checks its signature.
func (r *Reader) Parse(text []byte) (*Checkpoint, error) {
	cp, _, _, err := log.ParseCheckpoint(text, r.verifier.Name(), r.verifier)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrSignature, err)
	}
	if cp.Size > 1<<48 || len(cp.Hash) != rfc6962.DefaultHasher.Size() {
		return nil, fmt.Errorf("%w: a checkpoint of %d entries with a hash of %d bytes", ErrTampered, cp.Size, len(cp.Hash))
	}
	return &Checkpoint{cp.Size, cp.Hash, string(text)}, nil
}

// Numbered is an entry with its place in the ledger.
type Numbered struct {
	Index uint64 `json:"index"`
	Entry
	data []byte
}

// Entries yields the entries from first to the last one that cp commits to, in order. It does not verify them: Verify and Prove do.
func (r *Reader) Entries(ctx context.Context, cp *Checkpoint, first uint64) iter.Seq2[Numbered, error] {
	return func(yield func(Numbered, error) bool) {
		for raw, err := range r.raw(ctx, cp, first) {
			if err == nil {
				raw.Entry, err = Decode(raw.data)
			}
			if !yield(raw, err) || err != nil {
				return
			}
		}
	}
}

// raw yields the entries as they were hashed.
func (r *Reader) raw(ctx context.Context, cp *Checkpoint, first uint64) iter.Seq2[Numbered, error] {
	return func(yield func(Numbered, error) bool) {
		for index := first; index < cp.Size; {
			number := index / layout.EntryBundleWidth
			partial := layout.PartialTileSize(0, number, cp.Size)
			data, err := r.source.ReadEntryBundle(ctx, number, partial)
			if err != nil {
				yield(Numbered{}, fmt.Errorf("%w: entries from %d on: %w", ErrTampered, index, err))
				return
			}
			var bundle api.EntryBundle
			want := min(cp.Size-number*layout.EntryBundleWidth, layout.EntryBundleWidth)
			err = bundle.UnmarshalText(data)
			if have := uint64(len(bundle.Entries)); err == nil && have < want {
				err = fmt.Errorf("%d of %d are there", have, want)
			}
			if err != nil {
				yield(Numbered{}, fmt.Errorf("%w: entries from %d on: %w", ErrTampered, number*layout.EntryBundleWidth, err))
				return
			}
			for _, e := range bundle.Entries[index%layout.EntryBundleWidth : want] {
				if !yield(Numbered{Index: index, data: e}, nil) {
					return
				}
				index++
			}
		}
	}
}

// Verify hashes every entry that cp commits to and compares. progress, when not nil, is told how many were hashed.
func (r *Reader) Verify(ctx context.Context, cp *Checkpoint, progress func(uint64)) error {
	factory := compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	tree := factory.NewEmptyRange(0)
	for e, err := range r.raw(ctx, cp, 0) {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := tree.Append(rfc6962.DefaultHasher.HashLeaf(e.data), nil); err != nil {
			return err
		}
		if progress != nil {
			progress(e.Index + 1)
		}
	}
	root, err := tree.GetRootHash(nil)
	if err != nil {
		return err
	}
	if cp.Size == 0 {
		root = rfc6962.DefaultHasher.EmptyRoot()
	}
	if !bytes.Equal(root, cp.Root) {
		return fmt.Errorf("%w: its %d entries hash to %x, the checkpoint says %x", ErrTampered, cp.Size, root, cp.Root)
	}
	return nil
}

// Continues proves that newer commits to all that older commits to, in the same order.
func (r *Reader) Continues(ctx context.Context, older, newer *Checkpoint) error {
	if older.Size > newer.Size {
		return fmt.Errorf("%w: it had %d entries, now it has %d", ErrTampered, older.Size, newer.Size)
	}
	if older.Size == 0 {
		return nil
	}
	var hashes [][]byte
	if older.Size < newer.Size {
		b, err := client.NewProofBuilder(ctx, newer.Size, r.source.ReadTile)
		if err == nil {
			hashes, err = b.ConsistencyProof(ctx, older.Size, newer.Size)
		}
		if err != nil {
			return fmt.Errorf("%w: its hashes: %w", ErrTampered, err)
		}
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, older.Size, newer.Size, hashes, older.Root, newer.Root); err != nil {
		return fmt.Errorf("%w: what it held at %d entries is not what it holds now: %w", ErrTampered, older.Size, err)
	}
	return nil
}
