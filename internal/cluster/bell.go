package cluster

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"touchstone.dev/touchstone/internal/cluster/node"
)

// line is the queue of one controller, and the way into it for what is no event of the API server.
type line[T comparable] struct {
	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[T]
}

// source is what the controller watches.
func (l *line[T]) source() source.TypedSource[T] {
	return source.TypedFunc[T](func(_ context.Context, q workqueue.TypedRateLimitingInterface[T]) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.queue = q
		return nil
	})
}

// add lets the controller do something after a while, in which more of the same counts as one. Before the controller has begun it looks at everything anyway.
func (l *line[T]) add(what T, after time.Duration, priority int) {
	l.mu.Lock()
	q := l.queue
	l.mu.Unlock()
	switch q := q.(type) {
	case nil:
	case priorityqueue.PriorityQueue[T]:
		q.AddWithOpts(priorityqueue.AddOpts{After: after, Priority: &priority}, what)
	default:
		q.AddAfter(what, after)
	}
}

// bell rings for a controller to look at a name.
type bell struct{ line[reconcile.Request] }

func (b *bell) ring(name string, after time.Duration) {
	b.add(reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}, after, 0)
}

// jobs are those about nodes.
type jobs struct{ line[node.Job] }

func (j *jobs) look(name string, priority int) { j.add(node.Job{Node: name}, 0, priority) }
