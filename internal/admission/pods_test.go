package admission

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// TestClassBecomesPlacement: the label, or the namespace's, becomes node selector and a toleration that ends.
func TestClassBecomesPlacement(t *testing.T) {
	w := newWorld(t)
	plain, classy := w.namespace(nil), w.namespace(map[string]string{v1alpha1.ClassLabel: "regulated"})
	tests := []struct {
		name   string
		ns     string
		change func(*corev1.Pod)
	}{
		{"named by the pod", plain, nil},
		{"with other labels, selectors and tolerations", plain, func(p *corev1.Pod) {
			p.Labels["app"] = "x"
			p.Spec.NodeSelector = map[string]string{"disk": "fast"}
			p.Spec.Tolerations = []corev1.Toleration{{Key: "gpu", Operator: corev1.TolerationOpExists}}
		}},
		{"given by the namespace, pod without labels", classy, func(p *corev1.Pod) { p.Labels = nil }},
		{"given by the namespace, pod with labels", classy, func(p *corev1.Pod) { p.Labels = map[string]string{"app": "x"} }},
		{"named by both", classy, nil},
	}
	for _, tt := range tests {
		p := pod(tt.ns, tt.change)
		if err := w.as(alice).Create(ctx, p); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := p.Labels[v1alpha1.ClassLabel]; got != "regulated" {
			t.Errorf("%s: class label %q, want regulated", tt.name, got)
		}
		if got := p.Spec.NodeSelector[v1alpha1.ClassNodeLabelPrefix+"regulated"]; got != "true" {
			t.Errorf("%s: node selector %v, want the class's label", tt.name, p.Spec.NodeSelector)
		}
		var found []corev1.Toleration
		for _, tol := range p.Spec.Tolerations {
			if tol.Key == v1alpha1.UntrustedTaint {
				found = append(found, tol)
			}
		}
		if len(found) != 1 || found[0].Effect != corev1.TaintEffectNoExecute || found[0].TolerationSeconds == nil || *found[0].TolerationSeconds != 30 {
			t.Errorf("%s: tolerations of our taint %+v, want NoExecute for 30 s", tt.name, found)
		}
	}
	for name, change := range map[string]func(*corev1.Pod){
		"class of some levels": func(*corev1.Pod) {},
		"class of some levels, with tolerations": func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Key: "gpu", Operator: corev1.TolerationOpExists}}
		},
		"class of some levels, one toleration brought along": func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Key: v1alpha1.UntrustedTaint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}
		},
	} {
		p := pod(plain, func(p *corev1.Pod) { p.Labels[v1alpha1.ClassLabel] = "partial"; change(p) })
		if err := w.as(alice).Create(ctx, p); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		const want = ":NoSchedule 4:NoExecute 5:NoExecute 4-5:NoExecute :NoExecute:30" // in this order: the first that fits counts
		if got := ourTolerations(p.Spec.Tolerations); got != want {
			t.Errorf("%s: tolerations of our taint %q, want %q", name, got, want)
		}
	}
	p := pod(plain, func(p *corev1.Pod) { p.Labels = nil; p.Spec.Containers[0].Image = "anything" })
	w.must(w.as(mallory).Create(ctx, p))
	if p.Spec.NodeSelector != nil || p.Labels != nil {
		t.Errorf("a pod without a class is changed: %v %v", p.Spec.NodeSelector, p.Labels)
	}
}

// ourTolerations are those of our taint, each as VALUE:EFFECT and its seconds, in their order.
func ourTolerations(all []corev1.Toleration) string {
	var out []string
	for _, tol := range all {
		if tol.Key != v1alpha1.UntrustedTaint {
			continue
		}
		text := tol.Value + ":" + string(tol.Effect)
		if tol.TolerationSeconds != nil {
			text += fmt.Sprintf(":%d", *tol.TolerationSeconds)
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}
