package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// place is where in a log a reader stands. Inodes are used again, so the first bytes tell whether it is the same file.
type place struct {
	Dev    uint64 `json:"dev"`
	Inode  uint64 `json:"inode"`
	Head   []byte `json:"head,omitempty"` // SHA-256 of the first HeadLen bytes
	Length int    `json:"headLength,omitempty"`
	Offset int64  `json:"offset"`
}

// headLength is how much of a file tells which one it is: its first record, with time and serial number.
const headLength = 256

// tail follows auditd's log through rotations: audit.log is written, audit.log.1 was before it, and so on.
type tail struct {
	path string
	file *os.File
	// base is the position of the file's first byte in the log as a whole, of which rotations are no end.
	base  int64
	at    int64 // offset in file
	files []opened
	lost  int // how often in a row our file was not found among the log's
}

// opened is a file that was read, for turning positions back into places.
type opened struct {
	base  int64
	place place
}

// errRotated says that what stood after the checkpoint is not there any more.
var errRotated = errors.New("auditd's log was rotated away")

// resume opens the file of a checkpoint at its place, or, with errRotated, the oldest file there is.
func (t *tail) resume(p place) error {
	for _, name := range t.names() {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		if id, err := identify(f, p.Length); err == nil && id.Dev == p.Dev && id.Inode == p.Inode && string(id.Head) == string(p.Head) {
			if info, err := f.Stat(); err == nil && info.Size() >= p.Offset {
				return t.take(f, p.Offset)
			}
		}
		_ = f.Close()
	}
	if err := t.oldest(); err != nil {
		return err
	}
	return errRotated
}

// names returns the log's files, newest first. While auditd rotates, a number may be missing for a moment.
func (t *tail) names() []string {
	names := []string{t.path}
	entries, err := os.ReadDir(filepath.Dir(t.path))
	if err != nil {
		return names
	}
	var numbers []int
	for _, e := range entries {
		if after, ok := strings.CutPrefix(e.Name(), filepath.Base(t.path)+"."); ok {
			if n, err := strconv.Atoi(after); err == nil && n > 0 {
				numbers = append(numbers, n)
			}
		}
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		names = append(names, t.path+"."+strconv.Itoa(n))
	}
	return names
}

// oldest opens the oldest file from its start.
func (t *tail) oldest() error {
	names := t.names()
	for i := len(names) - 1; i >= 0; i-- {
		f, err := os.Open(names[i])
		if err == nil {
			return t.take(f, 0)
		}
		if !errors.Is(err, os.ErrNotExist) || i == 0 {
			return fmt.Errorf("auditd's log: %w", err)
		}
	}
	return nil
}

// end opens the newest file at its end.
func (t *tail) end() error {
	f, err := os.Open(t.path)
	if err != nil {
		return fmt.Errorf("auditd's log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("auditd's log: %w", err)
	}
	return t.take(f, info.Size())
}

// take makes f the file that is read from offset on.
func (t *tail) take(f *os.File, offset int64) error {
	id, err := identify(f, headLength)
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("auditd's log: %w", err)
	}
	if t.file != nil {
		t.base += t.at
		_ = t.file.Close()
	}
	t.file, t.at = f, offset
	t.base -= offset // so that positions go on where they stood
	t.files = append(t.files, opened{t.base, id})
	return nil
}

// position is where the next byte stands in the log as a whole.
func (t *tail) position() int64 { return t.base + t.at }

// place returns where a position is, and forgets the files before it.
func (t *tail) place(position int64) place {
	for len(t.files) > 1 && t.files[1].base <= position {
		t.files = t.files[1:]
	}
	if len(t.files) == 0 {
		return place{}
	}
	p := t.files[0].place
	p.Offset = position - t.files[0].base
	return p
}

// read reads what is there. At the end of a file that auditd has left behind it goes on with the next one; changed tells that the bytes
// read are the first of another file. err is io.EOF when all was read, errRotated when files are missing between.
func (t *tail) read(buf []byte) (n int, changed bool, err error) {
	n, err = t.file.Read(buf)
	t.at += int64(n)
	if n > 0 {
		t.refresh()
		return n, false, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, false, fmt.Errorf("auditd's log: %w", err)
	}
	info, err := t.file.Stat()
	if err != nil {
		return 0, false, fmt.Errorf("auditd's log: %w", err)
	}
	if info.Size() < t.at { // somebody cut it
		if f, err := os.Open(t.file.Name()); err == nil && t.take(f, 0) == nil {
			return 0, true, errRotated
		}
		return 0, false, errRotated
	}
	newest, err := os.Stat(t.path)
	if err != nil || os.SameFile(info, newest) {
		return 0, false, io.EOF
	}
	// The name leads elsewhere: auditd writes there, and had written all of ours before. Read on, in case it was between our two looks.
	if n, _ := t.file.Read(buf); n > 0 {
		t.at += int64(n)
		return n, false, nil
	}
	return t.next(info)
}

// maxLost is how many looks in a row must miss our file: one look may fall into a rotation.
const maxLost = 5

// next opens the file that was begun after ours.
func (t *tail) next(ours os.FileInfo) (int, bool, error) {
	names := t.names()
	for i := 1; i < len(names); i++ {
		if info, err := os.Stat(names[i]); err == nil && os.SameFile(info, ours) {
			f, err := os.Open(names[i-1])
			if err != nil {
				return 0, false, io.EOF // auditd is at it: look again
			}
			// Between the two looks it may have rotated once more: then names[i-1] is ours, or one too early.
			if again, err := os.Stat(names[i]); err != nil || !os.SameFile(again, ours) {
				_ = f.Close()
				return 0, false, io.EOF
			}
			t.lost = 0
			return 0, true, t.take(f, 0)
		}
	}
	if t.lost++; t.lost < maxLost {
		return 0, false, io.EOF
	}
	t.lost = 0
	if err := t.oldest(); err != nil {
		return 0, false, io.EOF
	}
	return 0, true, errRotated
}

// refresh notes the first bytes of a file that had fewer when it was opened.
func (t *tail) refresh() {
	last := &t.files[len(t.files)-1]
	if last.place.Length == headLength {
		return
	}
	if id, err := identify(t.file, headLength); err == nil {
		last.place = id
	}
}

func (t *tail) close() {
	if t.file != nil {
		_ = t.file.Close()
	}
}

// identify tells which file f is, by its first length bytes.
func identify(f *os.File, length int) (place, error) {
	info, err := f.Stat()
	if err != nil {
		return place{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return place{}, fmt.Errorf("%s has no inode", filepath.Base(f.Name()))
	}
	head := make([]byte, length)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return place{}, err
	}
	sum := sha256.Sum256(head[:n])
	return place{Dev: st.Dev, Inode: st.Ino, Head: sum[:], Length: n}, nil
}
