package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/cluster/class"
)

func (a *App) explainCmd() *cobra.Command {
	var k cluster
	cmd := &cobra.Command{
		Use:   "explain pod/NAME",
		Short: "Say which nodes meet the trust class of a pod, and what the others lack",
		Long: `Say which nodes meet the trust class of a pod, and what the others lack. It ends with 0 when some node meets the class, else with 1. What
else the scheduler looks at (room, other selectors, taints) is said by kubectl describe. Besides the pod it reads trust classes and what is known of
nodes, which needs the ClusterRole touchstone-explain.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := podName(args[0])
			if err != nil {
				return usage(cmd, err)
			}
			namespace, err := k.room()
			if err != nil {
				return err
			}
			c, err := k.open()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), requestTimeout)
			defer cancel()
			e, err := explain(ctx, c, namespace, name, a.Now())
			if err != nil {
				return err
			}
			if err := a.show(e, func(w io.Writer) { a.Style.Explanation(w, e) }); err != nil {
				return err
			}
			if e.Met() == 0 {
				return &exitError{code: ExitNotTrusted}
			}
			return nil
		},
	}
	k.flags(cmd)
	return cmd
}

// explain holds every node of the cluster against the class of a pod.
func explain(ctx context.Context, c *rest.RESTClient, namespace, name string, now time.Time) (*render.Explanation, error) {
	e := &render.Explanation{Namespace: namespace, Pod: name, Nodes: []render.NodeAnswer{}}
	spec, err := demanded(ctx, c, e)
	if err != nil {
		return nil, err
	}
	nodes, trusts := map[string]bool{}, map[string]*v1alpha1.NodeTrust{}
	// Few may list nodes. Each has its NodeTrust as soon as the controller has seen it.
	err = each(ctx, c, func(n *metav1.PartialObjectMetadata) { nodes[n.Name] = true }, "api/v1/nodes")
	if err != nil && !apierrors.IsForbidden(err) {
		return nil, fmt.Errorf("nodes: %w", err)
	}
	listed := err == nil
	err = each(ctx, c, func(nt *v1alpha1.NodeTrust) { trusts[nt.Name] = nt }, touchstoneAPI+"/nodetrusts")
	if err != nil {
		return nil, fmt.Errorf("what is known of nodes (nodetrusts): %w", withRole(err))
	}
	if !listed {
		for name := range trusts {
			nodes[name] = true
		}
	}
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		held := class.Node{}
		if nt := trusts[node]; nt != nil {
			held = class.FromTrust(nt)
		}
		answer := class.Meets(spec, held, now)
		e.Nodes = append(e.Nodes, render.NodeAnswer{Node: node, Meets: answer.Meets, Missing: answer.Missing})
	}
	return e, nil
}

const touchstoneAPI = "apis/touchstone.dev/v1alpha1"

// withRole says what role helps where the user may not read what is Touchstone's.
func withRole(err error) error {
	if !apierrors.IsForbidden(err) {
		return err
	}
	return fmt.Errorf("%w; it needs the ClusterRole touchstone-explain (kubectl create clusterrolebinding NAME --clusterrole=touchstone-explain --user=YOU)", err)
}

// demanded finds the class of a pod, notes it, and returns what it demands.
func demanded(ctx context.Context, c *rest.RESTClient, e *render.Explanation) (*v1alpha1.TrustClassSpec, error) {
	var pod corev1.Pod
	if err := get(ctx, c, &pod, "api/v1/namespaces", e.Namespace, "pods", e.Pod); err != nil {
		return nil, fmt.Errorf("pod %s of namespace %s: %w", e.Pod, e.Namespace, err)
	}
	e.RunsOn, e.Class, e.ClassOf = pod.Spec.NodeName, pod.Labels[v1alpha1.ClassLabel], "pod"
	if e.Class == "" {
		var ns metav1.PartialObjectMetadata
		if err := get(ctx, c, &ns, "api/v1/namespaces", e.Namespace); err != nil {
			return nil, fmt.Errorf("namespace %s: %w", e.Namespace, err)
		}
		e.Class, e.ClassOf = ns.Labels[v1alpha1.ClassLabel], "namespace"
	}
	if e.Class == "" {
		return nil, fmt.Errorf("neither pod %s nor its namespace %s has the label %s: without a trust class it may run on any node", e.Pod, e.Namespace, v1alpha1.ClassLabel)
	}
	if len(validation.IsDNS1123Label(e.Class)) > 0 {
		return nil, fmt.Errorf("%q can be the name of no TrustClass: correct the label of the %s", e.Class, e.ClassOf)
	}
	var tc v1alpha1.TrustClass
	err := get(ctx, c, &tc, touchstoneAPI, "trustclasses", e.Class)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is no TrustClass %s, so no node meets it: create it, or correct the label of the %s", e.Class, e.ClassOf)
	}
	if err != nil {
		return nil, fmt.Errorf("TrustClass %s: %w", e.Class, withRole(err))
	}
	return &tc.Spec, nil
}
