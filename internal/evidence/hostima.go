package evidence

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrOffset says that the IMA list is shorter than the offset from which it was to be read: another boot, or another list.
var ErrOffset = errors.New("the IMA list ends before the offset")

// ReadIMA reads the IMA list from a byte offset on. Nothing new is an empty list; a list that ends before the offset is ErrOffset, a
// kernel without IMA an error that wraps fs.ErrNotExist.
//
// The kernel's file has no size, and it makes all entries before the offset again to find it; a file in a test, or a pipe, behaves
// otherwise. Therefore: seek when that works, else read and drop; and in either case read the byte before the offset to know that the
// list reaches there.
func ReadIMA(root string, offset uint64) ([]byte, error) {
	f, err := os.Open(filepath.Join("/", root, imaPath))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAbsent, err)
	}
	defer f.Close()
	return readFrom(f, offset)
}

func readFrom(f io.Reader, offset uint64) ([]byte, error) {
	if offset > maxOffset {
		return nil, fmt.Errorf("%w %d", ErrOffset, offset)
	}
	if offset > 0 {
		if err := skip(f, int64(offset-1)); err != nil {
			return nil, err
		}
		var last [1]byte
		if _, err := io.ReadFull(f, last[:]); err != nil {
			return nil, fmt.Errorf("%w %d", ErrOffset, offset)
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxIMA+1))
	if err != nil {
		return nil, fmt.Errorf("read the IMA list: %w", err)
	}
	if len(b) > MaxIMA {
		return nil, fmt.Errorf("read the IMA list: %w: more than %d bytes are new", ErrLimit, MaxIMA)
	}
	return b, nil
}

// skip moves n bytes on.
func skip(f io.Reader, n int64) error {
	if s, ok := f.(io.Seeker); ok {
		if at, err := s.Seek(n, io.SeekStart); err == nil && at == n {
			return nil
		}
	}
	if _, err := io.CopyN(io.Discard, f, n); err != nil {
		return fmt.Errorf("%w %d", ErrOffset, n+1)
	}
	return nil
}
