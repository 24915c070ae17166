// Package feed keeps the stream of signed results of AIAS open, and what AIAS said last of each node.
//
// Every result is verified here (package result) with the keys of AIAS before it counts; what the stream says without a signature can only lower
// a node. When AIAS is silent nothing is renewed, and everything ends by itself: whoever reads the feed looks at Expires.
package feed

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/cluster/verdict"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

// Source is AIAS, as an operator.Client is.
type Source interface {
	// Results calls fn for each event, and synced once the stream has told of all nodes, until ctx ends, a callback fails or the stream breaks.
	Results(ctx context.Context, fn func(protocol.NodeResult) error, synced func() error) error
	// JWKS is the JSON Web Key Set that results are signed with.
	JWKS(ctx context.Context) ([]byte, error)
}

// Limits.
const (
	maxNodes = 20_000 // that AIAS may tell of
	backoff  = 500 * time.Millisecond
	maxBack  = 15 * time.Second
	keysTime = 10 * time.Second // to fetch the keys
	keysRest = 5 * time.Second  // between two fetches within one stream
)

// Outcomes of one event, for metrics.
const (
	Taken   = "taken"
	Refused = "refused"
)

// Options of a Feed.
type Options struct {
	Source Source
	Log    *slog.Logger
	Now    func() time.Time
	// Observe is called with the outcome of each event; nil for nobody.
	Observe func(outcome string)
}

// Feed is what AIAS said last. It is safe for concurrent use.
type Feed struct {
	o  Options
	mu sync.RWMutex
	// said is by node; seen are those that the present stream told of, until it is synced. A removed node is kept until the first sync only: from
	// then on a node that is not there is not enrolled, and names that come and go do not pile up.
	said      map[string]verdict.Said
	seen      map[string]bool
	keys      []byte
	fetched   time.Time
	connected bool
	trouble   string // why the last stream ended
	synced    bool   // since the start, once
	since     time.Time
	listeners []func(ctx context.Context, node string)
	onSync    []func()
}

// New makes a Feed; Run runs it.
func New(o Options) *Feed {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Observe == nil {
		o.Observe = func(string) {}
	}
	return &Feed{o: o, said: map[string]verdict.Said{}, since: o.Now()}
}

// Get returns what AIAS said last of a node; false when it did not tell of it yet.
func (f *Feed) Get(node string) (verdict.Said, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	s, ok := f.said[node]
	return s, ok
}

// Nodes returns the names of the nodes that are enrolled.
func (f *Feed) Nodes() []string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	names := make([]string, 0, len(f.said))
	for name, s := range f.said {
		if !s.Removed {
			names = append(names, name)
		}
	}
	return names
}

// Synced says whether AIAS has told of all nodes at least once: a node that is not known then is not enrolled.
func (f *Feed) Synced() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.synced
}

// Connected says whether the stream is open and synced, and since when it is or is not.
func (f *Feed) Connected() (bool, time.Time) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.connected, f.since
}

// Trouble is why the last stream ended; empty when none did.
func (f *Feed) Trouble() string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.trouble
}

// OnChange calls fn, on the goroutine of the stream, after each event about a node. To be called before Run.
func (f *Feed) OnChange(fn func(ctx context.Context, node string)) {
	f.listeners = append(f.listeners, fn)
}

// OnSync calls fn whenever a stream has told of all nodes. To be called before Run.
func (f *Feed) OnSync(fn func()) { f.onSync = append(f.onSync, fn) }

// NeedLeaderElection is false: a standby follows the stream too, so that it knows everything when it takes over.
func (f *Feed) NeedLeaderElection() bool { return false }

// Start is Run, for the manager.
func (f *Feed) Start(ctx context.Context) error { return f.Run(ctx) }

