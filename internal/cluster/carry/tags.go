package carry

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/protocol"
)

// TagStore is the part of AIAS that issues asset tags, as an operator.Client is.
type TagStore interface {
	Tags(ctx context.Context, node string) (*protocol.TagState, error)
	SetTags(ctx context.Context, node string, tags map[string]string) (*protocol.TagState, error)
	ClearTags(ctx context.Context, node string) (*protocol.TagState, error)
}

// Tags carries all AssetTags together: what a node has is what all of them say of it.
type Tags struct {
	Client client.Client
	AIAS   TagStore
	Log    *slog.Logger
	// Heard says whether AIAS has told of all nodes: until then nobody knows who is enrolled.
	Heard func() bool
	// Enrolled lists the nodes that AIAS knows; Proven are the tags that a node's TPM certified.
	Enrolled func() []string
	Proven   func(node string) map[string]string
	Count    func(outcome string)
	Now      func() time.Time

	issued map[string]map[string]string // what AIAS is known to have, by node; only one reconciliation runs at a time
	asked  time.Time                    // since when that is known
	forget atomic.Bool
}

// Forget lets the next reconciliation ask AIAS for everything again: it may be another one, or have lost its data.
func (r *Tags) Forget() { r.forget.Store(true) }

// wish is what all AssetTags together say.
type wish struct {
	tags     map[string]map[string]string   // by node
	by       map[string]map[string][]string // node, tag: the AssetTags that say something of it
	conflict map[string][]string            // AssetTag: what it contradicts, in words
}

// union joins AssetTags. Where two of them say different things of one tag of a node, the node does not have the tag: neither is more right.
func union(list []v1alpha1.AssetTag) *wish {
	w := &wish{tags: map[string]map[string]string{}, by: map[string]map[string][]string{}, conflict: map[string][]string{}}
	clash := map[string]map[string]bool{}
	for i := range list {
		at := &list[i]
		if at.DeletionTimestamp != nil {
			continue
		}
		for _, node := range at.Spec.Nodes {
			if w.tags[node] == nil {
				w.tags[node], w.by[node], clash[node] = map[string]string{}, map[string][]string{}, map[string]bool{}
			}
			for k, v := range at.Spec.Tags {
				if have, ok := w.tags[node][k]; ok && have != string(v) {
					clash[node][k] = true
				}
				w.tags[node][k] = string(v)
				w.by[node][k] = append(w.by[node][k], at.Name)
			}
		}
	}
	for _, node := range slices.Sorted(maps.Keys(clash)) {
		for _, k := range slices.Sorted(maps.Keys(clash[node])) {
			delete(w.tags[node], k)
			for _, name := range w.by[node][k] {
				w.conflict[name] = append(w.conflict[name], fmt.Sprintf("tag %s of node %s is said differently by %s", k, node, strings.Join(w.by[node][k], " and ")))
			}
		}
	}
	return w
}

// Reconcile carries all AssetTags, whichever changed.
func (r *Tags) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	if !r.Heard() {
		return ctrl.Result{RequeueAfter: againSoon}, nil // an AssetTag that is let go now would leave its tags at AIAS for ever
	}
	if now := r.Now(); r.forget.Swap(false) || now.Sub(r.asked) >= againOnce {
		r.issued, r.asked = nil, now
	}
	var list v1alpha1.AssetTagList
	if err := r.Client.List(ctx, &list); err != nil {
		return ctrl.Result{}, err
	}
	for i := range list.Items { // before AIAS has anything of it
		if at := &list.Items[i]; at.DeletionTimestamp == nil && !controllerutil.ContainsFinalizer(at, v1alpha1.TagFinalizer) {
			before := at.DeepCopy()
			controllerutil.AddFinalizer(at, v1alpha1.TagFinalizer)
			if err := r.Client.Patch(ctx, at, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
				return ctrl.Result{}, client.IgnoreNotFound(err)
			}
		}
	}
	w, enrolled := union(list.Items), map[string]bool{}
	for _, node := range r.Enrolled() {
		enrolled[node] = true
	}
	failed, soon := map[string]string{}, false
	for _, node := range affected(list.Items) {
		if !enrolled[node] {
			failed[node] = "it is not enrolled with AIAS"
			delete(r.issued, node)
			continue
		}
		if err := r.issue(ctx, node, w.tags[node]); err != nil {
			failed[node] = err.Error()
			if !refusal(err) {
				soon = true
			}
		}
	}
	for i := range list.Items {
		if err := r.report(ctx, &list.Items[i], w, failed); client.IgnoreNotFound(err) != nil {
			return ctrl.Result{}, err
		}
	}
	if soon {
		return ctrl.Result{RequeueAfter: againSoon}, nil
	}
	return ctrl.Result{RequeueAfter: againOnce}, nil
}

