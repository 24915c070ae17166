package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
)

// A segment is a magic and blocks. A block is a head of fixed size, with its own sum, and a compressed batch.
const (
	segmentMagic = "TSAA\x01"
	blockHead    = 4 + 4 + 16 + 2*(8+32) + 3*8 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("damaged block of the audit archive")

// block says where a batch is, and what it is without reading it.
type block struct {
	file          *segment
	offset        int64 // of the payload
	size          int   // bytes of the payload
	sum           uint32
	before, after chain.Position
	first, last   int64 // times of entries, the least and the greatest, in nanoseconds
	received      int64
}

func (b *block) head() []byte {
	out := binary.BigEndian.AppendUint32(make([]byte, 0, blockHead), uint32(b.size)) //nolint:gosec // of a batch
	out = binary.BigEndian.AppendUint32(out, b.sum)
	out = append(out, b.before.Chain[:]...)
	for _, p := range []*chain.Position{&b.before, &b.after} {
		out = binary.BigEndian.AppendUint64(out, p.Seq)
		out = append(out, p.Head[:]...)
	}
	for _, t := range []int64{b.first, b.last, b.received} {
		out = binary.BigEndian.AppendUint64(out, uint64(t)) //nolint:gosec // read back as it is written
	}
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

func parseBlock(b []byte) (*block, error) {
	if crc32.Checksum(b[:blockHead-4], castagnoli) != binary.BigEndian.Uint32(b[blockHead-4:]) {
		return nil, fmt.Errorf("%w: its head", errDamaged)
	}
	out := &block{size: int(binary.BigEndian.Uint32(b)), sum: binary.BigEndian.Uint32(b[4:])}
	b = b[8:]
	b = b[copy(out.before.Chain[:], b):]
	out.after.Chain = out.before.Chain
	for _, p := range []*chain.Position{&out.before, &out.after} {
		p.Seq = binary.BigEndian.Uint64(b)
		b = b[8:]
		b = b[copy(p.Head[:], b):]
	}
	for i, t := range []*int64{&out.first, &out.last, &out.received} {
		*t = int64(binary.BigEndian.Uint64(b[8*i:])) //nolint:gosec // written so
	}
	return out, nil
}

// newBlock packs a batch whose end is known.
func newBlock(b *chain.Batch, after chain.Position, received time.Time) (*block, []byte) {
	payload := chain.Pack(b)
	out := &block{size: len(payload), sum: crc32.Checksum(payload, castagnoli), before: b.Before, after: after, received: received.UnixNano()}
	for i, raw := range b.Entries {
		t := entryTime(raw)
		if i == 0 || t < out.first {
			out.first = t
		}
		if i == 0 || t > out.last {
			out.last = t
		}
	}
	return out, append(out.head(), payload...)
}

func entryTime(raw []byte) int64 { return int64(binary.BigEndian.Uint64(raw[10:])) } //nolint:gosec // as chain writes it

// read fetches the batch of a block.
func (b *block) read() (*chain.Batch, error) {
	f, err := os.Open(b.file.path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	payload := make([]byte, b.size)
	if _, err := f.ReadAt(payload, b.offset); err != nil {
		return nil, err
	}
	if crc32.Checksum(payload, castagnoli) != b.sum {
		return nil, fmt.Errorf("%w: entries %d to %d in %s", errDamaged, b.before.Seq+1, b.after.Seq, b.file.path)
	}
	return chain.Unpack(payload)
}

// segment is one file.
type segment struct {
	path   string
	size   int64
	blocks []*block
}

// scan reads the heads of a segment. With cut, the rest behind the last whole block is cut off.
func scan(path string, cut bool) (*segment, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // synced where it was written
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s := &segment{path: path, size: int64(len(segmentMagic))}
	magic := make([]byte, len(segmentMagic))
	if _, err := io.ReadFull(f, magic); err != nil || string(magic) != segmentMagic {
		if cut {
			return nil, errDamaged
		}
		return nil, fmt.Errorf("%w: %s is no segment", errDamaged, path)
	}
	head := make([]byte, blockHead)
	for s.size+blockHead <= info.Size() {
		if _, err := f.ReadAt(head, s.size); err != nil {
			return nil, err
		}
		b, err := parseBlock(head)
		if err != nil || s.size+blockHead+int64(b.size) > info.Size() {
			break
		}
		b.file, b.offset = s, s.size+blockHead
		if last := b.offset+int64(b.size) == info.Size(); last && cut { // a head may be written before its payload
			if _, err := b.read(); err != nil {
				break
			}
		}
		s.blocks = append(s.blocks, b)
		s.size = b.offset + int64(b.size)
	}
	if s.size == info.Size() {
		return s, nil
	}
	if !cut {
		return nil, fmt.Errorf("%w: %s behind byte %d", errDamaged, path, s.size)
	}
	if err := f.Truncate(s.size); err != nil {
		return nil, err
	}
	return s, f.Sync()
}

// behind returns the entries of a batch behind a number, and the position before them.
func behind(b *chain.Batch, seq uint64) (*chain.Batch, error) {
	if b.Before.Seq >= seq {
		return b, nil
	}
	skip := min(seq-b.Before.Seq, uint64(len(b.Entries)))
	p, err := chain.Verify(b.Before, b.Entries[:skip])
	if err != nil {
		return nil, err
	}
	return &chain.Batch{Before: p, Entries: b.Entries[skip:]}, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // of the archive
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
