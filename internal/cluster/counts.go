package cluster

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/board"
)

// counts writes TrustClass.status.nodes.
type counts struct {
	client client.Client
	board  *board.Board
	ensure func(context.Context) error
	wrote  func(string)
}

// Reconcile counts the nodes of one class.
func (c *counts) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if err := c.ensure(ctx); err != nil {
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
	if n == int64(tc.Status.Nodes) {
		return ctrl.Result{}, nil
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"nodes": n}}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("TrustClass"))
	u.SetName(tc.Name)
	c.wrote("trustclasses/status")
	return ctrl.Result{}, c.client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership, client.FieldOwner(fieldOwner))
}
