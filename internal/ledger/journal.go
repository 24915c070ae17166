package ledger

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	journalFile = "journal"
	// maxJournal is how large the journal grows before those who append wait until the tree has all of it; maxWaiting is in entries.
	maxJournal = 64 << 20
	maxWaiting = 4 * maxQueue
	// keepJournal is the size up to which it is not worth emptying.
	keepJournal = 1 << 20

	lockTime = 2 * time.Second

	frameHead = 4 + 8 + sha256.Size // length of the body, base, MAC
	maxFrame  = maxBatch * (maxEntry + 4)
)

// journal is where entries are on disk before the tree has them. One write and one sync keep a whole batch: a tenth of what the files of the tree take.
// Each batch is a frame, whose MAC ties it to its place and to the number of entries that the tree had when the journal was empty last. A frame that does
// not verify is one that was being written when the machine went down, as nobody was told that it is there; what follows it is nothing, either.
type journal struct {
	key []byte
	f   *os.File

	mu      sync.Mutex
	changed *sync.Cond
	base    uint64
	size    int64    // bytes of good frames
	waiting [][]byte // entries that the tree does not have yet
	tree    standing
	last    bool // nobody waits for room any more
	closed  bool
	broken  error // set when the file cannot be trusted any more: nothing is taken until the ledger is opened anew
}

// openJournal opens the journal in a folder, and returns the entries in it.
func openJournal(dir, secret string, size uint64) (j *journal, entries [][]byte, err error) {
	j = &journal{base: size}
	j.changed = sync.NewCond(&j.mu)
	if j.key, err = hkdf.Key(sha256.New, []byte(secret), nil, "touchstone ledger journal", sha256.Size); err != nil {
		return nil, nil, err
	}
	if j.f, err = os.OpenFile(filepath.Join(dir, journalFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, nil, fmt.Errorf("open the journal of the ledger: %w", err)
	}
	var data []byte
	if err = lock(j.f); err == nil {
		data, err = os.ReadFile(j.f.Name())
	}
	if err == nil {
		entries = j.read(data)
		if j.base > size {
			err = fmt.Errorf("%w: the journal is of a time when it had %d entries, now it has %d", ErrTampered, j.base, size)
		}
	}
	if err == nil {
		err = errors.Join(j.f.Truncate(j.size), j.f.Sync(), syncFolder(dir))
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open the journal of the ledger: %w", err), j.f.Close())
	}
	return j, entries, nil
}

// lock takes the ledger for this process, as two would write over each other. One that is ending has a moment to let go.
func lock(f *os.File) error {
	for deadline := time.Now().Add(lockTime); ; time.Sleep(lockTime / 100) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return fmt.Errorf("it is in use (%w): does another aias run on this data folder?", err)
		}
	}
}

// syncFolder makes the name of a new file last.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// read takes the good frames off data.
func (j *journal) read(data []byte) (entries [][]byte) {
	for first := true; ; first = false {
		base, body, ok := j.frame(data[j.size:])
		if !ok || !first && base != j.base {
			return entries
		}
		j.base = base
		j.size += int64(frameHead + len(body))
		for len(body) > 0 { // the MAC says that we wrote it
			n := binary.BigEndian.Uint32(body)
			entries = append(entries, body[4:4+n])
			body = body[4+n:]
		}
	}
}

// frame verifies the frame that data begins with, at the place that j has come to.
func (j *journal) frame(data []byte) (base uint64, body []byte, ok bool) {
	if len(data) < frameHead {
		return 0, nil, false
	}
	n := int64(binary.BigEndian.Uint32(data))
	if n == 0 || n > maxFrame || n > int64(len(data)-frameHead) {
		return 0, nil, false
	}
	base, body = binary.BigEndian.Uint64(data[4:]), data[frameHead:frameHead+n]
	return base, body, hmac.Equal(j.mac(j.size, base, body), data[12:frameHead])
}

func (j *journal) mac(at int64, base uint64, body []byte) []byte {
	m := hmac.New(sha256.New, j.key)
	_, _ = m.Write(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(at)), base))
	_, _ = m.Write(body)
	return m.Sum(nil)
}

// write puts entries on disk, and lines them up for the tree. It waits while there is no room.
func (j *journal) write(entries [][]byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.broken == nil && (j.size > maxJournal || len(j.waiting) > maxWaiting) {
		if j.last {
			return ErrClosed
		}
		j.changed.Wait()
	}
	if j.broken != nil {
		return j.broken
	}
	frame := make([]byte, frameHead, frameHead+512*len(entries))
	for _, e := range entries {
		frame = append(binary.BigEndian.AppendUint32(frame, uint32(len(e))), e...)
	}
	body := frame[frameHead:]
	binary.BigEndian.PutUint32(frame, uint32(len(body)))
	binary.BigEndian.PutUint64(frame[4:], j.base)
	copy(frame[12:], j.mac(j.size, j.base, body))
	_, err := j.f.WriteAt(frame, j.size)
	if err == nil {
		err = unix.Fdatasync(int(j.f.Fd()))
	}
	if err != nil {
		// Whether the frame is there cannot be told. It must not come back after a restart, or stand before others.
		if back := errors.Join(j.f.Truncate(j.size), j.f.Sync()); back != nil {
			j.broken = fmt.Errorf("the journal of the ledger is broken (%w): make room on its disk, and start AIAS again", back)
			j.changed.Broadcast()
		}
		return err
	}
	j.size += int64(len(frame))
	j.add(entries)
	return nil
}

func (j *journal) add(entries [][]byte) {
	if len(j.waiting) == 0 {
		j.tree.since = time.Now()
	}
	j.waiting = append(j.waiting, entries...)
	j.changed.Broadcast()
}

// next returns what the tree is to get next, none when the journal is closed and the tree has all. done says what became of it.
func (j *journal) next() [][]byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.waiting) == 0 && !j.closed {
		j.changed.Wait()
	}
	return j.waiting[:min(len(j.waiting), maxBatch)]
}

// done says that of the entries that next returned those in failed are not in the tree, which has size entries now.
func (j *journal) done(taken int, failed [][]byte, size uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.waiting = append(failed, j.waiting[taken:]...) // failed is of its own memory
	if len(j.waiting) == 0 && j.size > 0 && (j.closed || j.size > keepJournal) {
		if j.f.Truncate(0) == nil { // else it is only long: what the tree has is not added again
			j.base, j.size = size, 0
		}
	}
	j.changed.Broadcast()
}

// hurry lets nobody wait for room any more.
func (j *journal) hurry() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last = true
	j.changed.Broadcast()
}

// drain ends next when the tree has all.
func (j *journal) drain() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	j.changed.Broadcast()
}
