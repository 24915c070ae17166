package chain

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options say where and how a spool keeps a chain. Fields that are zero get a default.
type Options struct {
	Dir      string
	MaxBytes int64         // of entries on disk; 512 MiB
	Segment  int64         // of one file; 8 MiB, at most an eighth of MaxBytes
	Commit   time.Duration // that an entry waits for others until it is written to disk; 25 ms
	Now      func() time.Time
	Log      *slog.Logger
}

const (
	minSpool   = 1 << 20
	reserve    = 128 << 10 // bytes that events leave free for what tells of the audit system
	maxBuffer  = 4 << 20   // bytes that wait for the disk; who adds more waits, too
	retryAfter = time.Second
)

// Spool keeps the newest part of a chain on disk until it is acknowledged. It is safe for concurrent use. What it hands out (Head, Read)
// is on the disk already, so that neither AIAS nor a signature of the TPM knows of entries that a crash could take back.
type Spool struct {
	opt  Options
	log  *slog.Logger
	lock *os.File

	io sync.Mutex // held over writes; before mu

	mu       sync.Mutex
	dir      string // of the chain
	segments []*segment
	file     *os.File // the last segment
	buf      []byte   // frames that are not written yet
	added    Position // behind all entries
	durable  Position // behind those that are on disk
	held     Gap      // what would be missing, were the entries between the two lost
	gap      Gap      // what is missing already, and not an entry yet
	stored   Gap      // what the pending file says
	found    Gap      // and said when it was opened
	waiting  bool     // for room for one
	pending  *os.File
	wrote    time.Time // the pending file
	turn     uint64    // of its slots
	last     string    // the last event that was added, or is named in a gap
	lastSafe string    // and that is on disk
	acked    uint64
	kept     uint64
	retry    time.Time // the disk failed: not before
	ended    bool
	lastErr  error
	moved    chan struct{} // closed when durable moves on
	dirty    chan struct{}
	done     chan struct{}
	cursor   cursor
}

// Open opens the spool of a folder, which it makes if need be, and begins a chain when there is none. One process has it open at a time.
func Open(opt Options) (*Spool, error) {
	opt.fill()
	if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the audit spool: %w", err)
	}
	s := &Spool{opt: opt, log: opt.Log, moved: make(chan struct{}), dirty: make(chan struct{}, 1), done: make(chan struct{}), kept: ^uint64(0)}
	if err := s.open(); err != nil {
		s.closeFiles()
		return nil, fmt.Errorf("open the audit spool %s: %w", opt.Dir, err)
	}
	go s.commitLoop()
	return s, nil
}

func (o *Options) fill() {
	if o.MaxBytes == 0 {
		o.MaxBytes = 512 << 20
	}
	o.MaxBytes = max(o.MaxBytes, minSpool)
	if o.Segment == 0 {
		o.Segment = 8 << 20
	}
	o.Segment = min(o.Segment, o.MaxBytes/8)
	if o.Commit == 0 {
		o.Commit = 25 * time.Millisecond
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

func (s *Spool) open() error {
	var err error
	if s.lock, err = os.OpenFile(filepath.Join(s.opt.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { //nolint:gosec // a file descriptor
		return errors.New("another agent has it open")
	}
	if err := s.openPending(); err != nil {
		return err
	}
	id, err := os.ReadFile(filepath.Join(s.opt.Dir, "current"))
	if err == nil {
		s.dir = filepath.Join(s.opt.Dir, string(bytes.TrimSpace(id)))
		err = s.recover()
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = s.begin()
	case errors.Is(err, errSegment):
		s.log.Error("the audit spool is damaged: a new chain is begun", "error", err)
		err = s.begin()
	}
	if err != nil {
		return err
	}
	s.gap = s.found
	return s.sweep()
}

// sweep removes chains that were not finished, or not removed, before a crash.
func (s *Spool) sweep() error {
	names, err := os.ReadDir(s.opt.Dir)
	for _, n := range names {
		if n.IsDir() && n.Name() != filepath.Base(s.dir) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.opt.Dir, n.Name())))
		}
	}
	return err
}

// begin starts a new chain, with no entry yet, in place of the one before.
func (s *Spool) begin() error {
	old := s.dir
	if err := s.newChain(); err != nil {
		return err
	}
	if err := writeFile(s.opt.Dir, "current", []byte(filepath.Base(s.dir)+"\n")); err != nil {
		return err
	}
	if old != "" {
		return os.RemoveAll(old)
	}
	return nil
}

