package chain

import (
	"encoding/binary"
	"os"
	"path/filepath"
)

// Renew begins a new chain, with a Begin that says why and where the old one ended, and takes over all entries that were not acknowledged,
// with new numbers. It is for a spool that AIAS cannot follow any more: the disk was put back, or its entries were changed.
func (s *Spool) Renew(why string) error {
	s.io.Lock()
	defer s.io.Unlock()
	s.commitNow()
	n := &Spool{opt: s.opt, log: s.log, moved: make(chan struct{}), dirty: make(chan struct{}, 1), kept: s.kept, lastSafe: s.lastSafe}
	if n.kept != ^uint64(0) {
		n.kept = 0
	}
	old := s.dir // what a restart finds until the file that names the chain says otherwise
	if err := s.copyTo(n, why); err != nil {
		n.closeFiles()
		if n.dir != "" {
			_ = os.RemoveAll(n.dir) // half of a copy
		}
		return err
	}
	if err := writeFile(s.opt.Dir, "current", []byte(filepath.Base(n.dir)+"\n")); err != nil {
		n.closeFiles()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	later := s.buf // added meanwhile, with numbers of the old chain
	_ = s.file.Close()
	if s.cursor.file != nil {
		_ = s.cursor.file.Close()
	}
	s.cursor = cursor{}
	s.dir, s.segments, s.file, s.buf, s.added, s.durable = n.dir, n.segments, n.file, nil, n.added, n.durable
	s.acked, s.kept = 0, n.kept
	for len(later) > storedFrame {
		size := binary.BigEndian.Uint32(later)
		s.copyEntry(later[storedFrame : storedFrame+int(size)])
		later = later[storedFrame+int(size):]
	}
	s.wake()
	return os.RemoveAll(old)
}

// copyTo makes n a new chain with the entries of s that are not acknowledged.
func (s *Spool) copyTo(n *Spool, why string) error {
	from, end := s.Acked(), s.Head()
	if err := n.newChain(); err != nil {
		return err
	}
	body, err := EncodeBody(&Begin{Why: why, Previous: end.Head[:], Seq: end.Seq})
	if err != nil {
		return err
	}
	if err := n.push(&Entry{Kind: KindStart, Body: body, Time: n.opt.Now()}); err != nil {
		return err
	}
	for from < end.Seq {
		b, err := s.read(from, maxBuffer)
		if err != nil {
			return err
		}
		if lost := b.Before.Seq - from; lost > 0 && b.Before.Seq > s.Acked() {
			if err := n.copyGap(lost); err != nil {
				return err
			}
		}
		for _, raw := range b.Entries {
			n.copyEntry(raw)
		}
		n.commit()
		if n.lastErr != nil {
			return n.lastErr
		}
		from = b.Before.Seq + uint64(len(b.Entries))
	}
	n.commit()
	return n.lastErr
}

// copyEntry adds an entry of another chain, with its time.
func (s *Spool) copyEntry(raw []byte) {
	e, err := Parse(raw)
	if err == nil {
		err = s.push(&e)
	}
	if err != nil {
		s.log.Error("an entry of the audit spool cannot be taken over", "error", err) // it was parsed or written before: not reached
	}
}

func (s *Spool) copyGap(lost uint64) error {
	body, err := EncodeBody(&Gap{Why: GapDisk, Events: lost, Detail: "entries of the spool were damaged"})
	if err != nil {
		return err
	}
	return s.push(&Entry{Kind: KindGap, Body: body, Time: s.opt.Now()})
}
