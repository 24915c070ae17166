package cluster

import (
	"context"
	"maps"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// openExposure watches what isolates pods, and the pods. Of these only what is about isolation counts, and many at once count as one.
func (r *rooms) openExposure() error {
	later := func(q workqueue.TypedRateLimitingInterface[reconcile.Request], o client.Object) {
		if p := o.(*corev1.Pod); len(p.Labels) > 0 || len(p.Status.Conditions) > 0 || r.classy(p.Namespace) {
			q.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Name: p.Namespace}}, settle)
		}
	}
	pods := handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			later(q, e.Object)
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			if !maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()) {
				later(q, e.ObjectNew)
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			later(q, e.Object)
		},
	}
	named := func(name string) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: name}}}
	}
	policies := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request { return named(o.GetNamespace()) })
	namespaces := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request { return named(o.GetName()) })
	classes := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []reconcile.Request {
		names, err := r.exposure.Namespaces(ctx)
		if err != nil {
			r.o.Log.Error("list pods", "error", err)
		}
		var all []reconcile.Request
		for _, name := range names {
			all = append(all, named(name)...)
		}
		return all
	})
	// The status of a class changes with each node.
	return r.build("exposure", 1).Watches(&netv1.NetworkPolicy{}, policies).Watches(&corev1.Pod{}, pods).Watches(&corev1.Namespace{}, namespaces).
		Watches(&v1alpha1.TrustClass{}, classes, builder.WithPredicates(predicate.GenerationChangedPredicate{})).Complete(r.exposure)
}

// classy tells whether a namespace gives its pods a class.
func (r *rooms) classy(name string) bool {
	var ns corev1.Namespace
	return r.client.Get(context.Background(), types.NamespacedName{Name: name}, &ns) == nil && ns.Labels[v1alpha1.ClassLabel] != ""
}