// newChain makes the folder of a new chain, with an empty segment.
func (s *Spool) newChain() error {
	var id ID
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	s.dir = filepath.Join(s.opt.Dir, id.String())
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return err
	}
	if s.file != nil {
		_ = s.file.Close() // of the chain that is given up
		s.file = nil
	}
	s.segments, s.acked = nil, 0
	s.added, s.durable = Start(id), Start(id)
	return s.rotate()
}

// Add puts an event at the end of the chain. id is what the event is called in a Gap, should it find no room; then the error is nil, too.
func (s *Spool) Add(body []byte, c Context, id string) {
	one := Gap{Why: GapSpoolFull, Events: 1, First: clip(id), Last: clip(id)}
	s.add(Entry{Kind: KindEvent, Context: c, Body: body}, one)
}

// AddGap says that events are missing here which the spool never saw.
func (s *Spool) AddGap(g Gap) error {
	body, err := EncodeBody(&g)
	if err == nil {
		s.add(Entry{Kind: KindGap, Body: body}, g)
	}
	return err
}

// AddStatus puts in what the kernel says of its audit system, and AddBegin that an agent starts.
func (s *Spool) AddStatus(v *Status) error { return s.addSmall(KindStatus, v) }

// AddBegin says that an agent starts to write.
func (s *Spool) AddBegin(v *Begin) error { return s.addSmall(KindStart, v) }

func (s *Spool) addSmall(k Kind, v any) error {
	body, err := EncodeBody(v)
	if err == nil {
		s.add(Entry{Kind: k, Body: body}, Gap{})
	}
	return err
}

// add appends an entry, or counts what it stands for as missing.
func (s *Spool) add(e Entry, missing Gap) {
	s.mu.Lock()
	for len(s.buf) > maxBuffer && !s.ended {
		moved := s.moved
		s.mu.Unlock()
		s.wake()
		<-moved
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	e.Time = s.opt.Now()
	if len(e.Body) > MaxBody {
		missing.Why = GapTooLong
		s.miss(missing)
		return
	}
	if missing.Why == GapSpoolFull && e.Time.Before(s.retry) {
		missing.Why = GapDisk
	}
	if !s.room(&e) || missing.Why != "" && !s.settleGap() {
		s.miss(missing)
		return
	}
	if err := s.push(&e); err != nil { // a context out of its limits: the event counts more
		e.Context = Context{}
		if err := s.push(&e); err != nil {
			s.miss(missing)
			return
		}
	}
	if missing.Last != "" {
		s.last = clip(missing.Last)
	}
	if missing.Why != "" {
		s.held.join(&missing)
	}
	s.wake()
}

// push encodes an entry behind the others.
func (s *Spool) push(e *Entry) error {
	e.Seq = s.added.Seq + 1
	raw, err := e.Append(make([]byte, 0, entryHead+256+len(e.Body)))
	if err != nil {
		return err
	}
	s.buf = appendFrame(s.buf, raw)
	s.added = s.added.After(raw)
	return nil
}

// room reports whether an entry may be added now.
func (s *Spool) room(e *Entry) bool {
	if s.ended || s.opt.Now().Before(s.retry) {
		return false
	}
	need := int64(storedFrame + entryHead + MaxContext + len(e.Body))
	if e.Kind == KindStatus || e.Kind == KindStart {
		return s.used()+need <= s.opt.MaxBytes
	}
	if s.gap.Why != "" { // not one event and one gap in turns
		need += s.opt.Segment / 4
	}
	return s.used()+need <= s.opt.MaxBytes-reserve
}

// used are the bytes of all entries.
func (s *Spool) used() int64 {
	n := int64(len(s.buf))
	for _, g := range s.segments {
		n += g.size
	}
	return n
}

// miss counts events that are not in the chain.
func (s *Spool) miss(g Gap) {
	if g.Why == "" {
		return
	}
	now := milli(s.opt.Now())
	if g.From == 0 {
		g.From, g.To = now, now
	}
	if s.gap.Why == "" {
		s.log.Warn("audit events are not kept: they will be a gap", "why", g.Why, "first", g.First)
	}
	s.gap.join(&g)
	s.wake()
}

// settleGap writes what is missing as an entry, before the next one.
func (s *Spool) settleGap() bool {
	if s.gap.Why == "" {
		return true
	}
	body, err := EncodeBody(&s.gap)
	if err != nil {
		s.log.Error("a gap cannot be written", "error", err) // its texts are clipped: not reached
		return false
	}
	e := Entry{Kind: KindGap, Body: body, Time: s.opt.Now()}
	if !s.room(&e) || s.push(&e) != nil {
		return false
	}
	s.held.join(&s.gap)
	if s.gap.Last != "" {
		s.last = s.gap.Last
	}
	s.gap = Gap{}
	return true
}

func clip(s string) string { return s[:min(len(s), maxEventID)] }

func (s *Spool) wake() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}
