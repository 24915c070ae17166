package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"touchstone.dev/touchstone/internal/admission/isolation"
)

func (a *App) netpolCmd() *cobra.Command {
	var k cluster
	var q netpol
	cmd := &cobra.Command{
		Use:   "netpol [pod/NAME]",
		Short: "Print the NetworkPolicy that isolates pods, as trust classes demand it",
		Long: `Print the NetworkPolicy that isolates pods, as trust classes demand it: nobody reaches them, and they reach the cluster's DNS only. What
they need beyond that, further policies allow. The pods are those that look like one that runs, those of a selector, or those of a class;
only for the first a cluster is asked.`,
		Example: "  touchstone netpol -n shop pod/web-5d4f | kubectl apply -f -\n  touchstone netpol -n shop --selector app=web --class regulated",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			selector, err := q.selects(args)
			if err != nil {
				return usage(cmd, err)
			}
			namespace, err := k.room()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				if selector, err = q.like(cmd.Context(), &k, namespace, args[0]); err != nil {
					return err
				}
			}
			if q.class != "" {
				maps.Copy(selector, isolation.OfClass(q.class))
			}
			return a.printPolicy(namespace, q.named(selector), selector)
		},
	}
	k.flags(cmd)
	cmd.Flags().StringVarP(&q.selector, "selector", "l", "", "the pods with these labels: `NAME=VALUE,...`")
	cmd.Flags().StringVar(&q.class, "class", "", "only the pods that are labelled with this trust class")
	cmd.Flags().StringVar(&q.name, "name", "", "name of the policy (default isolate- and what it selects)")
	return cmd
}

// netpol is what pods a policy is wanted for.
type netpol struct{ selector, class, name string }

// selects checks the question; it returns the labels of --selector.
func (q *netpol) selects(args []string) (map[string]string, error) {
	for _, n := range []struct{ what, name string }{{"class", q.class}, {"name", q.name}} {
		if bad := validation.IsDNS1123Label(n.name); n.name != "" && len(bad) > 0 {
			return nil, fmt.Errorf("--%s %q: %s", n.what, n.name, bad[0])
		}
	}
	switch {
	case len(args) == 1 && q.selector != "":
		return nil, errors.New("want pod/NAME or --selector, not both")
	case len(args) == 1:
		_, err := podName(args[0])
		return nil, err
	case q.selector == "" && q.class == "":
		return nil, errors.New("which pods? want pod/NAME, --selector or --class")
	case q.selector == "":
		return map[string]string{}, nil
	}
	m, err := labels.ConvertSelectorToLabelsMap(q.selector)
	if err != nil {
		return nil, fmt.Errorf("--selector: %w", err)
	}
	if len(m) != strings.Count(q.selector, ",")+1 {
		return nil, fmt.Errorf("--selector %q has a label twice", q.selector)
	}
	return m, nil
}

// like returns the labels by which to select a pod of the cluster and those that replace it.
func (q *netpol) like(ctx context.Context, k *cluster, namespace, arg string) (map[string]string, error) {
	name, err := podName(arg)
	if err != nil {
		return nil, err
	}
	c, err := k.open()
	if err != nil {
		return nil, err
	}
	var pod corev1.Pod
	if err := get(ctx, c, &pod, "api/v1/namespaces", namespace, "pods", name); err != nil {
		return nil, fmt.Errorf("pod %s of namespace %s: %w", name, namespace, err)
	}
	selector := isolation.Selector(pod.Labels)
	if len(selector) == 0 { // would select every pod of the namespace
		return nil, fmt.Errorf("pod %s has no label that a pod in its place would have, too: give its template one", name)
	}
	return selector, nil
}

// named returns the policy's name: that which was asked for, or one after the values of the labels that it selects.
func (q *netpol) named(selector map[string]string) string {
	if q.name != "" {
		return q.name
	}
	name := "isolate"
	for _, key := range slices.Sorted(maps.Keys(selector)) {
		if value := selector[key]; value != "" {
			name += "-" + strings.Map(nameRune, strings.ToLower(value))
		}
	}
	return strings.TrimRight(name[:min(len(name), validation.DNS1123LabelMaxLength)], "-")
}

// nameRune is how a character of a label's value stands in a name.
func nameRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return '-'
}

func (a *App) printPolicy(namespace, name string, selector map[string]string) error {
	p := isolation.Policy(namespace, name, selector)
	text, err := isolation.Manifest(p)
	if err != nil {
		return err
	}
	return a.show(p, func(w io.Writer) { fmt.Fprint(w, text) })
}
