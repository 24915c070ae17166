package cluster

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// queue is the work of one controller.
type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// bell rings for a controller when something happens that is no event of the API server.
type bell struct {
	mu    sync.Mutex
	queue queue
}

// source is what the controller watches.
func (b *bell) source() source.Source {
	return source.Func(func(_ context.Context, q queue) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.queue = q
		return nil
	})
}

// ring lets the controller look at a name, after a while in which further rings count as one. Before the controller has begun it looks at everything anyway.
func (b *bell) ring(name string, after time.Duration) {
	b.mu.Lock()
	q := b.queue
	b.mu.Unlock()
	if q == nil {
		return
	}
	req := reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}
	if after > 0 {
		q.AddAfter(req, after)
		return
	}
	q.Add(req)
}
