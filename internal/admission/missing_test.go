package admission

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	arv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/kubetest"
)

// TestMissing: whatever is missing refuses pods with a class, and nothing else: kubelets go on with their pods.
func TestMissing(t *testing.T) {
	w := connect(t, kubetest.StartOwn(t))
	w.must(apiextensionsv1.AddToScheme(w.scheme))
	w.install()
	plain, classy := w.namespace(nil), w.namespace(map[string]string{v1alpha1.ClassLabel: "regulated"})
	running := pod(plain, nil)
	w.must(w.as(alice).Create(ctx, running))

	// closed waits until pods with a class are refused, and looks at all that must go on.
	closed := func(what string) {
		t.Helper()
		w.eventually(what, func() error {
			unlabelled := pod(classy, func(p *corev1.Pod) { p.Labels = nil })
			if w.as(alice).Create(ctx, pod(plain, nil)) == nil || w.as(alice).Create(ctx, unlabelled) == nil {
				return errors.New("a pod with a class is accepted")
			}
			return nil
		})
		w.accepted(what+": a pod without a class", w.as(alice).Create(ctx, pod(plain, func(p *corev1.Pod) { p.Labels = nil })))
		w.must(w.as(admin).Get(ctx, client.ObjectKeyFromObject(running), running))
		running.Status.Message = what
		w.accepted(what+": status of a running pod", w.as(admin).Status().Update(ctx, running))
	}
	open := func() {
		t.Helper()
		w.eventually("open again", func() error { return w.as(alice).Create(ctx, pod(plain, nil)) })
	}

	table := Table(classes())
	w.must(w.as(options.Controller()).Delete(ctx, table))
	closed("no table")
	w.must(w.as(options.Controller()).Create(ctx, Table(classes())))
	open()

	for _, name := range []string{"class-of-pods" + suffix, "class-of-namespaces" + suffix} {
		for _, o := range []client.Object{&arv1.MutatingAdmissionPolicyBinding{}, &arv1.MutatingAdmissionPolicy{}} {
			w.must(w.as(admin).Get(ctx, client.ObjectKey{Name: name}, o))
			w.must(w.as(admin).Delete(ctx, o))
			what := name + " without its policy or binding"
			w.eventually(what, func() error {
				ns, p := plain, pod(plain, nil)
				if name != "class-of-pods"+suffix {
					ns, p = classy, pod(classy, func(p *corev1.Pod) { p.Labels = nil })
				}
				if w.as(alice).Create(ctx, p) == nil {
					return errors.New("accepted in " + ns)
				}
				return nil
			})
			o.SetResourceVersion("")
			w.must(w.as(admin).Create(ctx, o))
			open()
		}
	}

	// Somebody's webhook sets pull policies back after ours.
	weakened := &arv1.MutatingAdmissionPolicy{}
	w.must(w.as(admin).Get(ctx, client.ObjectKey{Name: "class-of-pods" + suffix}, weakened))
	for i := range weakened.Spec.Mutations {
		patch := weakened.Spec.Mutations[i].JSONPatch
		before, _, found := strings.Cut(patch.Expression, expression(pullPatch))
		if !found {
			t.Fatalf("no pull policies in %s", patch.Expression)
		}
		patch.Expression = before
	}
	w.must(w.as(admin).Update(ctx, weakened))
	w.eventually("without pull policies", func() error {
		if err := w.as(alice).Create(ctx, withSealed(plain, corev1.PullIfNotPresent)); err == nil || !strings.Contains(err.Error(), "imagePullPolicy must be Always") {
			return fmt.Errorf("a pod that does not pull: %w", err)
		}
		return nil
	})
	w.accepted("a pod that pulls", w.as(alice).Create(ctx, withSealed(plain, corev1.PullAlways)))

	crd := &apiextensionsv1.CustomResourceDefinition{}
	w.must(w.as(admin).Get(ctx, client.ObjectKey{Name: "trustadmissions.touchstone.dev"}, crd))
	w.must(w.as(admin).Delete(ctx, crd))
	closed("no CRD")
}
