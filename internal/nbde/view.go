package nbde

import (
	"context"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/store"
)

// KeyView is a key as an operator sees it.
type KeyView struct {
	store.DiskKey
	Uses []store.DiskUse // the last first
}

// NodeView is the disks of a node as an operator sees them.
type NodeView struct {
	Record
	Keys []KeyView // the newest first
	// Ready is whether a recovery would be released at this moment to where the node attested from last; Why says by what, or why not.
	Ready bool
	Why   string
	// Rebind is whether a disk of the node may still hang on a key that is rotated: the newest key was never used, or an older one about as lately.
	Rebind bool
}

// Overview is all that a Service has.
type Overview struct {
	Signers []string  // thumbprints that advertisements are signed by
	Shared  []KeyView // exchange keys that all share
	Nodes   []NodeView
}

// sameBoot is how far apart the recoveries of one boot may lie.
const sameBoot = time.Hour

// Overview lists everything, nodes by name.
func (s *Service) Overview(ctx context.Context) (*Overview, error) {
	uses, err := s.o.Store.DiskUses(ctx)
	if err != nil {
		return nil, err
	}
	byKey := map[string][]store.DiskUse{}
	for _, u := range uses {
		byKey[u.Thumbprint] = append(byKey[u.Thumbprint], u)
	}
	s.mu.RLock()
	out := &Overview{Signers: advertised(s.keys[""], Sign), Shared: views(s.keys[""], byKey)}
	var states []*nodeState
	keys := map[string][]KeyView{}
	for name, n := range s.nodes {
		states = append(states, n)
		keys[name] = views(s.keys[name], byKey)
	}
	s.mu.RUnlock()
	for _, n := range states {
		v, err := s.view(ctx, n)
		if err != nil {
			return nil, err
		}
		v.Keys = keys[v.Node]
		v.Rebind = rebind(v.Keys)
		out.Nodes = append(out.Nodes, v)
	}
	slices.SortFunc(out.Nodes, func(a, b NodeView) int { return strings.Compare(a.Node, b.Node) })
	return out, nil
}

func (s *Service) view(ctx context.Context, n *nodeState) (NodeView, error) {
	n.mu.Lock()
	v := NodeView{Record: n.record}
	n.mu.Unlock()
	standing, err := s.o.Standing(ctx, v.Node, v.Policy.Mode == ModeNode)
	if err != nil {
		return v, err
	}
	grant, missing := Decide(&v.Record, standing, v.Session.Source, s.o.Now())
	if v.Ready, v.Why = len(missing) == 0, string(grant); !v.Ready {
		v.Why = reasons(missing)
	}
	return v, nil
}

// views are the exchange keys among keys, the newest first.
func views(keys []*stored, uses map[string][]store.DiskUse) []KeyView {
	var out []KeyView
	for _, k := range keys {
		if k.Use != string(Exchange) {
			continue
		}
		v := KeyView{DiskKey: k.DiskKey, Uses: uses[k.Thumbprint]}
		v.Sealed = nil
		out = append(out, v)
	}
	slices.SortStableFunc(out, func(a, b KeyView) int { // those in use first: two can be of the same moment
		if used := a.Rotated.IsZero(); used != b.Rotated.IsZero() {
			return map[bool]int{true: -1, false: 1}[used]
		}
		return b.Created.Compare(a.Created)
	})
	return out
}

func rebind(keys []KeyView) bool {
	if len(keys) < 2 {
		return false
	}
	newest := keys[0]
	for _, old := range keys[1:] {
		if len(old.Uses) == 0 {
			continue
		}
		if len(newest.Uses) == 0 || old.Uses[0].Last.After(newest.Uses[0].Last.Add(-sameBoot)) {
			return true
		}
	}
	return false
}
