package node

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/cluster/board"
	"touchstone.dev/touchstone/internal/result"
)

// FieldOwner is who the controller is for server-side apply.
const FieldOwner = "trust-controller"

// status is what the NodeTrust of an entry should say. last is the newest result, which is shown also when it does not count any more.
func status(e *board.Entry, held bool, last *result.Result, have *v1alpha1.NodeTrustStatus, now time.Time) v1alpha1.NodeTrustStatus {
	v := &e.Verdict
	s := v1alpha1.NodeTrustStatus{
		Trusted: v.Trusted, Levels: levels(v.Result), SoftwareTPM: e.Class.SoftwareTPM, Classes: e.Classes, Result: v.Token, FellAt: timeOf(e.FellAt), Node: v.Bound,
	}
	if !v.Trusted {
		s.Reason = bounded(v.Reason)
	}
	if len(e.Class.Tags) > 0 {
		s.Tags, s.TagSummary = e.Class.Tags, summary(e.Class.Tags)
	}
	if v.Result != nil {
		s.Compliance, s.Audit = compliance(v.Result.Compliance), audit(v.Result.Audit)
	}
	if last != nil {
		s.VerifiedAt, s.ExpiresAt = timeOf(last.Issued), timeOf(last.Expires)
	}
	s.Conditions = conditions(e, held, have.Conditions, now)
	return s
}

// levels are those of a result; all unknown without one.
func levels(r *result.Result) []v1alpha1.LevelStatus {
	out := make([]v1alpha1.LevelStatus, 0, len(appraisal.LevelNames))
	for i, name := range appraisal.LevelNames {
		l := v1alpha1.LevelStatus{Level: int32(i + 1), Name: name, Status: string(appraisal.Unknown)}
		if r != nil {
			for _, have := range r.Levels {
				if have.Level == i+1 && slices.Contains(statuses, have.Status) {
					l.Status, l.Reason = string(have.Status), bounded(have.Reason)
				}
			}
		}
		out = append(out, l)
	}
	return out
}

func summary(tags map[string]string) string {
	var words []string
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		words = append(words, k+"="+tags[k])
	}
	return strings.Join(words, ",")
}

// conditions are those that the entry asks for; one whose status is as before keeps its time.
func conditions(e *board.Entry, held bool, have []metav1.Condition, now time.Time) []metav1.Condition {
	v := &e.Verdict
	word := func(yes bool) metav1.ConditionStatus {
		if yes {
			return metav1.ConditionTrue
		}
		return metav1.ConditionFalse
	}
	message := bounded(v.Reason)
	list := []metav1.Condition{
		{Type: v1alpha1.ConditionTrusted, Status: word(v.Trusted), Reason: v.Code, Message: message, LastTransitionTime: metav1.NewTime(e.Since)},
		{Type: v1alpha1.ConditionBound, Status: word(v.Valid), Reason: v.Code, Message: message, LastTransitionTime: metav1.NewTime(now)},
	}
	if held {
		list = append(list, metav1.Condition{Type: v1alpha1.ConditionHeld, Status: metav1.ConditionTrue, Reason: "TooManyNodesFell",
			Message: "see TrustEnforcement " + v1alpha1.EnforcementName, LastTransitionTime: metav1.NewTime(now)})
	}
	for _, name := range slices.Sorted(maps.Keys(e.Lost)) {
		list = append(list, metav1.Condition{Type: v1alpha1.ClassConditionPrefix + name, Status: metav1.ConditionFalse, Reason: "ClassLost",
			Message: "the node met the class until then", LastTransitionTime: metav1.NewTime(e.Lost[name])})
	}
	for i := range list {
		if c := &list[i]; c.Type == v1alpha1.ConditionBound || c.Type == v1alpha1.ConditionHeld {
			if old := meta.FindStatusCondition(have, c.Type); old != nil && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	return list
}

// news says whether want must be written over have: when it says something else, or when what is written has less than half of its life left. Results come
// each minute from each node; etcd needs to know of few of them.
func news(want, have *v1alpha1.NodeTrustStatus, now time.Time) bool {
	a, b := want.DeepCopy(), have.DeepCopy()
	a.Result, a.VerifiedAt, a.ExpiresAt, b.Result, b.VerifiedAt, b.ExpiresAt = "", nil, nil, "", nil, nil
	for _, s := range []*v1alpha1.NodeTrustStatus{a, b} {
		slices.SortFunc(s.Conditions, func(x, y metav1.Condition) int { return strings.Compare(x.Type, y.Type) })
		for i := range s.Conditions {
			// Times are kept to the second, and in UTC.
			s.Conditions[i].LastTransitionTime = metav1.NewTime(s.Conditions[i].LastTransitionTime.UTC().Truncate(time.Second))
		}
	}
	if !equality.Semantic.DeepEqual(a, b) {
		return true
	}
	if want.Result == have.Result {
		// What is written about this very result must be true: who takes over while AIAS is away believes it.
		return !sameTime(want.VerifiedAt, have.VerifiedAt) || !sameTime(want.ExpiresAt, have.ExpiresAt)
	}
	if want.ExpiresAt == nil {
		return false
	}
	if have.ExpiresAt == nil || have.VerifiedAt == nil {
		return true
	}
	return now.After(have.VerifiedAt.Add(have.ExpiresAt.Sub(have.VerifiedAt.Time) / 2))
}

// sameTime compares times as they are kept: to the second.
func sameTime(a, b *metav1.Time) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Unix() == b.Unix()
}

// write applies a NodeTrust: first the object, when there is none, then its status.
func (r *Reconciler) write(ctx context.Context, n *corev1.Node, nt *v1alpha1.NodeTrust, s v1alpha1.NodeTrustStatus) error {
	if !owned(nt, n.UID) {
		u := blank(n.Name)
		u.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}})
		r.Wrote("nodetrusts")
		if err := r.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership, client.FieldOwner(FieldOwner)); err != nil {
			return err
		}
	}
	u := blank(n.Name)
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&s)
	if err != nil {
		return err
	}
	u.Object["status"] = m
	r.Wrote("nodetrusts/status")
	return r.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership, client.FieldOwner(FieldOwner))
}

func blank(name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("NodeTrust"))
	u.SetName(name)
	return u
}
