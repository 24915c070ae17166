package authority

import (
	"context"
	"maps"
	"net/http"
	"time"

	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

// Bounds on waiting for news: how long, and how many requests of one node. How many in all is Limits.Waiting.
const (
	maxNews   = 60 // seconds
	nodeWaits = 2
)

func (a *Authority) getTags(w http.ResponseWriter, r *http.Request, _ identity) error {
	n, err := a.target(r)
	if err != nil {
		return err
	}
	n.mu.RLock()
	v := n.tag.view(n.name)
	n.mu.RUnlock()
	return answer(w, v)
}

func (a *Authority) putTags(w http.ResponseWriter, r *http.Request, id identity) error {
	var req protocol.TagRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := assettag.Validate(req.Tags); err != nil {
		return refuse(http.StatusBadRequest, "tags", "these are no asset tags", err.Error(), "give NAME=VALUE; to take all away: touchstone tag clear NODE")
	}
	return a.changeTags(w, r, req.Tags, a.act(id, "tags.set", r.PathValue("node"), assettag.Text(req.Tags)))
}

func (a *Authority) deleteTags(w http.ResponseWriter, r *http.Request, id identity) error {
	return a.changeTags(w, r, nil, a.act(id, "tags.clear", r.PathValue("node"), ""))
}

// changeTags gives a node other tags. The same ones again change nothing: who repeats an order wears no TPM out.
func (a *Authority) changeTags(w http.ResponseWriter, r *http.Request, tags map[string]string, act store.Act) error {
	n, err := a.target(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), handleTime)
	defer cancel()
	if err := n.lock(ctx); err != nil {
		return err
	}
	defer n.unlock()
	if old := n.tag.view(n.name).Tags; !maps.Equal(old, tags) {
		next, err := a.issue(n, n.tag, tags)
		if err != nil {
			return err
		}
		if err := a.retag(ctx, n, next, act); err != nil {
			return err
		}
		a.log.Info("asset tags changed", "node", n.name, "serial", next.serial, "tags", assettag.Text(tags), "operator", act.Operator)
	}
	return answer(w, n.tag.view(n.name))
}

// retag writes new tags of a node together with a result that no longer has the old ones: its last Evidence is judged again, as Evidence of a node
// that has not been told of the new ones. The caller holds the node.
func (a *Authority) retag(ctx context.Context, n *node, next *tag, act store.Act) error {
	u := &store.Update{Act: &act}
	if done, err := a.judgeAgain(ctx, n, next, protocol.CauseOperator, u); done || err != nil {
		return err
	}
	st := n.current() // goes on, without tags
	st.tag, st.tags = next, nil
	signed, err := a.storedResult(ctx, n)
	if err == nil && signed != "" {
		signed, err = a.signResult(n, n.akName, &st, a.now())
	}
	if err != nil {
		return err
	}
	return a.save(ctx, n, st, protocol.CauseOperator, u, signed)
}

// getNews keeps a node waiting until there is something new for it: asset tags with another serial than it knows. It listens on no port, and needs
// not ask every second.
func (a *Authority) getNews(w http.ResponseWriter, r *http.Request, id identity) error {
	n, err := a.nodeOf(id)
	if err != nil {
		return err
	}
	if !n.limit.Allow() {
		return tooMany(w, "this node asks too often")
	}
	known, err := number(r, "tag", 0, 1<<62)
	if err != nil {
		return err
	}
	seconds, err := number(r, "seconds", 0, maxNews)
	if err != nil {
		return err
	}
	defer n.waits.Add(-1)
	defer a.waiting.Add(-1)
	if all := a.waiting.Add(1); n.waits.Add(1) > nodeWaits || all > int64(a.cfg.Limits.Waiting) {
		return tooMany(w, "too many requests wait for news")
	}
	news, serial := n.waitNews()
	if serial == uint64(known) {
		timer := time.NewTimer(time.Duration(seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-news:
		case <-timer.C:
		case <-r.Context().Done():
		case <-a.changes.done:
		}
		_, serial = n.waitNews()
	}
	return answer(w, protocol.News{Attest: serial != uint64(known)})
}
