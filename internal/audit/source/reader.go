package source

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"touchstone.dev/touchstone/internal/audit/record"
)

// Config of a Reader. The zero value of a field means its default, or that it is not used.
type Config struct {
	Log        string        // auditd's log; "": multicast only
	NoLive     bool          // the log only
	Checkpoint string        // file; "": none, a Reader begins with what happens then
	FromStart  bool          // without a checkpoint, begin with the oldest event in the log
	Buffer     int           // of the multicast socket, in bytes; default DefaultBuffer
	Status     time.Duration // how often a Status comes when nothing changed; default one minute
	Queue      int           // items that may wait for Next; default 4096
	// Grace is how long a number may be missing, and a partial event of multicast be held for its whole in the log, before it is given up;
	// default DefaultGrace.
	Grace time.Duration
}

// DefaultGrace is longer than the kernel lets a process wait in the middle of an event when auditd is busy, but for a hanging auditd.
const DefaultGrace = 20 * time.Second

// DefaultLog is where Debian's auditd writes.
const DefaultLog = "/var/log/audit/audit.log"

// Reader hands out audit events. Next and Commit are for one goroutine.
type Reader struct {
	cfg      Config
	bootID   string
	bootTime time.Time
	own      []string
	out      chan Item
	messages atomic.Uint64 // that multicast gave
	waiting  atomic.Int64  // bytes of the events in out
	stop     context.CancelFunc
	running  sync.WaitGroup

	mu        sync.Mutex // of all below
	current   serials
	previous  serials
	lastOld   record.ID // of previous
	held      map[record.ID]heldEvent
	heldBytes int64
	fragments map[record.ID]origin
	skip      map[string]bool // records of auditd's that were handed out before the restart
	caught    time.Time       // when the log was last read to its end
	logOpen   bool            // there is a log to fill in from
	overruns  uint64
	badLines  uint64
	badText   string

	done checkpoint // what Next returned
	cur  serials
	prev serials
}

// origin is where an event was read.
type origin uint8

const (
	fromLive origin = 1
	fromLog  origin = 2
)

// heldEvent is a partial event of multicast that waits for its whole in the log.
type heldEvent struct {
	parts []*record.Event
	at    time.Time
	until time.Time
}

// mark is what Next notes when it hands out an item.
type mark struct {
	old    bool // of the boot before
	reset  bool // numbers began anew
	serial uint64
	hole   *span
	log    *place
	safe   int64
	daemon *daemon
	only   bool // no item: only a place
}

// Open begins to read, from the checkpoint on when there is one. The Reader reads until Close, or until ctx ends.
func Open(ctx context.Context, cfg Config) (*Reader, error) {
	if cfg.Log == "" && cfg.NoLive {
		return nil, errors.New("audit: neither the log nor multicast is to be read")
	}
	cfg.Buffer = def(cfg.Buffer, DefaultBuffer)
	cfg.Status = def(cfg.Status, time.Minute)
	cfg.Queue = def(cfg.Queue, 4096)
	cfg.Grace = def(cfg.Grace, DefaultGrace)
	r := &Reader{cfg: cfg, own: ownPIDs(), out: make(chan Item, cfg.Queue), held: map[record.ID]heldEvent{},
		fragments: map[record.ID]origin{}, skip: map[string]bool{}}
	var err error
	if r.bootID, r.bootTime, err = boot(); err != nil {
		return nil, err
	}
	begin, err := r.restore()
	if err != nil {
		return nil, err
	}
	ctx, r.stop = context.WithCancel(ctx)
	r.logOpen = cfg.Log != "" // until it turns out otherwise: it has whole what multicast gives in part
	// The log first: an event in the middle of which the socket is opened lies whole behind the place where the log goes on.
	if cfg.Log != "" {
		t := &tail{path: cfg.Log}
		opened := r.openOnce(t, begin)
		r.running.Go(func() { r.follow(ctx, t, begin, opened) })
	}
	r.startLive(ctx)
	r.running.Go(func() { r.watch(ctx) })
	return r, nil
}

