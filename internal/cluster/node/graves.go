package node

import (
	"sync"
	"time"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// graveTime is how long a node object that is gone is remembered: longer than any result lives.
const graveTime = 24 * time.Hour

// graves remember what node objects were bound to after their NodeTrust is gone, so that one that is made again proves itself anew.
type graves struct {
	mu sync.Mutex
	by map[string]grave
}

type grave struct {
	binding *v1alpha1.NodeBinding
	until   time.Time
}

func (g *graves) bury(name string, b *v1alpha1.NodeBinding, now time.Time) {
	if b == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.by == nil {
		g.by = map[string]grave{}
	}
	for k, v := range g.by {
		if now.After(v.until) {
			delete(g.by, k)
		}
	}
	g.by[name] = grave{b.DeepCopy(), now.Add(graveTime)}
}

func (g *graves) of(name string) *v1alpha1.NodeBinding {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.by[name].binding
}
