package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"touchstone.dev/touchstone/internal/cluster/feed"
)

// health says in words how the process is. Ready means that it can answer the API server: its caches are full, and what was added with AddReadyzCheck (the
// webhook) is well. A replica that stands by is ready, because it serves the webhook. One whose AIAS is away is, too: all lose AIAS at the same
// moment, and were they all unready, no pod of a class could be made; nothing is trusted for longer by that. So this is named, and not counted.
type health struct {
	feed    *feed.Feed
	elected <-chan struct{}
	now     func() time.Time
	synced  atomic.Bool

	mu     sync.Mutex
	checks []check
}

type check struct {
	name string
	fn   healthz.Checker
}

func (h *health) add(name string, fn healthz.Checker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = append(h.checks, check{name, fn})
}

// setup serves /healthz and /readyz as soon as the manager starts, before its caches are full.
func (h *health) setup(ctx context.Context, m manager.Manager, address string) error {
	if err := m.Add((*afterCaches)(h)); err != nil || address == "" || address == "0" {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for health: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.Handle("GET /readyz", h)
	return m.Add(&manager.Server{Name: "health", Listener: l, Server: &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 1 << 14,
	}})
}

// afterCaches is what the manager starts when the caches are full.
type afterCaches health

// Start says that they are.
func (a *afterCaches) Start(context.Context) error {
	a.synced.Store(true)
	return nil
}

// NeedLeaderElection is false.
func (a *afterCaches) NeedLeaderElection() bool { return false }

// ServeHTTP is /readyz: a line for each thing, and 503 when one of them keeps the process from being ready.
func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var lines []string
	ready := true
	say := func(word, name, text string) { lines = append(lines, fmt.Sprintf("%-8s %s: %s\n", word, name, text)) }
	if h.synced.Load() {
		say("ok", "caches", "full")
	} else {
		ready = false
		say("not yet", "caches", "waiting for the API server: does it serve all types, and may the controller list them?")
	}
	h.mu.Lock()
	checks := slices.Clone(h.checks)
	h.mu.Unlock()
	for _, c := range checks {
		if err := c.fn(r); err != nil {
			ready = false
			say("not yet", c.name, err.Error())
			continue
		}
		say("ok", c.name, "serves")
	}
	h.leader(say)
	h.aias(say)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write([]byte(strings.Join(lines, "")))
}

func (h *health) leader(say func(word, name, text string)) {
	select {
	case <-h.elected:
		say("ok", "leader", "this replica acts")
	default:
		say("ok", "leader", "this replica stands by")
	}
}

func (h *health) aias(say func(word, name, text string)) {
	connected, since := h.feed.Connected()
	if connected {
		say("ok", "aias", "its stream of results is open since "+since.UTC().Format(time.RFC3339))
		return
	}
	text := fmt.Sprintf("no stream of results since %s (%s)", since.UTC().Format(time.RFC3339), h.now().Sub(since).Round(time.Second))
	if why := h.feed.Trouble(); why != "" {
		text += ": " + strings.Join(strings.Fields(why), " ")
	}
	say("warning", "aias", text+"; nothing is renewed, and what is trusted ends by itself")
}
