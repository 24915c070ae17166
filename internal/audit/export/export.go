package export

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"touchstone.dev/touchstone/internal/audit/archive"
	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/shown"
)

// Item is an entry on its way, or a gap.
type Item struct {
	Entry    *shown.Entry
	Received time.Time
}

// sink is a destination. One goroutine uses it.
type sink interface {
	// send returns nil when the destination was given the items, which are of one node.
	send(ctx context.Context, node string, items []Item) error
	// settle is how long after send the destination must live so that it counts.
	settle() time.Duration
	// broken says why what was sent lately may be lost; nil when it is not.
	broken() error
	close()
}

// errRefused says that the destination will never take an item.
var errRefused = errors.New("the destination refuses this entry")

// later is an error with how long to wait, as the destination said.
type later struct {
	error
	after time.Duration
}

const (
	maxItems   = 512     // in one send
	maxSize    = 1 << 20 // bytes of entries in one send
	turn       = 16      // sends until another node's turn
	settleTick = time.Second
	firstWait  = time.Second
	maxWait    = time.Minute
)

// Stats are what an Exporter counts.
type Stats struct{ Sent, Failures, Missing, Refused, Behind uint64 }

// Exporter sends to one destination.
type Exporter struct {
	name    string
	archive *archive.Archive
	sink    sink
	cursors *cursors
	log     *slog.Logger

	mu    sync.Mutex
	dirty map[string]bool
	wake  chan struct{}

	sent, failures, missing, refused atomic.Uint64
}

// Open prepares a destination whose cursor lies in a folder. One that was not there before begins with what comes from now on.
func Open(c Config, a *archive.Archive, dir string, log *slog.Logger) (*Exporter, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	x := &Exporter{name: c.Name, archive: a, log: log.With("destination", c.Name), dirty: map[string]bool{}, wake: make(chan struct{}, 1)}
	if c.Syslog != nil {
		x.sink = &syslogSink{cfg: *c.Syslog}
	} else {
		x.sink = newOTLPSink(*c.OTLP, x)
	}
	cur, known, err := openCursors(filepath.Join(dir, c.Name+".json"))
	if err != nil {
		return nil, err
	}
	x.cursors = cur
	nodes, err := a.Names()
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		if known {
			x.dirty[node] = true
			continue
		}
		n, err := a.Node(node)
		if err != nil {
			return nil, err
		}
		at := n.Position()
		cur.sure[node] = place{at.Chain.String(), at.Seq}
	}
	if !known {
		cur.changed = true
		return x, cur.settle(time.Time{})
	}
	return x, nil
}

// Name is that of the destination.
func (x *Exporter) Name() string { return x.name }

// Wake says that there is something new of a node.
func (x *Exporter) Wake(node string) {
	x.mu.Lock()
	x.dirty[node] = true
	x.mu.Unlock()
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// take returns a node that there is something of.
func (x *Exporter) take() (string, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for node := range x.dirty {
		delete(x.dirty, node)
		return node, true
	}
	return "", false
}

// Run sends until ctx ends.
func (x *Exporter) Run(ctx context.Context) {
	defer x.sink.close()
	defer x.settle()
	tick := time.NewTicker(settleTick)
	defer tick.Stop()
	wait := firstWait
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			x.settle()
		default:
		}
		node, ok := x.take()
		if !ok {
			select {
			case <-ctx.Done():
			case <-x.wake:
			case <-tick.C:
				x.settle()
			}
			continue
		}
		err := x.turn(ctx, node)
		if err == nil {
			wait = firstWait
			continue
		}
		x.Wake(node)
		if ctx.Err() != nil {
			break
		}
		x.failed(err)
		var l *later
		if errors.As(err, &l) && l.after > wait {
			pause(ctx, min(l.after, maxWait))
		} else {
			pause(ctx, wait)
		}
		wait = min(2*wait, maxWait)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// failed goes back to what is sure.
func (x *Exporter) failed(err error) {
	x.failures.Add(1)
	x.log.Warn("audit events wait for their destination", "err", err)
	for _, node := range x.cursors.back() {
		x.Wake(node)
	}
}

// settle writes down what has become sure.
func (x *Exporter) settle() {
	if err := x.sink.broken(); err != nil {
		x.failed(err)
	}
	if err := x.cursors.settle(time.Now().Add(-x.sink.settle())); err != nil {
		x.log.Error("how far audit events were exported cannot be written: after a crash they are sent again", "err", err)
	}
}

// Stats returns what was counted, and by how many entries the destination is behind.
func (x *Exporter) Stats() Stats {
	s := Stats{Sent: x.sent.Load(), Failures: x.failures.Load(), Missing: x.missing.Load(), Refused: x.refused.Load()}
	nodes, err := x.archive.Names()
	if err != nil {
		return s
	}
	for _, node := range nodes {
		n, err := x.archive.Node(node)
		if err != nil {
			continue
		}
		at := n.Position()
		x.cursors.mu.Lock()
		have := x.cursors.sure[node]
		x.cursors.mu.Unlock()
		switch {
		case have.Chain != at.Chain.String():
			s.Behind += at.Seq
		case at.Seq > have.Seq:
			s.Behind += at.Seq - have.Seq
		}
	}
	return s
}

func parseID(s string) (id chain.ID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("%q names no chain", s)
	}
	copy(id[:], b)
	return id, nil
}
