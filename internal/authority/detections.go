package authority

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/detect"
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/store"
)

// How often counts are written and ends are looked for, and how often one node is judged again for what its events show. The first detection
// of a node is judged at once.
const (
	watchEvery = 5 * time.Second
	judgeEvery = time.Second
	// seenEvery is how often it is written how far a node's events were looked at when they show nothing: what is behind it is looked at again
	// after a restart.
	seenEvery = time.Minute
)

// found holds the nodes that have to be judged again because of their audit events.
type found struct {
	mu    sync.Mutex
	nodes map[*node]bool
	wake  chan struct{}
}

func newFound() *found { return &found{nodes: map[*node]bool{}, wake: make(chan struct{}, 1)} }

func (f *found) add(n *node) {
	f.mu.Lock()
	f.nodes[n] = true
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *found) take() []*node {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*node
	for n := range f.nodes {
		out = append(out, n)
	}
	clear(f.nodes)
	return out
}

// loadRules compiles the rules that ship, and those of the operator's folder. On an error the old ones stay.
func (a *Authority) loadRules() error {
	own, err := detect.ReadDir(a.cfg.DetectionRules)
	if err != nil {
		return err
	}
	set, err := detect.Compile(append(detect.Shipped(), own...))
	if err != nil {
		return err
	}
	if old := a.rules.Load(); old == nil || old.ID() != set.ID() {
		a.rules.Store(set)
		a.log.Info("rules for detections in force", "rules", len(set.Rules()), "own", len(own))
	}
	return nil
}

// loadDetections reads what the store keeps, by node.
func (a *Authority) loadDetections(ctx context.Context) (map[int64]*watch, error) {
	rows, err := a.store.Detections(ctx)
	if err != nil {
		return nil, fmt.Errorf("load the detections: %w", err)
	}
	seen, err := a.store.DetectionsSeen(ctx)
	if err != nil {
		return nil, fmt.Errorf("load the detections: %w", err)
	}
	out := map[int64]*watch{}
	of := func(node int64) *watch {
		if out[node] == nil {
			out[node] = newWatch()
		}
		return out[node]
	}
	for _, r := range rows {
		d := new(detection)
		if err := json.Unmarshal(r.Data, d); err != nil {
			return nil, fmt.Errorf("detection %s is damaged: %w", r.ID, err)
		}
		of(r.Node).kept[r.ID] = d
	}
	for node, s := range seen {
		of(node).seen, of(node).saved = s, s
	}
	return out, nil
}

// audited looks at entries of a node's audit chain that AIAS has taken in for good, in order. What they show is in the store when it returns, and
// the node is judged again at once. Entries that were looked at before do no harm.
func (a *Authority) audited(ctx context.Context, n *node, id chain.ID, entries []chain.Entry) error {
	f, err := a.audit.archive.Node(n.name)
	if err != nil {
		return err
	}
	w := n.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	st := w.entries(a.rules.Load(), id, entries, a.now())
	st.join(w.booted(a.rules.Load(), f))
	return a.keepDetections(ctx, n, st, nil, false)
}

// auditedUpTo is the number of the last entry of a node that was looked at and written down. After a restart, the caller of audited begins behind it.
func (n *node) auditedUpTo() uint64 {
	n.watch.mu.Lock()
	defer n.watch.mu.Unlock()
	return n.watch.seen.Seq
}

// keepDetections writes a step, and the counts that are not in the store yet when all is set or something new is written anyway. The caller holds the watch.
func (a *Authority) keepDetections(ctx context.Context, n *node, st watchStep, act *store.Act, all bool) error {
	w := n.watch
	if st.news {
		a.found.add(n)
	}
	far := w.seen != w.saved && a.now().Sub(w.savedAt) >= seenEvery
	if !st.news && act == nil && (!all || len(w.dirty)+len(w.gone) == 0 && !far) {
		return nil
	}
	row := &store.DetectionStep{Node: n.id, Remove: w.gone, Seen: &w.seen, Act: act}
	for id := range w.dirty {
		if d := w.kept[id]; d != nil {
			r, err := d.row()
			if err != nil {
				return err
			}
			row.Put = append(row.Put, r)
		}
	}
	if err := a.store.SaveDetections(ctx, row); err != nil {
		return err
	}
	clear(w.dirty)
	w.gone = nil
	w.saved, w.savedAt = w.seen, a.now()
	for id := range st.put {
		d := w.kept[id]
		a.log.Warn("misuse found in audit events", "node", n.name, "rule", d.Rule, "severity", d.Severity, "effect", d.Effect, "what", d.What, "who", d.Who, "event", d.Event, "detection", id)
	}
	return nil
}

// unsigned reports whether something was found that the node's TPM should sign soon: a boot ends it, and it counts as of the boot in which it is signed.
func (a *Authority) unsigned(n *node) bool {
	n.watch.mu.Lock()
	defer n.watch.mu.Unlock()
	return n.watch.unsigned(a.rules.Load())
}

// detected returns the detections of a node for the verifier.
func (n *node) detected() claims.Detections {
	n.watch.mu.Lock()
	defer n.watch.mu.Unlock()
	var out claims.Detections
	for _, d := range n.watch.list() {
		out = append(out, d.Detection)
	}
	return out
}

// detectionLoop judges nodes again whose events show something, writes counts, and lets detections end whose time is over.
func (a *Authority) detectionLoop(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	last := map[*node]time.Time{}
	for {
		select {
		case <-ctx.Done():
			a.flushDetections(context.WithoutCancel(ctx))
			return
		case <-tick.C:
			a.flushDetections(ctx)
			a.ledgerHeads(ctx)
			clear(last)
		case <-a.found.wake:
		}
		for _, n := range a.found.take() {
			if wait := judgeEvery - time.Since(last[n]); wait > 0 {
				time.AfterFunc(wait, func() { a.found.add(n) })
				continue
			}
			last[n] = time.Now()
			if err := a.judgeAudited(ctx, n); err != nil && ctx.Err() == nil {
				a.log.Error("judge a node for its audit events", "node", n.name, "err", err)
			}
		}
	}
}

func (a *Authority) flushDetections(ctx context.Context) {
	for _, n := range a.all() {
		w := n.watch
		w.mu.Lock()
		err := a.keepDetections(ctx, n, w.over(a.now()), nil, true)
		w.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			a.log.Error("write detections", "node", n.name, "err", err)
		}
	}
}

// clearDetections ends detections of a node: one by its ID, those of a rule, or all. It returns them.
func (a *Authority) clearDetections(ctx context.Context, n *node, which string, act store.Act) ([]detection, error) {
	w := n.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	st := watchStep{put: map[string]bool{}}
	var out []detection
	for _, d := range w.list() {
		if which == "all" || which == d.ID || which == d.Rule {
			out = append(out, d)
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	kept, gone := w.kept, w.gone
	w.kept = map[string]*detection{}
	for id, d := range kept {
		if slices.ContainsFunc(out, func(o detection) bool { return o.ID == id }) {
			w.gone = append(w.gone, id)
		} else {
			w.kept[id] = d
		}
	}
	st.news = true
	if err := a.keepDetections(ctx, n, st, &act, true); err != nil {
		w.kept, w.gone = kept, gone
		return nil, err
	}
	return out, nil
}
