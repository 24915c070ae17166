package chain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// cursor remembers where a read ended, so that the next one need not hash the segment from its start.
type cursor struct {
	at     Position
	path   string
	offset int64
	file   *os.File
}

// Head is the end of what is on the disk.
func (s *Spool) Head() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable
}

// Missing is what found no room and is not an entry yet.
func (s *Spool) Missing() Gap {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gap
}

// Oldest is the number of the entry before the oldest one that is still here.
func (s *Spool) Oldest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.segments[0].before.Seq
}

// Wait returns when there are entries behind number seq on disk, or ctx ends.
func (s *Spool) Wait(ctx context.Context, seq uint64) error {
	for {
		s.mu.Lock()
		durable, moved := s.durable.Seq, s.moved
		s.mu.Unlock()
		if durable > seq {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// Read returns entries behind number seq, of about most bytes. Batch.Before is behind seq when entries are lost to damage or were
// acknowledged before; it holds no entry when there is none.
func (s *Spool) Read(seq uint64, most int) (*Batch, error) {
	s.io.Lock()
	defer s.io.Unlock()
	return s.read(seq, most)
}

// read is Read for who holds io.
func (s *Spool) read(seq uint64, most int) (*Batch, error) {
	s.mu.Lock()
	segments, end := append([]*segment(nil), s.segments...), s.durable
	s.mu.Unlock()
	if seq >= end.Seq {
		return &Batch{Before: end}, nil
	}
	for i, g := range segments {
		limit := end.Seq
		if i+1 < len(segments) {
			limit = segments[i+1].before.Seq
		}
		if limit <= seq {
			continue
		}
		b, err := s.readSegment(g, max(seq, g.before.Seq), most)
		if !errors.Is(err, errSegment) {
			return b, err
		}
		s.log.Error("entries of the audit spool are lost", "error", err, "behind", seq, "to", limit)
		seq = limit
		if i+1 == len(segments) {
			return &Batch{Before: end}, s.rotate() // so that what follows can be read again
		}
	}
	return &Batch{Before: end}, nil
}

// readSegment reads entries of one segment behind number seq, which it holds.
func (s *Spool) readSegment(g *segment, seq uint64, most int) (*Batch, error) {
	c := &s.cursor
	if c.path != g.path || c.at.Seq > seq || c.file == nil {
		if c.file != nil {
			_ = c.file.Close() // read only
		}
		f, err := os.Open(g.path)
		if err != nil {
			c.file = nil
			return nil, err
		}
		c.file, c.path, c.at, c.offset = f, g.path, g.before, int64(segmentHead)
	}
	r := newFrames(c.file, c.offset, g.size, c.at.Seq)
	out := &Batch{}
	for size := 0; len(out.Entries) < MaxBatchEntries; {
		raw, err := r.next()
		if err == io.EOF { //nolint:errorlint // as frames returns it
			break
		}
		if err != nil {
			return nil, err
		}
		if c.at.Seq == seq && len(out.Entries) == 0 {
			out.Before = c.at
		}
		if c.at.Seq >= seq {
			if size += frameHead + len(raw); size > most && len(out.Entries) > 0 || size > MaxBatch-batchHead {
				return out, nil
			}
			out.Entries = append(out.Entries, append([]byte(nil), raw...))
		}
		c.at, c.offset = c.at.After(raw), r.offset
	}
	if len(out.Entries) == 0 {
		return nil, fmt.Errorf("%w: %s ends before entry %d", errSegment, g.path, seq+1)
	}
	return out, nil
}

// Ack says that AIAS has all entries up to number seq for good. Segments that nobody needs any more are removed.
func (s *Spool) Ack(seq uint64) { s.trim(func() { s.acked = max(s.acked, min(seq, s.durable.Seq)) }) }

// Keep says that entries behind number seq are needed after a restart, acknowledged or not. At first none is.
func (s *Spool) Keep(seq uint64) { s.trim(func() { s.kept = seq }) }

// Acked is the number that was acknowledged last.
func (s *Spool) Acked() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked
}

func (s *Spool) trim(change func()) {
	s.io.Lock()
	defer s.io.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	for len(s.segments) > 1 && s.segments[1].before.Seq <= min(s.acked, s.kept) {
		if err := os.Remove(s.segments[0].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("a segment of the audit spool cannot be removed", "error", err)
			return
		}
		s.segments = s.segments[1:]
	}
	if s.gap.Why != "" {
		s.wake() // there may be room now
	}
}