func def[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// restore takes the checkpoint over, and returns where the log goes on; nil: nowhere.
func (r *Reader) restore() (*place, error) {
	r.done = checkpoint{Version: checkpointVersion, BootID: r.bootID}
	if r.cfg.Checkpoint == "" {
		return nil, nil
	}
	c, err := load(r.cfg.Checkpoint)
	if err != nil || c == nil {
		return nil, err
	}
	if c.BootID != r.bootID {
		c.Previous, c.Current = c.Current, numbers{}
	}
	now := time.Now()
	for _, s := range []*serials{&r.current, &r.cur} {
		if !s.restore(c.Current.Spans, c.Current.Named, now) {
			return nil, broken(r.cfg.Checkpoint, errOrder)
		}
	}
	for _, s := range []*serials{&r.previous, &r.prev} {
		if !s.restore(c.Previous.Spans, c.Previous.Named, now) {
			return nil, broken(r.cfg.Checkpoint, errOrder)
		}
	}
	for _, d := range c.Daemons {
		r.skip[d.ID] = true
		d.at = -1
		r.done.Daemons = append(r.done.Daemons, d)
	}
	r.done.Log = c.Log
	return c.Log, nil
}

// startLive joins the multicast group and reads it, again whenever that fails.
func (r *Reader) startLive(ctx context.Context) {
	if r.cfg.NoLive {
		return
	}
	fd, err := listen(r.cfg.Buffer)
	r.running.Go(func() {
		for ctx.Err() == nil {
			if err == nil {
				err = r.live(ctx, fd)
			}
			if err != nil {
				r.alarm(ctx, AlarmNoLive, err.Error())
				sleep(ctx, 10*time.Second)
				fd, err = listen(r.cfg.Buffer)
			}
		}
	})
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// maxWaiting bounds the bytes of events that wait for Next: one event may have megabytes, as arguments of a program.
const maxWaiting = 16 << 20

// size is how many bytes an event has, nearly.
func size(e *record.Event) int64 {
	if e == nil {
		return 0
	}
	n := 0
	for _, rec := range e.Records {
		n += len(rec.Body) + len(rec.Enriched)
	}
	return int64(n)
}

// push hands an item to Next. It waits while the queue is full: the log and the kernel's buffer hold what comes meanwhile.
func (r *Reader) push(ctx context.Context, it Item) {
	if it.At.IsZero() {
		it.At = time.Now()
	}
	bytes := size(it.Event)
	for r.waiting.Load() > 0 && r.waiting.Load()+bytes > maxWaiting && ctx.Err() == nil {
		sleep(ctx, 2*time.Millisecond) // only programs with huge arguments lead here
	}
	r.waiting.Add(bytes)
	select {
	case r.out <- it:
	case <-ctx.Done():
	}
}

// Next returns the next item; it waits until there is one, or ctx ends. What it returned is handed out again after a restart until Commit.
func (r *Reader) Next(ctx context.Context) (Item, error) {
	for {
		select {
		case it := <-r.out:
			r.waiting.Add(-size(it.Event))
			r.note(&it.done)
			if !it.done.only {
				return it, nil
			}
		case <-ctx.Done():
			return Item{}, ctx.Err()
		}
	}
}

// Queued returns how many items wait for Next.
func (r *Reader) Queued() int { return len(r.out) }

// Waiting returns how many bytes the events have that wait for Next.
func (r *Reader) Waiting() int64 { return r.waiting.Load() }

// note keeps what an item that is handed out means for the checkpoint.
func (r *Reader) note(m *mark) {
	s := &r.cur
	if m.old {
		s = &r.prev
	}
	if m.reset {
		*s = serials{}
	}
	switch {
	case m.hole != nil:
		s.name(*m.hole)
	case m.daemon != nil:
		r.done.noteDaemon(*m.daemon)
	case m.log != nil:
		r.done.Log = m.log
		r.done.Daemons = slices.DeleteFunc(r.done.Daemons, func(d daemon) bool { return d.at >= 0 && d.at <= m.safe })
	case m.serial != 0:
		s.add(m.serial, time.Time{})
	}
}

// Commit makes durable that all items that Next returned are in the receiver's keeping.
func (r *Reader) Commit() error {
	if r.cfg.Checkpoint == "" {
		return nil
	}
	r.done.Current = numbers{r.cur.spans, r.cur.named}
	r.done.Previous = numbers{r.prev.spans, r.prev.named}
	r.done.Written = time.Now().UTC()
	return r.done.save(r.cfg.Checkpoint)
}

// Close ends reading. What was not committed is handed out again by the next Reader.
func (r *Reader) Close() {
	r.stop()
	r.running.Wait()
}
