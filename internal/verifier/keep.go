package verifier

import "sync"

// keep is a bounded map of what was computed before: two generations, of which the older is dropped whole. Entries that are in use move to
// the younger one. It is bounded in entries and in bytes: what a hostile node sends decides how large an entry is. It is safe for
// concurrent use.
type keep[K comparable, V any] struct {
	mu         sync.Mutex
	max        int // entries of a generation
	room       int // bytes of a generation
	used       int // bytes of the younger one
	young, old map[K]kept[V]
}

type kept[V any] struct {
	value V
	cost  int // bytes, about
}

func newKeep[K comparable, V any](max, room int) *keep[K, V] {
	return &keep[K, V]{max: max, room: room, young: make(map[K]kept[V])}
}

func (c *keep[K, V]) get(k K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.young[k]; ok {
		return e.value, true
	}
	e, ok := c.old[k]
	if ok {
		c.add(k, e)
	}
	return e.value, ok
}

// put keeps v, of about cost bytes. What would take the room of all others is not kept.
func (c *keep[K, V]) put(k K, v V, cost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(k, kept[V]{v, cost})
}

func (c *keep[K, V]) add(k K, e kept[V]) {
	if e.cost > c.room/4 {
		return
	}
	if len(c.young) >= c.max || c.used+e.cost > c.room {
		c.old, c.young, c.used = c.young, make(map[K]kept[V], min(c.max/4, len(c.young))), 0
	}
	c.used += e.cost - c.young[k].cost
	c.young[k] = e
}
