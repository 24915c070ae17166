package webhook

import (
	"slices"
	"strings"
	"testing"
	"time"

	arv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/admission/isolation"
)

// BenchmarkAdmission: how long the API server takes to make a pod (dry run, so all of admission and no disk), at a server without anything of ours and at one with
// the policies, then with the webhook too; for pods with and without a class. The kinds take turns; medians are reported. -benchtime=300x gives figures that repeat.
func BenchmarkAdmission(b *testing.B) {
	bare, ours := blank(b), blank(b)
	ours.types()
	var hooks client.Object
	for _, o := range ours.objects() {
		if _, ok := o.(*arv1.ValidatingWebhookConfiguration); ok {
			hooks = o
			continue
		}
		ours.must(ours.Create(ctx, o))
	}
	ours.class("open", func(s *v1alpha1.TrustClassSpec) { s.Network.Isolation = v1alpha1.None })
	ours.class("isolated", nil)
	for _, w := range []*world{bare, ours} {
		ns, sa := &corev1.Namespace{}, &corev1.ServiceAccount{}
		ns.Name, sa.Namespace, sa.Name = "pay", "pay", "default"
		w.must(w.Create(ctx, ns))
		w.must(w.Create(ctx, sa))
		for _, class := range []string{"isolated", "other", "another"} { // a namespace has some
			w.must(w.Create(ctx, isolation.ClassPolicy("pay", class)))
		}
	}
	ours.mayUse("pay")
	stop := ours.run(Options{})
	defer stop()

	kinds := []struct {
		name string
		w    *world
		pod  func() *corev1.Pod
	}{
		{"bare", bare, func() *corev1.Pod { return pod("pay", "") }},
		{"no-class", ours, func() *corev1.Pod { return pod("pay", "") }},
		{"class", ours, func() *corev1.Pod { return pod("pay", "open") }},
		{"class-isolated", ours, func() *corev1.Pod { return pod("pay", "isolated") }},
	}
	rounds := func(b *testing.B) {
		took := make([][]time.Duration, len(kinds))
		for i := 0; b.Loop(); i++ {
			for j := range kinds {
				k := (i + j) % len(kinds)
				p := kinds[k].pod()
				start := time.Now()
				kinds[k].w.must(kinds[k].w.Create(ctx, p, client.DryRunAll))
				took[k] = append(took[k], time.Since(start))
			}
		}
		for k := range kinds {
			slices.Sort(took[k])
			b.ReportMetric(float64(took[k][len(took[k])/2].Microseconds())/1000, "ms/"+kinds[k].name)
		}
	}
	ready := func(words string) {
		ours.eventually(words, func() error {
			for _, k := range kinds {
				p := k.pod()
				if err := k.w.Create(ctx, p, client.DryRunAll); err != nil {
					return err
				}
				if k.w == ours && strings.HasPrefix(k.name, "class") && len(p.Spec.NodeSelector) != 1 {
					return refusedWith(nil, "a node selector")
				}
			}
			return nil
		})
	}
	ready("policies are in force")
	b.Run("policies", rounds)
	ours.must(ours.Create(ctx, hooks))
	ours.eventually("the webhook is asked", func() error {
		p := pod("pay", "isolated")
		p.Labels["x"], p.Spec.HostNetwork = "y", true
		return refusedWith(ours.Create(ctx, p, client.DryRunAll), "remove hostNetwork")
	})
	ready("the webhook lets pods through")
	b.Run("policies-and-webhook", rounds)
}
