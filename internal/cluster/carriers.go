package cluster

import (
	"context"
	"maps"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/carry"
	"touchstone.dev/touchstone/internal/cluster/isecl"
)

func (r *rooms) openPolicies() error {
	if !r.o.CarryPolicy {
		return nil
	}
	return r.build("policy", 1).For(&v1alpha1.TrustPolicy{}).WatchesRawSource(r.policy.source()).
		Complete(&carry.Policies{Client: r.client, AIAS: r.o.AIAS, Events: r.m.GetEventRecorder(fieldOwner), Log: r.o.Log, Count: r.metrics.carriedTo})
}

// allTags is the one name that is looked at for all AssetTags.
const allTags = "all"

// openTags lets every change of an AssetTag, and of what is proven, lead to one look at all of them.
func (r *rooms) openTags() error {
	if !r.o.CarryTags {
		return nil
	}
	all := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: allTags}}}
	})
	tags := &carry.Tags{
		Client: r.client, AIAS: r.o.AIAS, Log: r.o.Log, Now: r.o.Now, Heard: r.feed.Synced, Enrolled: r.feed.Nodes, Count: r.metrics.carriedTo, Proven: func(name string) map[string]string {
			if e, ok := r.board.Get(name); ok && e.Verdict.Valid {
				return e.Verdict.Result.Tags
			}
			return nil
		},
	}
	r.feed.OnSync(tags.Forget)
	return r.build("tags", 1).Watches(&v1alpha1.AssetTag{}, all).WatchesRawSource(r.tags.source()).Complete(tags)
}

// tagsOf rings when AIAS tells of a node that is new, or that proves other tags than before. It is called on the goroutine of the stream alone.
func (r *rooms) tagsOf(_ context.Context, name string) {
	said, enrolled := r.feed.Get(name)
	var tags map[string]string
	if said.Result != nil {
		tags = said.Result.Tags
	}
	before, known := r.proven[name]
	if enrolled && !said.Removed {
		r.proven[name] = tags
	} else {
		delete(r.proven, name)
	}
	if known && maps.Equal(before, tags) {
		return
	}
	r.tags.ring(allTags, settle)
}

// openISecL lets every change of a NodeTrust lead to one look at all of them.
func (r *rooms) openISecL() error {
	if !r.o.ISecL {
		return nil
	}
	all := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: isecl.Namespace, Name: isecl.Name}}}
	})
	return r.build("isecl", 1).Watches(&v1alpha1.NodeTrust{}, all).
		Complete(&isecl.Reconciler{Client: r.client, Live: r.m.GetAPIReader(), Log: r.o.Log, Now: r.o.Now, Owner: fieldOwner, Wrote: r.metrics.wrote})
}

// openClasses brings what classes demand to AIAS, which gives keys by it.
func (r *rooms) openClasses() error {
	if !r.o.CarryPolicy {
		return nil
	}
	return r.build("carry-classes", 1).For(&v1alpha1.TrustClass{}).
		Complete(&carry.Classes{Client: r.client, AIAS: r.o.AIAS, Log: r.o.Log, Count: r.metrics.carriedTo})
}
