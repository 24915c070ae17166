package chain

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

var (
	packer   = must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20)))
	unpacker = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(MaxBatch), zstd.WithDecoderMaxWindow(8<<20)))
)

// Pack compresses a batch, as it travels and is kept.
func Pack(b *Batch) []byte { return packer.EncodeAll(b.Encode(), nil) }

// Unpack reads what Pack wrote, bounded by MaxBatch. Errors wrap ErrEntry.
func Unpack(b []byte) (*Batch, error) {
	raw, err := unpacker.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEntry, err)
	}
	return DecodeBatch(raw)
}
