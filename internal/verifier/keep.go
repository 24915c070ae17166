package verifier

import "sync"

// keep is a bounded map of what was computed before: two generations, of which the older is dropped whole. Entries that are in use move to
// the younger one. It is safe for concurrent use.
type keep[K comparable, V any] struct {
	mu         sync.Mutex
	max        int // entries of a generation
	young, old map[K]V
}

func newKeep[K comparable, V any](max int) *keep[K, V] {
	return &keep[K, V]{max: max, young: make(map[K]V)}
}

func (c *keep[K, V]) get(k K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.young[k]; ok {
		return v, true
	}
	v, ok := c.old[k]
	if ok {
		c.add(k, v)
	}
	return v, ok
}

func (c *keep[K, V]) put(k K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(k, v)
}

func (c *keep[K, V]) add(k K, v V) {
	if len(c.young) >= c.max {
		c.old, c.young = c.young, make(map[K]V, c.max/4)
	}
	c.young[k] = v
}
