package authority

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

// expireAtOnce bounds the nodes that expire at the same time, so that the store gathers them into few transactions.
const expireAtOnce = 64

// expireLook is how long the loop sleeps at most: timers stand still while a machine is suspended, and do not see the clock being set.
const expireLook = 10 * time.Second

// over reports whether a time has come. Times that this process took know the time that has passed since, whatever became of the clock: whichever says
// that it is over counts.
func over(at, now time.Time) bool { return !now.Before(at) || !now.Round(0).Before(at.Round(0)) }

// expiry is a heap of the nodes that are trusted, by the end of that trust: one timer for all of them.
type expiry struct {
	mu    sync.Mutex
	items []*expiring
	index map[*node]*expiring
	wake  chan struct{}
}

type expiring struct {
	node *node
	at   time.Time
	pos  int
}

func newExpiry() *expiry { return &expiry{index: map[*node]*expiring{}, wake: make(chan struct{}, 1)} }

// The methods of heap.Interface, for package heap only.

func (e *expiry) Len() int           { return len(e.items) }
func (e *expiry) Less(i, j int) bool { return e.items[i].at.Before(e.items[j].at) }
func (e *expiry) Swap(i, j int) {
	e.items[i], e.items[j] = e.items[j], e.items[i]
	e.items[i].pos, e.items[j].pos = i, j
}

func (e *expiry) Push(x any) {
	it := x.(*expiring)
	it.pos = len(e.items)
	e.items = append(e.items, it)
}

func (e *expiry) Pop() any {
	last := len(e.items) - 1
	it := e.items[last]
	e.items[last] = nil
	e.items = e.items[:last]
	return it
}

// set makes a node expire at a time; the zero time takes it out.
func (e *expiry) set(n *node, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	it := e.index[n]
	switch {
	case at.IsZero() && it == nil:
		return
	case at.IsZero():
		heap.Remove(e, it.pos)
		delete(e.index, n)
		return
	case it == nil:
		it = &expiring{node: n, at: at}
		e.index[n] = it
		heap.Push(e, it)
	default:
		it.at = at
		heap.Fix(e, it.pos)
	}
	if e.items[0] == it {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
}

// due takes out the nodes whose time has come, and returns the time of the next one (zero when there is none).
func (e *expiry) due(now time.Time) (out []*node, next time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.items) > 0 && over(e.items[0].at, now) {
		it := heap.Pop(e).(*expiring)
		delete(e.index, it.node)
		out = append(out, it.node)
	}
	if len(e.items) > 0 {
		next = e.items[0].at
	}
	return out, next
}

// next returns the time of the next expiry, zero when there is none.
func (e *expiry) next() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.items) == 0 {
		return time.Time{}
	}
	return e.items[0].at
}

func (a *Authority) expireLoop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.expiry.wake:
		case <-timer.C:
		}
		next := a.expireDue(ctx)
		if !next.IsZero() {
			timer.Reset(min(max(next.Sub(a.now()), time.Millisecond), expireLook))
		}
	}
}

// expireDue lets all nodes expire whose time has come, and returns the time of the next one.
func (a *Authority) expireDue(ctx context.Context) time.Time {
	nodes, next := a.expiry.due(a.now())
	var wg sync.WaitGroup
	slots := make(chan struct{}, expireAtOnce)
	for _, n := range nodes {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			if err := a.expire(ctx, n); err != nil && ctx.Err() == nil {
				a.log.Error("let a result expire", "node", n.name, "err", err)
				a.expiry.set(n, a.now().Add(time.Second))
			}
		}()
	}
	wg.Wait()
	return next
}

// expire takes the trust of a node that fell silent. Fresh Evidence that came in meanwhile wins.
func (a *Authority) expire(ctx context.Context, n *node) error {
	if err := n.lock(ctx); err != nil {
		if errors.Is(err, errGone) {
			return nil
		}
		return err
	}
	defer n.unlock()
	now := a.now()
	if n.trust != protocol.Trusted || !over(n.expires, now) {
		return nil
	}
	s := n.current()
	s.silent(now)
	return a.save(ctx, n, s, protocol.CauseExpiry, &store.Update{}, "")
}

// silent turns s into the state of a node whose last result has expired.
func (s *state) silent(now time.Time) {
	s.trust = protocol.Untrusted
	s.reason = fmt.Sprintf("silent: the last evidence came at %s and its result expired at %s; check that the trust agent runs and reaches AIAS",
		s.attested.UTC().Format(time.RFC3339), s.expires.UTC().Format(time.RFC3339))
	s.since = now
	levels := make([]protocol.LevelInfo, 0, len(s.levels))
	for _, l := range s.levels {
		levels = append(levels, protocol.LevelInfo{Level: l.Level, Name: l.Name, Status: string(appraisal.Unknown), Reason: "no fresh evidence"})
	}
	s.levels = levels
	s.tags = nil
}
