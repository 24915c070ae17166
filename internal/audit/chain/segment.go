package chain

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// A segment is a file: a head, then frames of length, CRC-32C and entry. The sums are for accidents (a write that was cut short, a bad
// disk); what people do to the file, the chain shows.
const (
	segmentMagic  = "TSAS\x01"
	maxEventID    = 60
	segmentHead   = len(segmentMagic) + 16 + 8 + 32 + 1 + maxEventID + 4
	storedFrame   = 4 + 4
	segmentSuffix = ".seg"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errSegment = errors.New("damaged segment of the audit spool")

// segment is one file of the spool.
type segment struct {
	path   string
	before Position
	last   string // event before it
	size   int64  // bytes on disk that count
}

func (s *segment) name(dir string) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", s.before.Seq+1, segmentSuffix))
}

// head is the first part of the file.
func (s *segment) head() []byte {
	b := make([]byte, 0, segmentHead)
	b = append(b, segmentMagic...)
	b = append(b, s.before.Chain[:]...)
	b = binary.BigEndian.AppendUint64(b, s.before.Seq)
	b = append(b, s.before.Head[:]...)
	last := s.last[:min(len(s.last), maxEventID)]
	b = append(b, byte(len(last)))
	b = append(b, last...)
	b = b[:segmentHead-4]
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readSegment reads the head of a file.
func readSegment(path string) (*segment, error) {
	f, err := os.Open(path) //nolint:gosec // in the spool's own folder
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	b := make([]byte, segmentHead)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errSegment, path, err)
	}
	rest := b[len(segmentMagic):]
	s := &segment{path: path}
	rest = rest[copy(s.before.Chain[:], rest):]
	s.before.Seq = binary.BigEndian.Uint64(rest)
	rest = rest[8:]
	rest = rest[copy(s.before.Head[:], rest):]
	n := int(rest[0])
	sum := crc32.Checksum(b[:segmentHead-4], castagnoli)
	if string(b[:len(segmentMagic)]) != segmentMagic || n > maxEventID || sum != binary.BigEndian.Uint32(b[segmentHead-4:]) {
		return nil, fmt.Errorf("%w: %s: its head", errSegment, path)
	}
	s.last = string(rest[1 : 1+n])
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s.size = info.Size()
	return s, nil
}

// appendFrame writes an entry as segments keep it.
func appendFrame(b, entry []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(entry))) //nolint:gosec // at most MaxEntry
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(entry, castagnoli))
	return append(b, entry...)
}

// frames reads entries of a segment one after the other.
type frames struct {
	r      *bufio.Reader
	offset int64 // behind the last whole frame
	limit  int64 // bytes of the file that count
	seq    uint64
	buf    []byte
}

// newFrames reads from an offset of f; seq is the entry before it.
func newFrames(f io.ReaderAt, offset, limit int64, seq uint64) *frames {
	return &frames{r: bufio.NewReaderSize(io.NewSectionReader(f, offset, limit-offset), 256<<10), offset: offset, limit: limit, seq: seq}
}

// next returns the next entry, which holds until the call after; io.EOF at the end. Other errors wrap errSegment.
func (f *frames) next() ([]byte, error) {
	var head [storedFrame]byte
	if _, err := io.ReadFull(f.r, head[:]); errors.Is(err, io.EOF) {
		return nil, io.EOF
	} else if err != nil {
		return nil, fmt.Errorf("%w: it ends in entry %d", errSegment, f.seq+1)
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > MaxEntry || f.offset+storedFrame+int64(n) > f.limit {
		return nil, fmt.Errorf("%w: entry %d has %d bytes", errSegment, f.seq+1, n)
	}
	if cap(f.buf) < n {
		f.buf = make([]byte, n)
	}
	b := f.buf[:n]
	if _, err := io.ReadFull(f.r, b); err != nil {
		return nil, fmt.Errorf("%w: it ends in entry %d", errSegment, f.seq+1)
	}
	if crc32.Checksum(b, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, fmt.Errorf("%w: the sum of entry %d", errSegment, f.seq+1)
	}
	if _, e, err := split(b); err != nil || e.Seq != f.seq+1 {
		return nil, fmt.Errorf("%w: entry %d at the place of %d", errSegment, e.Seq, f.seq+1)
	}
	f.seq++
	f.offset += storedFrame + int64(n)
	return b, nil
}

// syncDir makes names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the spool's own folder
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // read only
	return d.Sync()
}
