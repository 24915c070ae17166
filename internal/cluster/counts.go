package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/board"
	"touchstone.dev/touchstone/internal/cluster/exposure"
)

// counts writes TrustClass.status: how many nodes meet the class, and the condition Isolated. The condition Enforced is that of package webhook, which has a
// field owner of its own.
type counts struct {
	client   client.Client
	board    *board.Board
	exposure *exposure.Reconciler
	now      func() time.Time
	ensure   func(context.Context) error
	wrote    func(string)
}

// Reconcile counts for one class.
func (c *counts) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if err := c.ensure(ctx); err != nil {
		return ctrl.Result{}, err
	}
	if err := c.exposure.Ensure(ctx); err != nil {
		return ctrl.Result{}, err
	}
	var tc v1alpha1.TrustClass
	if err := c.client.Get(ctx, req.NamespacedName, &tc); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	n := int64(0)
	for _, e := range c.board.All() {
		if slices.Contains(e.Classes, tc.Name) {
			n++
		}
	}
	isolated := c.isolated(&tc)
	if have := meta.FindStatusCondition(tc.Status.Conditions, isolated.Type); have != nil {
		if have.Status == isolated.Status {
			isolated.LastTransitionTime = have.LastTransitionTime
		}
		if n == int64(tc.Status.Nodes) && *have == isolated {
			return ctrl.Result{}, nil
		}
	}
	condition, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&isolated)
	if err != nil {
		return ctrl.Result{}, err
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"nodes": n, "conditions": []any{condition}}}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("TrustClass"))
	u.SetName(tc.Name)
	c.wrote("trustclasses/status")
	return ctrl.Result{}, c.client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership, client.FieldOwner(fieldOwner))
}

// maxExposed is how many pods a condition names.
const maxExposed = 5

// isolated says whether all running pods of a class are isolated.
func (c *counts) isolated(tc *v1alpha1.TrustClass) metav1.Condition {
	out := metav1.Condition{
		Type: v1alpha1.ConditionIsolated, Status: metav1.ConditionTrue, Reason: "AllPods", Message: "NetworkPolicies isolate all running pods of the class",
		ObservedGeneration: tc.Generation, LastTransitionTime: metav1.NewTime(c.now().Truncate(time.Second)),
	}
	pods := c.exposure.OfClass(tc.Name)
	switch {
	case tc.Spec.Network.Isolation == v1alpha1.None:
		out.Reason, out.Message = "NotRequired", "the class wants no isolation"
	case len(pods) > 0:
		out.Status, out.Reason = metav1.ConditionFalse, "PodsNotIsolated"
		out.Message = fmt.Sprintf("%d running pods are not isolated: %s", len(pods), strings.Join(pods[:min(len(pods), maxExposed)], "; "))
		if more := len(pods) - maxExposed; more > 0 {
			out.Message += fmt.Sprintf("; and %d more", more)
		}
	}
	return out
}
