package chain

import (
	"encoding/binary"
	"fmt"
)

// Limits on a batch, in bytes and entries. A batch with one entry may be as large as that.
const (
	MaxBatch        = MaxEntry + 64<<10
	MaxBatchEntries = 16384
)

const (
	batchMagic = "TSAB\x01"
	batchHead  = len(batchMagic) + 16 + 8 + 32 + 4
	frameHead  = 4
)

// Batch is a run of entries behind a position.
type Batch struct {
	Before  Position
	Entries [][]byte // raw
}

// Size is about how many bytes the entries take in the encoded batch.
func (b *Batch) Size() int {
	n := batchHead
	for _, e := range b.Entries {
		n += frameHead + len(e)
	}
	return n
}

// Encode writes the batch as it travels.
func (b *Batch) Encode() []byte {
	out := make([]byte, 0, b.Size())
	out = append(out, batchMagic...)
	out = append(out, b.Before.Chain[:]...)
	out = binary.BigEndian.AppendUint64(out, b.Before.Seq)
	out = append(out, b.Before.Head[:]...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(b.Entries))) //nolint:gosec // at most MaxBatchEntries
	for _, e := range b.Entries {
		out = binary.BigEndian.AppendUint32(out, uint32(len(e))) //nolint:gosec // at most MaxEntry
		out = append(out, e...)
	}
	return out
}

// DecodeBatch reads a batch. Each entry is well-formed and they are numbered without a gap behind Before; whether they follow what is known
// of the chain is for Verify. Entries alias b. Errors wrap ErrEntry.
func DecodeBatch(b []byte) (*Batch, error) {
	if len(b) < batchHead || len(b) > MaxBatch || string(b[:len(batchMagic)]) != batchMagic {
		return nil, fmt.Errorf("%w: no batch (%d bytes)", ErrEntry, len(b))
	}
	out := new(Batch)
	b = b[len(batchMagic):]
	b = b[copy(out.Before.Chain[:], b):]
	out.Before.Seq = binary.BigEndian.Uint64(b)
	b = b[8:]
	b = b[copy(out.Before.Head[:], b):]
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	if n > MaxBatchEntries || int(n) > len(b)/(frameHead+entryHead) || out.Before.Seq > 1<<62 {
		return nil, fmt.Errorf("%w: a batch of %d entries behind %d, in %d bytes", ErrEntry, n, out.Before.Seq, len(b))
	}
	out.Entries = make([][]byte, 0, n)
	for seq := out.Before.Seq + 1; len(out.Entries) < int(n); seq++ {
		if len(b) < frameHead {
			return nil, fmt.Errorf("%w: the batch ends in entry %d", ErrEntry, seq)
		}
		size := binary.BigEndian.Uint32(b)
		b = b[frameHead:]
		if uint64(size) > uint64(len(b)) {
			return nil, fmt.Errorf("%w: the batch ends in entry %d", ErrEntry, seq)
		}
		e, err := Parse(b[:size])
		if err != nil {
			return nil, err
		}
		if e.Seq != seq {
			return nil, fmt.Errorf("%w: entry %d at the place of entry %d", ErrEntry, e.Seq, seq)
		}
		out.Entries = append(out.Entries, b[:size:size])
		b = b[size:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the batch", ErrEntry, len(b))
	}
	return out, nil
}

// Verify computes the position behind entries that follow p. It refuses, with ErrBroken, entries that are not numbered in order.
func Verify(p Position, entries [][]byte) (Position, error) {
	for _, e := range entries {
		if got := Seq(e); got != p.Seq+1 {
			return p, fmt.Errorf("%w: entry %d follows entry %d", ErrBroken, got, p.Seq)
		}
		p = p.After(e)
	}
	return p, nil
}

// End is the position behind the batch, when Before holds.
func (b *Batch) End() (Position, error) { return Verify(b.Before, b.Entries) }
