package chain

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"
)

// The pending file says what is missing while that cannot be an entry: the spool or the disk is full. Its blocks are taken beforehand, and
// it has two slots that are written in turn, so that it can be written on a full disk, and one of them is always whole.
const (
	pendingName  = "pending"
	pendingSlot  = 4 << 10
	pendingEvery = 250 * time.Millisecond
)

// openPending reads the file, or makes it.
func (s *Spool) openPending() error {
	f, err := os.OpenFile(filepath.Join(s.opt.Dir, pendingName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	s.pending = f
	b := make([]byte, 2*pendingSlot)
	if n, _ := f.ReadAt(b, 0); n < len(b) {
		clear(b)
		if _, err := f.WriteAt(b, 0); err != nil {
			return err
		}
		return f.Sync()
	}
	var newest uint64
	for _, slot := range [][]byte{b[:pendingSlot], b[pendingSlot:]} {
		turn, n := binary.BigEndian.Uint64(slot), int(binary.BigEndian.Uint16(slot[8:]))
		if n > pendingSlot-16 || turn < newest || crc32.Checksum(slot[:10+n], castagnoli) != binary.BigEndian.Uint32(slot[10+n:]) {
			continue
		}
		var g Gap
		if n > 0 && DecodeBody(slot[10:10+n], &g) != nil {
			continue
		}
		newest, s.stored = turn, g
	}
	s.turn = newest
	if s.found = s.stored; s.found.Why != "" {
		s.found.AtLeast = true // those of the last moments before the end are not in it
	}
	return nil
}

// told forgets what the pending file says when the chain says it already: the agent ended between the two writes. It returns the last event of the gap.
func (s *Spool) told(body []byte) (last string) {
	var g Gap
	if DecodeBody(body, &g) != nil {
		return ""
	}
	if same(&s.found, &g) {
		s.found = Gap{}
	}
	return clip(g.Last)
}

// same reports whether two gaps are one at different times.
func same(a, b *Gap) bool {
	return a.Why != "" && b.Why != "" && a.First == b.First && a.From == b.From
}

// storePending writes what was missing when everything before it had been handed to the disk, where it is now: what a reader of events goes
// on from after a crash is never in front of it. Its beginning and end are written at once, its growth a few times a second. The caller
// holds mu. A failure is no reason to stop: it is written again.
func (s *Spool) storePending(want Gap) {
	now := s.opt.Now()
	if want == s.stored || s.pending == nil || same(&want, &s.stored) && now.Sub(s.wrote).Abs() < pendingEvery {
		return
	}
	s.wrote = now
	var body []byte
	if want.Why != "" {
		var err error
		if body, err = EncodeBody(&want); err != nil {
			return
		}
	}
	turn := s.turn + 1
	b := binary.BigEndian.AppendUint64(make([]byte, 0, pendingSlot), turn)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body))) //nolint:gosec // at most maxSmall
	b = append(b, body...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := s.pending.WriteAt(b, int64(turn%2)*pendingSlot); err != nil {
		return
	}
	if datasync(s.pending) != nil {
		return
	}
	s.turn, s.stored = turn, want
}
