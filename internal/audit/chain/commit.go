package chain

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// commitLoop writes entries to disk: one write and one sync for all that came within Options.Commit.
func (s *Spool) commitLoop() {
	defer close(s.done)
	for range s.dirty {
		s.mu.Lock()
		ended, many := s.ended, len(s.buf) > maxBuffer
		s.mu.Unlock()
		if !ended && !many {
			time.Sleep(s.opt.Commit)
		}
		s.commit()
		if ended {
			return
		}
	}
}

// Sync writes everything to disk now. The error says why entries were counted as missing instead.
func (s *Spool) Sync() error {
	s.commit()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.added.Seq > s.durable.Seq || s.gap.Why != "" {
		return errors.Join(s.lastErr, errors.New("audit events found no room in the spool"))
	}
	return nil
}

// commit writes what is buffered. Entries that cannot be written are taken back, and become a gap: nobody has seen them.
func (s *Spool) commit() {
	s.io.Lock()
	defer s.io.Unlock()
	s.commitNow()
}

// commitNow is commit for who holds io.
func (s *Spool) commitNow() {
	s.mu.Lock()
	s.settleGap()
	buf, end, held, last, gap := s.buf, s.added, s.held, s.last, s.gap
	s.buf, s.held = nil, Gap{}
	full := s.segments[len(s.segments)-1].size >= s.opt.Segment
	s.mu.Unlock()
	var err error
	if len(buf) > 0 {
		err = s.write(buf, full)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.takeBack(held, err)
		gap = s.gap
	} else {
		s.durable, s.lastSafe, s.lastErr = end, last, nil
	}
	s.storePending(gap)
	if len(buf) > 0 {
		close(s.moved)
		s.moved = make(chan struct{})
	}
	if s.gap.Why != "" && !s.waiting {
		s.waiting = true
		time.AfterFunc(retryAfter, s.again)
	}
}

// again tries once more to write what is missing: the disk may have room now.
func (s *Spool) again() {
	s.mu.Lock()
	s.waiting = false
	s.mu.Unlock()
	s.wake()
}

// write appends to the last segment, or to a new one.
func (s *Spool) write(buf []byte, full bool) error {
	if full {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	writing := s.segments[len(s.segments)-1]
	_, err := s.file.WriteAt(buf, writing.size)
	if err == nil {
		err = datasync(s.file)
	}
	if err != nil {
		// What is there of it must not be taken for entries after a restart.
		return errors.Join(err, s.file.Truncate(writing.size))
	}
	s.mu.Lock()
	writing.size += int64(len(buf))
	s.mu.Unlock()
	return nil
}

// takeBack makes entries that could not be written a gap: those of the write, and those added since, which follow them.
func (s *Spool) takeBack(held Gap, err error) {
	if !errors.Is(err, s.lastErr) || s.lastErr == nil {
		s.log.Error("the audit spool cannot be written", "error", err)
	}
	s.lastErr = err
	for _, g := range []Gap{held, s.held} {
		if g.Why == "" {
			continue
		}
		g.Why = GapDisk
		s.miss(g)
	}
	s.buf, s.held, s.added, s.last = nil, Gap{}, s.durable, s.lastSafe
	s.retry = s.opt.Now().Add(retryAfter)
}

// rotate begins a new segment behind what is on disk.
func (s *Spool) rotate() error {
	s.mu.Lock()
	next := &segment{before: s.durable, last: s.lastSafe, size: int64(segmentHead)}
	s.mu.Unlock()
	next.path = next.name(s.dir)
	f, err := os.OpenFile(next.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrExist) { // of a try before that failed
		if err = os.Remove(next.path); err == nil {
			f, err = os.OpenFile(next.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(next.head())
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(next.path))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		_ = s.file.Close() // synced already
	}
	s.file = f
	s.segments = append(s.segments, next)
	return nil
}

// Close writes what is left, and gives the folder back.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	s.commit()
	s.mu.Lock()
	s.ended, s.wrote = true, time.Time{}
	s.storePending(s.gap)
	err := s.lastErr
	s.mu.Unlock()
	s.wake()
	<-s.done
	s.closeFiles()
	return err
}

func (s *Spool) closeFiles() {
	for _, f := range []*os.File{s.file, s.pending, s.cursor.file, s.lock} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// writeFile replaces a small file, whole or not at all.
func writeFile(dir, name string, b []byte) error {
	tmp, err := os.CreateTemp(dir, "."+name+"-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone after the rename
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(tmp.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}
