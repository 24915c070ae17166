package agent

import (
	"context"
	"math/rand/v2"
	"time"
)

// Trigger says why the agent attests.
type Trigger string

// The triggers.
const (
	TriggerStart   Trigger = "start"
	TriggerTimer   Trigger = "timer"
	TriggerIMA     Trigger = "ima-list"
	TriggerModule  Trigger = "kernel-module"
	TriggerKubelet Trigger = "kubelet-key"
	TriggerTag     Trigger = "asset-tag" // AIAS has new ones
	TriggerAsked   Trigger = "asked"     // SIGUSR1
)

// modulesEvery is after how many looks at the IMA count the list of modules is looked at too.
const modulesEvery = 4

// watcher looks at the host until its context ends, and reports changes.
type watcher struct {
	host     Host
	interval time.Duration
	debounce time.Duration
	changes  chan Trigger // holds one
	tick     int
	count    uint64
	modules  uint64
	kubelet  uint64
	known    bool // the first look has been taken
}

func newWatcher(host Host, c WatchConfig) *watcher {
	return &watcher{
		host: host, interval: time.Duration(c.Interval), debounce: time.Duration(c.Debounce), changes: make(chan Trigger, 1),
	}
}

// run looks until ctx ends. Looks are jittered by a fifth, so that the workers of a fleet drift apart.
func (w *watcher) run(ctx context.Context) {
	if w.interval <= 0 {
		return
	}
	w.look()
	for sleep(ctx, jitter(w.interval, 0.2)) {
		t := w.look()
		if t == "" {
			continue
		}
		w.settle(ctx)
		select {
		case w.changes <- t:
		default: // one is waiting already and will see this change too
		}
	}
}

// settle waits until the list rests for the debounce time, at most four times that: a busy worker must not hide behind its own noise.
func (w *watcher) settle(ctx context.Context) {
	for range 4 {
		if !sleep(ctx, w.debounce) || w.look() == "" {
			return
		}
	}
}

// look compares the host with the last look. A file that cannot be read is no change: its absence shows in the Evidence.
func (w *watcher) look() Trigger {
	var t Trigger
	if n, err := w.host.IMACount(); err == nil {
		if w.known && n != w.count {
			t = TriggerIMA
		}
		w.count = n
	}
	if w.tick%modulesEvery == 0 {
		if n, err := w.host.Modules(); err == nil {
			if w.known && n != w.modules && t == "" {
				t = TriggerModule
			}
			w.modules = n
		}
	}
	if k, ok := w.host.(kubelet); ok {
		n := k.stamp()
		if w.known && n != w.kubelet && t == "" {
			t = TriggerKubelet
		}
		w.kubelet = n
	}
	w.tick++
	w.known = true
	return t
}

// sleep waits for d and tells whether it did: false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// jitter returns d plus or minus a random part of it.
func jitter(d time.Duration, part float64) time.Duration {
	return time.Duration(float64(d) * (1 + part*(2*rand.Float64()-1))) //nolint:gosec // spreads load, hides nothing
}

// backoff draws waits: at random between 0 and a bound that doubles after each (full jitter), so that a fleet that lost AIAS at one
// moment does not come back at one moment.
type backoff struct {
	initial, max time.Duration
	bound        time.Duration
}

func (b *backoff) next() time.Duration {
	switch {
	case b.bound == 0:
		b.bound = b.initial
	case b.bound < b.max:
		b.bound = min(2*b.bound, b.max)
	}
	return rand.N(b.bound) + time.Millisecond //nolint:gosec // spreads load, hides nothing
}

func (b *backoff) reset() { b.bound = 0 }