// affected are the nodes that AssetTags name, or named when they were carried last.
func affected(list []v1alpha1.AssetTag) []string {
	set := map[string]bool{}
	for i := range list {
		for _, nodes := range [][]string{list[i].Spec.Nodes, list[i].Status.Nodes} {
			for _, n := range nodes {
				set[n] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// issue lets AIAS issue the tags of a node, unless it has.
func (r *Tags) issue(ctx context.Context, node string, want map[string]string) error {
	if have, ok := r.issued[node]; ok && maps.Equal(have, want) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	state, err := r.AIAS.Tags(ctx, node)
	if err != nil {
		return err
	}
	if !maps.Equal(state.Tags, want) {
		if len(want) == 0 {
			_, err = r.AIAS.ClearTags(ctx, node)
		} else {
			_, err = r.AIAS.SetTags(ctx, node, want)
		}
		if err != nil {
			r.Count(TagsRefused)
			return err
		}
		r.Count(TagsTaken)
		r.Log.Info("AIAS issues asset tags", "node", node, "tags", want)
	}
	if r.issued == nil {
		r.issued = map[string]map[string]string{}
	}
	r.issued[node] = want
	return nil
}

// report writes how far an AssetTag came, or lets it go when AIAS has nothing of it any more.
func (r *Tags) report(ctx context.Context, at *v1alpha1.AssetTag, w *wish, failed map[string]string) error {
	before := at.DeepCopy()
	if at.DeletionTimestamp != nil {
		for _, node := range at.Status.Nodes {
			// A node that is not enrolled has no tags.
			if why, ok := failed[node]; ok && why != "it is not enrolled with AIAS" {
				return nil
			}
		}
		if !controllerutil.RemoveFinalizer(at, v1alpha1.TagFinalizer) {
			return nil
		}
		return r.Client.Patch(ctx, at, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	}
	s := &at.Status
	s.Nodes = slices.DeleteFunc(affected([]v1alpha1.AssetTag{*at}), func(n string) bool {
		// A node that left is forgotten when its tags are gone.
		return !slices.Contains(at.Spec.Nodes, n) && failed[n] == "" || failed[n] != "" && !slices.Contains(before.Status.Nodes, n)
	})
	accepted := metav1.Condition{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: "Issued", Message: "AIAS has issued the tags", ObservedGeneration: at.Generation}
	proven := metav1.Condition{Type: v1alpha1.ConditionProven, Status: metav1.ConditionTrue, Reason: "Certified", Message: "the TPM of every node has certified that it holds the tags", ObservedGeneration: at.Generation}
	var problems, missing []string
	problems = append(problems, w.conflict[at.Name]...)
	for _, node := range at.Spec.Nodes {
		if why := failed[node]; why != "" {
			problems = append(problems, node+": "+why)
		}
		have := r.Proven(node)
		for k, v := range at.Spec.Tags {
			if have[k] != string(v) {
				missing = append(missing, node)
				break
			}
		}
	}
	if len(problems) > 0 {
		accepted.Status, accepted.Reason, accepted.Message = metav1.ConditionFalse, "NotIssued", bounded(strings.Join(problems, "; "))
		if len(w.conflict[at.Name]) > 0 {
			accepted.Reason = "Conflict"
		}
	}
	if len(missing) > 0 {
		proven.Status, proven.Reason = metav1.ConditionFalse, "NotCertified"
		proven.Message = bounded(fmt.Sprintf("%d of %d nodes have still to certify: %s", len(missing), len(at.Spec.Nodes), strings.Join(missing, ", ")))
	}
	a, p := meta.SetStatusCondition(&s.Conditions, accepted), meta.SetStatusCondition(&s.Conditions, proven)
	if !a && !p && slices.Equal(s.Nodes, before.Status.Nodes) {
		return nil
	}
	return r.Client.Status().Patch(ctx, at, client.MergeFrom(before))
}