// Run keeps the stream open until ctx ends. After a break it waits, longer each time that nothing came, with jitter, so that replicas and
// clusters do not come back at the same moment.
func (f *Feed) Run(ctx context.Context) error {
	wait := backoff
	for {
		began := f.o.Now()
		err := f.stream(ctx)
		f.disconnected(err)
		if f.o.Now().Sub(began) > maxBack {
			wait = backoff
		}
		pause := wait/2 + rand.N(wait) //nolint:gosec // jitter is no secret
		if ctx.Err() == nil {
			f.o.Log.Warn("the stream of AIAS ended", "error", err, "again_in", pause.Round(time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		wait = min(2*wait, maxBack)
	}
}

// stream follows one connection.
func (f *Feed) stream(ctx context.Context) error {
	if err := f.fetchKeys(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	f.seen = map[string]bool{}
	f.mu.Unlock()
	return f.o.Source.Results(ctx, func(r protocol.NodeResult) error { return f.take(ctx, r) }, func() error { return f.complete(ctx) })
}

func (f *Feed) fetchKeys(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keysTime)
	defer cancel()
	keys, err := f.o.Source.JWKS(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys, f.fetched = keys, f.o.Now()
	return nil
}

// complete ends the first part of a stream: nodes that it did not tell of are not enrolled.
func (f *Feed) complete(ctx context.Context) error {
	f.mu.Lock()
	var gone []string
	for name, s := range f.said {
		if s.Removed || !f.seen[name] {
			delete(f.said, name)
			gone = append(gone, name)
		}
	}
	f.seen = nil
	if !f.connected {
		f.since = f.o.Now()
	}
	f.connected, f.synced = true, true
	f.mu.Unlock()
	f.o.Log.Info("AIAS has told of all nodes", "nodes", len(f.Nodes()))
	f.tell(ctx, gone...)
	for _, fn := range f.onSync {
		fn()
	}
	return nil
}

func (f *Feed) disconnected(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trouble = "it was closed"; err != nil {
		f.trouble = bounded(err.Error(), maxReason)
	}
	if f.connected {
		f.connected, f.since = false, f.o.Now()
	}
}

func (f *Feed) tell(ctx context.Context, nodes ...string) {
	for _, node := range nodes {
		for _, fn := range f.listeners {
			fn(ctx, node)
		}
	}
}

// take takes one event. An error breaks the stream: only the keys of AIAS, asked for again, can make its results readable.
func (f *Feed) take(ctx context.Context, r protocol.NodeResult) error {
	r.Node = bounded(r.Node, 253)
	f.mu.RLock()
	old, known := f.said[r.Node]
	full := !known && len(f.said) >= maxNodes
	keys := f.keys
	f.mu.RUnlock()
	if full {
		return errors.New("AIAS tells of more nodes than a cluster has")
	}
	now := f.o.Now()
	next := verdict.Said{Trust: r.Trust, Reason: bounded(r.Reason, maxReason), Removed: r.Removed, Received: now}
	var refused error
	switch {
	case r.Removed:
	case r.Result == "":
	default:
		got, err := result.Verify(r.Result, keys, result.Expectation{Node: r.Node, Now: now})
		if errors.Is(err, result.ErrSignature) && f.mayFetch(now) {
			if err := f.fetchKeys(ctx); err != nil {
				return err
			}
			f.mu.RLock()
			keys = f.keys
			f.mu.RUnlock()
			got, err = result.Verify(r.Result, keys, result.Expectation{Node: r.Node, Now: now})
		}
		refused = f.adopt(&next, old, got, r.Result, err)
	}
	f.mu.Lock()
	if f.said[r.Node] = next; r.Removed && f.synced {
		delete(f.said, r.Node)
	}
	if f.seen != nil {
		f.seen[r.Node] = true
	}
	f.mu.Unlock()
	if refused != nil {
		f.o.Observe(Refused)
		f.o.Log.Warn("a result is refused", "node", r.Node, "error", refused)
	} else {
		f.o.Observe(Taken)
	}
	f.tell(ctx, r.Node)
	return nil
}

// adopt decides which result counts from now on. One that cannot be taken leaves the one before, until that ends: it is as authentic as it was.
func (f *Feed) adopt(next *verdict.Said, old verdict.Said, got *result.Result, token string, err error) error {
	switch {
	case errors.Is(err, result.ErrExpired):
		next.Result, next.Token, next.Expired, next.Problem = old.Result, old.Token, true, bounded(err.Error(), maxReason)
		return nil // a silent node's last one: the stream begins with it
	case err != nil:
		next.Result, next.Token, next.Problem = old.Result, old.Token, bounded(err.Error(), maxReason)
		return err
	case got.Trusted && old.Result != nil && got.Issued.Before(old.Result.Issued) && next.Received.Before(old.Result.Expires):
		// An older one that says trusted must not undo a newer one. One that says untrusted always counts.
		next.Result, next.Token = old.Result, old.Token
		next.Problem = "an older result came after a newer one: is the clock of AIAS right?"
		return errors.New(next.Problem)
	}
	next.Result, next.Token = got, token
	return nil
}

// mayFetch limits how often results signed with unknown keys make us ask for the keys.
func (f *Feed) mayFetch(now time.Time) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return now.Sub(f.fetched) >= keysRest
}

const maxReason = 512

func bounded(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
