package cluster

import (
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestPlacementFirst: when many nodes fall at once, all are closed before more than a few are told of: a list of what is left to do would else let the last one
// take pods while events are written about the first.
func TestPlacementFirst(t *testing.T) {
	const nodes = 120
	w := newWorld(t)
	w.account()
	w.class("regulated", 0)
	var mu sync.Mutex
	closed, toldOf, early := map[string]bool{}, map[string]bool{}, 0 // early: of which it was told when the last one was closed
	falls := false
	seen := watch(w, func(n *corev1.Node) {
		mu.Lock()
		defer mu.Unlock()
		if !falls {
			return
		}
		if told(n) {
			toldOf[n.Name] = true
		}
		if !open(n) && !closed[n.Name] {
			closed[n.Name], early = true, len(toldOf)
		}
	})
	name := func(i int) string { return fmt.Sprintf("n%03d", i) }
	parallel(nodes, func(i int) { w.node(name(i)) })
	for i := range nodes {
		w.aias.say(w.aias.trusted(name(i)))
	}
	w.run()
	w.eventually("all are trusted", func() bool { return seen.trusted() == nodes })
	mu.Lock()
	falls = true
	mu.Unlock()
	for i := range nodes {
		w.aias.say(w.aias.trusted(name(i), fallen(4, "bad policy")))
	}
	w.eventually("all is told", func() bool { return seen.told() == nodes })
	mu.Lock()
	defer mu.Unlock()
	t.Logf("told of %d nodes when the last of %d was closed", early, nodes)
	if len(closed) != nodes || early > nodes/3 {
		t.Errorf("told of %d nodes when the last of %d was closed, want all closed before", early, len(closed))
	}
}

// TestRetries: however often a change was refused, it is tried again within seconds.
func TestRetries(t *testing.T) {
	r := retries[string]()
	for range 100 {
		if d := r.When("w1"); d <= 0 || d > lastRetry {
			t.Fatalf("When(): got %s, want more than nothing and at most %s", d, lastRetry)
		}
	}
	if first := retries[string]().When("w2"); first > 10*time.Millisecond {
		t.Errorf("When(), the first time: got %s, want a few milliseconds", first)
	}
}
