package chain

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// recover opens the segments of a chain as a crash may have left them. An unfinished write at the end is cut off: what was in it is
// known to nobody. The error wraps errSegment when nothing is left to go on from.
func (s *Spool) recover() error {
	names, err := filepath.Glob(filepath.Join(s.dir, "*"+segmentSuffix))
	if err != nil {
		return err
	}
	slices.Sort(names)
	for i, name := range names {
		g, err := readSegment(name)
		if errors.Is(err, errSegment) && len(names) > 1 {
			s.log.Error("a segment of the audit spool is left out", "file", name, "error", err, "last", i == len(names)-1)
			if err := os.Remove(name); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if len(s.segments) > 0 && g.before.Chain != s.segments[0].before.Chain || g.before.Chain.String() != filepath.Base(s.dir) {
			return fmt.Errorf("%w: %s is of another chain", errSegment, name)
		}
		s.segments = append(s.segments, g)
	}
	if len(s.segments) == 0 {
		return fmt.Errorf("%w: %s holds none", errSegment, s.dir)
	}
	s.acked = s.segments[0].before.Seq
	return s.recoverLast()
}

// recoverLast reads the last segment to its end.
func (s *Spool) recoverLast() error {
	g := s.segments[len(s.segments)-1]
	f, err := os.OpenFile(g.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s.file = f
	p, last := g.before, g.last
	r := newFrames(f, int64(segmentHead), g.size, p.Seq)
	for {
		raw, err := r.next()
		if err == io.EOF { //nolint:errorlint // as frames returns it
			break
		}
		if err != nil {
			s.log.Warn("the audit spool ended in the middle of a write", "file", g.path, "bytes", g.size-r.offset, "error", err)
			break
		}
		p = p.After(raw)
		if _, e, _ := split(raw); e.Kind == KindEvent {
			last = EventID(e.Body)
		} else if e.Kind == KindGap {
			if end := s.told(e.Body); end != "" {
				last = end
			}
		}
	}
	if r.offset < g.size {
		if err := f.Truncate(r.offset); err != nil {
			return err
		}
		g.size = r.offset
	}
	// What is here may only be in the page cache still: nobody may see it before it is on the disk.
	if err := f.Sync(); err != nil {
		return err
	}
	s.added, s.durable, s.last, s.lastSafe = p, p, last, last
	return nil
}

// EventID finds what an event is called, "1795000336.990:769606", in its records; "" when they do not say.
func EventID(records []byte) string {
	line, _, _ := bytes.Cut(records, []byte("\n"))
	_, rest, ok := bytes.Cut(line, []byte("audit("))
	if !ok {
		return ""
	}
	id, _, ok := bytes.Cut(rest[:min(len(rest), maxEventID)], []byte(")"))
	if !ok || len(bytes.Trim(id, "0123456789.:")) > 0 {
		return ""
	}
	return strings.Clone(string(id))
}

// datasync is fdatasync: the size is part of it.
func datasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd())) //nolint:gosec // a file descriptor
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
