package demo

import (
	"context"
	"fmt"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

// patience is how long a verdict may take before the demo gives up. The machine may be slow; verdicts come in a fraction of a
// second.
const patience = 60 * time.Second

// feed follows the changes of verdicts as AIAS tells them.
type feed struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	changes []change
	news    chan struct{} // closed and replaced at each change
}

// change is a change of a verdict, with the time at which it was heard of.
type change struct {
	protocol.Change
	heard time.Time
}

// follow subscribes. It returns when no later change can be missed.
func follow(ctx context.Context, c *operator.Client) (*feed, error) {
	ctx, cancel := context.WithCancel(ctx)
	f := &feed{cancel: cancel, done: make(chan struct{}), news: make(chan struct{})}
	ready, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(f.done)
		_, err := c.Events(ctx, -1, func() { close(ready) }, func(ch protocol.Change) error {
			f.mu.Lock()
			f.changes = append(f.changes, change{ch, time.Now()})
			close(f.news)
			f.news = make(chan struct{})
			f.mu.Unlock()
			return nil
		})
		failed <- err
	}()
	select {
	case <-ready:
		return f, nil
	case err := <-failed:
		cancel()
		return nil, fmt.Errorf("follow the verdicts: %w", err)
	}
}

// mark returns a place in the stream: await looks at what comes after it.
func (f *feed) mark() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.changes)
}

// await returns the first change of a node after mark that brought it to trusted or untrusted.
func (f *feed) await(ctx context.Context, node string, mark int) (change, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		f.mu.Lock()
		changes, news := f.changes[mark:], f.news
		f.mu.Unlock()
		for _, c := range changes {
			if c.Node == node && (c.To == protocol.Trusted || c.To == protocol.Untrusted) {
				return c, nil
			}
		}
		mark += len(changes)
		select {
		case <-news:
		case <-ctx.Done():
			return change{}, fmt.Errorf("no verdict on %s: %w", node, ctx.Err())
		}
	}
}

func (f *feed) close() {
	f.cancel()
	<-f.done
}
