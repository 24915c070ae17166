package authority

import (
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// Times of leases.
const (
	leaseTime = 45 * time.Minute // for unpacking and scanning a large image on a busy worker
	// failedRest is how long a worker that could not scan an image is not asked for it again; others are.
	failedRest = 6 * time.Hour
	maxFailed  = 50_000
)

// scanKind is by what an image is scanned.
type scanKind struct{ profile, content, tailoring string }

// scanWork is one image to scan by one kind.
type scanWork struct {
	image protocol.ClaimedImage
	scanKind
}

// lease is work in the hands of one worker.
type lease struct {
	scanWork
	node        string
	from, until time.Time
}

// failure is work that one worker could not do.
type failure struct {
	scanWork
	node string
}

// leases keeps workers from scanning the same image twice. It is in memory only: what a restart forgets is scanned once more at worst.
type leases struct {
	mu     sync.Mutex
	held   map[scanWork]lease
	failed map[failure]time.Time // until when
}

func newLeases() *leases {
	return &leases{held: map[scanWork]lease{}, failed: map[failure]time.Time{}}
}

// free reports whether work can be given to a worker. holds says whether another one is still good for its lease.
func (l *leases) free(w scanWork, node string, now time.Time, holds func(node string) bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, taken := l.held[w]
	return now.After(l.failed[failure{w, node}]) && (!taken || h.node == node || !now.Before(h.until) || !holds(h.node))
}

// take gives work to a worker, and takes from it what it had: it does one scan at a time. It is false when another one was faster.
func (l *leases) take(w scanWork, node string, now time.Time, holds func(node string) bool) (lease, bool) {
	if !l.free(w, node, now, holds) {
		return lease{}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, h := range l.held {
		if h.node == node || !now.Before(h.until) {
			delete(l.held, k)
		}
	}
	if _, taken := l.held[w]; taken && holds(l.held[w].node) {
		return lease{}, false
	}
	l.held[w] = lease{w, node, now, now.Add(leaseTime)}
	return l.held[w], true
}

// end takes the lease of an image from a worker, and returns it; false: it has none.
func (l *leases) end(image protocol.ClaimedImage, node string, now time.Time) (lease, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, h := range l.held {
		if h.node == node && h.image == image {
			delete(l.held, k)
			return h, now.Before(h.until)
		}
	}
	return lease{}, false
}

// fail remembers that a worker could not do its work.
func (l *leases) fail(h lease, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failed) >= maxFailed {
		clear(l.failed)
	}
	l.failed[failure{h.scanWork, h.node}] = now.Add(failedRest)
}
