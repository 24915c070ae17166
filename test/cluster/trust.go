package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

const trustTime = 60 * time.Second // until a verdict shows in the cluster

// Trust is what the cluster says of a node.
type Trust struct {
	*v1alpha1.NodeTrust
	Label   string             // "true", "false" or ""
	Effects []core.TaintEffect // of our taint, sorted
	Classes []string           // class labels, sorted
}

// Trusted reports whether every mark on the node says that it is trusted.
func (t *Trust) Trusted() bool { return t.Status.Trusted && t.Label == "true" && len(t.Effects) == 0 }

// Fallen reports whether every mark on the node says that it is not trusted.
func (t *Trust) Fallen() bool {
	return !t.Status.Trusted && t.Label != "true" && slices.Contains(t.Effects, core.TaintEffectNoSchedule) && len(t.Classes) == 0
}

// Red returns the levels that are not pass or warn.
func (t *Trust) Red() (red []int) {
	for _, l := range t.Status.Levels {
		if l.Status != "pass" && l.Status != "warn" {
			red = append(red, int(l.Level))
		}
	}
	return red
}

// Trust reads what the cluster says of a node. A node without a NodeTrust is not trusted.
func (c *Cluster) Trust(ctx context.Context, node string) (*Trust, error) {
	t := &Trust{NodeTrust: &v1alpha1.NodeTrust{}}
	if err := client.IgnoreNotFound(c.Client.Get(ctx, client.ObjectKey{Name: node}, t.NodeTrust)); err != nil {
		return nil, err
	}
	var n core.Node
	if err := c.Client.Get(ctx, client.ObjectKey{Name: node}, &n); err != nil {
		return nil, err
	}
	t.Label = n.Labels[v1alpha1.TrustedLabel]
	for _, taint := range n.Spec.Taints {
		if taint.Key == v1alpha1.UntrustedTaint {
			t.Effects = append(t.Effects, taint.Effect)
		}
	}
	for label := range n.Labels {
		if class, ok := strings.CutPrefix(label, v1alpha1.ClassNodeLabelPrefix); ok {
			t.Classes = append(t.Classes, class)
		}
	}
	slices.Sort(t.Effects)
	slices.Sort(t.Classes)
	return t, nil
}

// Until waits until what the cluster says of a node is as wanted.
func (c *Cluster) Until(ctx context.Context, node, what string, wanted func(*Trust) bool) (*Trust, error) {
	var t *Trust
	err := until(ctx, node+" "+what, trustTime, nil, func(ctx context.Context) error {
		var err error
		if t, err = c.Trust(ctx, node); err == nil && !wanted(t) {
			err = fmt.Errorf("trusted %v (%s), red levels %v, label %q, taint %v, classes %v", t.Status.Trusted, t.Status.Reason, t.Red(), t.Label, t.Effects, t.Classes)
		}
		return err
	})
	return t, err
}
