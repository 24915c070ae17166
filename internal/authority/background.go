package authority

import (
	"context"
	"sync"
	"time"
)

const cleanEvery = time.Hour

// Run does what happens without a request, until ctx ends: results expire, nodes are judged again under a new snapshot, the root certificate is published, the ledger
// follows the database, and what nothing refers to is removed.
func (a *Authority) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, loop := range []func(context.Context){a.expireLoop, a.rejudgeLoop, a.cleanLoop, a.publishLoop, a.ledgerLoop, a.keysLoop, a.detectionLoop, a.exportLoop} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			loop(ctx)
		}()
	}
	wg.Wait()
}

func (a *Authority) cleanLoop(ctx context.Context) {
	tick := time.NewTicker(cleanEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := a.store.Clean(ctx, a.now()); err != nil && ctx.Err() == nil {
				a.log.Error("clean the database", "err", err)
			}
		}
	}
}

// broadcast wakes everyone who waits for a change of a verdict. What changed is in the store, in order.
type broadcast struct {
	mu   sync.Mutex
	ch   chan struct{}
	done chan struct{} // closed when AIAS shuts down
	once sync.Once
}

func newBroadcast() *broadcast { return &broadcast{ch: make(chan struct{}), done: make(chan struct{})} }

// close tells all who wait for ever that AIAS shuts down.
func (b *broadcast) close() { b.once.Do(func() { close(b.done) }) }

// wait returns a channel that is closed at the next signal.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *broadcast) signal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
}
