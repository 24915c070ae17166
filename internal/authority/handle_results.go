package authority

import (
	"context"
	"net/http"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// resultsHeartbeat is how often a stream of results says that it is there: a Relying Party that hears nothing for some of them knows that
// AIAS is away, and does not take silence for good news.
const resultsHeartbeat = 5 * time.Second

// resultsBatch is how many events have streamTime to reach the client.
const resultsBatch = 64

// getResults streams signed results: those of all nodes, "synced", then each new one. What is sent is the newest at that moment.
func (a *Authority) getResults(w http.ResponseWriter, r *http.Request, id identity) error {
	s, nodes, err := a.feed.subscribe(a.all)
	if err != nil {
		return err
	}
	defer a.feed.leave(s)
	out := openSSE(w)
	if err := a.sendSnapshot(r.Context(), out, s, nodes); err != nil {
		if r.Context().Err() == nil {
			a.log.Warn("stream of results", "err", err)
		}
		return nil // the head is out: the client sees the end and comes again
	}
	tick := time.NewTicker(resultsHeartbeat)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return nil
		case <-a.changes.done:
			return nil
		case <-s.wake:
			if !a.sendResults(out, s) {
				return nil
			}
		case <-tick.C:
			if !a.still(r.Context(), id) {
				return nil
			}
			out.alive()
			out.comment("alive")
			if out.flush() != nil {
				return nil
			}
		}
	}
}

// still reports whether who opened a stream by a token may go on: a token ends, and a service account may be deleted. The API server's word counts for
// a minute; while it cannot be asked, nobody's does.
func (a *Authority) still(ctx context.Context, id identity) bool {
	if id.token == "" {
		return true
	}
	now, err := a.cluster.party(ctx, id.token)
	return err == nil && now == id
}

// sendSnapshot sends where all nodes stand. A node that got something newer since the stream was opened is left to what waits for it: of two
// states the older one is never sent last.
func (a *Authority) sendSnapshot(ctx context.Context, out *sse, s *subscription, nodes []*node) error {
	for i, n := range nodes {
		jwt, err := a.storedResult(ctx, n)
		if err != nil {
			return err
		}
		v := n.view(a.now())
		if a.feed.has(s, n.name) {
			continue
		}
		if err := out.event("result", protocol.NodeResult{Node: n.name, Result: jwt, Trust: v.Trust, Reason: v.Reason}); err != nil {
			return err
		}
		if i%resultsBatch == 0 {
			out.alive()
		}
	}
	// What was left out belongs to the snapshot: "synced" says that every node was named.
	waiting, ok := a.feed.take(s)
	if !ok {
		return nil
	}
	for _, r := range waiting {
		if err := out.event("result", r); err != nil {
			return err
		}
	}
	if err := out.event("synced", struct{}{}); err != nil {
		return err
	}
	out.alive()
	return out.flush()
}

// sendResults sends what waits, and reports whether the stream goes on.
func (a *Authority) sendResults(out *sse, s *subscription) bool {
	waiting, ok := a.feed.take(s)
	if !ok {
		a.log.Warn("a stream of results came too far behind and was ended: its client must begin anew")
		return false
	}
	i := 0
	for _, r := range waiting {
		if i%resultsBatch == 0 {
			out.alive()
		}
		if out.event("result", r) != nil {
			return false
		}
		i++
	}
	return out.flush() == nil
}
