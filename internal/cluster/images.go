package cluster

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/imagetrust"
)

// openImages keeps the ImageTrusts. Many pods of one image at once count as one.
func (r *rooms) openImages() error {
	if r.o.ImageScans == nil {
		return nil
	}
	later := func(q workqueue.TypedRateLimitingInterface[reconcile.Request], keys []string) {
		for _, key := range keys {
			q.AddAfter(reconcile.Request{NamespacedName: types.NamespacedName{Name: key}}, settle)
		}
	}
	keys := func(o client.Object) []string { return imagetrust.Keys(o.(*corev1.Pod)) }
	pods := handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			later(q, keys(e.Object))
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			if before, after := keys(e.ObjectOld), keys(e.ObjectNew); !slices.Equal(before, after) {
				later(q, append(before, after...))
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			later(q, keys(e.Object))
		},
	}
	classes := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []reconcile.Request { return r.requestsOfImages(ctx) })
	return r.build("images", 2).For(&v1alpha1.ImageTrust{}).Watches(&corev1.Pod{}, pods).
		Watches(&v1alpha1.TrustClass{}, classes, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(&imagetrust.Reconciler{
			Client: r.client, Scans: r.o.ImageScans, Events: r.m.GetEventRecorder(fieldOwner), Log: r.o.Log, Now: r.o.Now, Owner: fieldOwner, Wrote: r.metrics.wrote,
		})
}

// requestsOfImages are all images that pods of classes use, and all that there is an ImageTrust of.
func (r *rooms) requestsOfImages(ctx context.Context) []reconcile.Request {
	var pods corev1.PodList
	var have v1alpha1.ImageTrustList
	if err := r.client.List(ctx, &pods, client.UnsafeDisableDeepCopy); err != nil {
		r.o.Log.Error("list pods", "error", err)
	}
	if err := r.client.List(ctx, &have, client.UnsafeDisableDeepCopy); err != nil {
		r.o.Log.Error("list ImageTrusts", "error", err)
	}
	seen := map[string]bool{}
	for i := range pods.Items {
		for _, key := range imagetrust.Keys(&pods.Items[i]) {
			seen[key] = true
		}
	}
	for i := range have.Items {
		seen[have.Items[i].Name] = true
	}
	var all []reconcile.Request
	for key := range seen {
		all = append(all, reconcile.Request{NamespacedName: types.NamespacedName{Name: key}})
	}
	return all
}
