package authority

import (
	"net/http"
	"sync"
	"sync/atomic"

	"touchstone.dev/touchstone/internal/protocol"
)

const (
	maxStreams = 100     // of results that are open at a time
	maxUnsent  = 1 << 18 // nodes whose newest result a stream has not sent: more than that and it ends
)

// feed hands new results to the streams of Relying Parties. For each node a stream has not more than the newest result that it must still
// send: one that is slow skips the others, and all of them share the results themselves.
type feed struct {
	mu      sync.Mutex
	streams map[*subscription]struct{}
	most    int          // maxUnsent
	open    atomic.Int32 // streams: without any, a new result costs one load
}

// subscription is one stream's part. Its fields are under the lock of the feed.
type subscription struct {
	unsent map[string]protocol.NodeResult
	over   bool          // it holds too many
	wake   chan struct{} // something is unsent
}

func newFeed() *feed { return &feed{streams: map[*subscription]struct{}{}, most: maxUnsent} }

// publish tells all streams what became of a node. Whoever calls it has made that visible, and holds the node: results of a node are published
// in their order.
func (f *feed) publish(r protocol.NodeResult) {
	if f.open.Load() == 0 {
		return // who subscribes from now on sees it in the snapshot
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hand(r)
}

// step makes nodes appear or disappear, and tells all streams of it, in one step: a stream that begins meanwhile has it either in its snapshot
// or afterwards.
func (f *feed) step(r protocol.NodeResult, do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	f.hand(r)
}

func (f *feed) hand(r protocol.NodeResult) {
	for s := range f.streams {
		if s.over = s.over || len(s.unsent) >= f.most; s.over {
			s.unsent = nil
		} else {
			s.unsent[r.Node] = r
		}
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// subscribe opens a stream. It returns the nodes as they were at that moment.
func (f *feed) subscribe(all func() []*node) (*subscription, []*node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.streams) >= maxStreams {
		return nil, nil, refuse(http.StatusServiceUnavailable, "streams", "too many streams of results are open", "", "close one, or try again later")
	}
	s := &subscription{unsent: map[string]protocol.NodeResult{}, wake: make(chan struct{}, 1)}
	f.streams[s] = struct{}{}
	f.open.Store(int32(len(f.streams)))
	return s, all(), nil
}

func (f *feed) leave(s *subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.streams, s)
	f.open.Store(int32(len(f.streams)))
}

// has reports whether something newer of a node waits to be sent.
func (f *feed) has(s *subscription, node string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := s.unsent[node]
	return ok
}

// take returns what waits to be sent. It reports false when the stream has come too far behind.
func (f *feed) take(s *subscription) (map[string]protocol.NodeResult, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.over || len(s.unsent) == 0 {
		return nil, !s.over
	}
	out := s.unsent
	s.unsent = map[string]protocol.NodeResult{}
	return out, true
}
