package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/result"
)

// class makes a TrustClass.
func (w *world) class(name string, grace time.Duration, change ...func(*v1alpha1.TrustClassSpec)) {
	w.t.Helper()
	tc := &v1alpha1.TrustClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
	tc.Spec.Eviction.Grace = &metav1.Duration{Duration: grace}
	tc.Spec.Network.Isolation = v1alpha1.None
	for _, f := range change {
		f(&tc.Spec)
	}
	if err := w.Create(context.Background(), tc); err != nil {
		w.t.Fatal(err)
	}
}

// pod makes a pod that is bound to a node. There is no kubelet: it stays until it is deleted without grace.
func (w *world) pod(name, node, class string, change ...func(*corev1.Pod)) {
	w.t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	p.Spec = corev1.PodSpec{NodeName: node, ServiceAccountName: "default", Containers: []corev1.Container{{Name: "c", Image: "i"}}, TerminationGracePeriodSeconds: new(int64)}
	*p.Spec.TerminationGracePeriodSeconds = 1
	p.Spec.AutomountServiceAccountToken = new(bool)
	p.Labels = map[string]string{"app": name}
	if class != "" {
		p.Labels[v1alpha1.ClassLabel] = class
	}
	for _, f := range change {
		f(p)
	}
	if err := w.Create(context.Background(), p); err != nil {
		w.t.Fatal(err)
	}
	p.Status.Phase = corev1.PodRunning // budgets do not guard what does not run yet
	if err := w.Status().Update(context.Background(), p); client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
		w.t.Fatal(err)
	}
}

// account makes the service account that the pods of the namespace have.
func (w *world) account() {
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "default"}}
	if err := w.Create(context.Background(), sa); err != nil && !apierrors.IsAlreadyExists(err) {
		w.t.Fatal(err)
	}
}

// has says whether a pod is there, and whether it is on its way out.
func (w *world) has(name string) (there, leaving bool) {
	w.t.Helper()
	p := &corev1.Pod{}
	err := w.Get(context.Background(), types.NamespacedName{Namespace: "default", Name: name}, p)
	if client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
	return err == nil, p.DeletionTimestamp != nil
}

func (w *world) gone(name string) time.Duration {
	w.t.Helper()
	return w.eventually("pod "+name+" is gone", func() bool { there, _ := w.has(name); return !there })
}

func (w *world) budget(name string) {
	w.t.Helper()
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	one := intstr.FromInt32(1)
	b.Spec = policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}}
	if err := w.Create(context.Background(), b); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = w.Delete(context.Background(), b) })
}

// TestEviction: pods of a class leave a node that falls, within the grace, whatever refuses; others are not touched.
func TestEviction(t *testing.T) {
	w := newWorld(t)
	w.account()
	w.class("regulated", 3*time.Second)
	w.class("at-once", 0)
	w.class("stays", 0, func(s *v1alpha1.TrustClassSpec) { s.Eviction.OnFall = v1alpha1.Stay })
	w.node("w1")
	w.aias.say(w.aias.trusted("w1"))
	w.run()
	w.isTrusted("w1", true)
	w.pod("ordinary", "w1", "")
	w.pod("sensitive", "w1", "regulated")
	w.pod("guarded", "w1", "regulated")
	w.budget("guarded")
	w.pod("hurried", "w1", "at-once")
	w.pod("loyal", "w1", "stays")
	w.pod("stripped", "w1", "", func(p *corev1.Pod) {
		p.Spec.NodeSelector = map[string]string{v1alpha1.ClassNodeLabelPrefix + "at-once": "true"}
	})
	w.pod("static", "w1", "regulated", func(p *corev1.Pod) {
		p.Annotations, p.Spec.ServiceAccountName = map[string]string{corev1.MirrorPodAnnotationKey: "x"}, ""
	})
	time.Sleep(time.Second)
	for _, name := range []string{"ordinary", "sensitive", "guarded", "hurried", "loyal", "stripped"} {
		if there, leaving := w.has(name); !there || leaving {
			t.Fatalf("pod %s on a trusted node: there %v, leaving %v", name, there, leaving)
		}
	}
	start := time.Now()
	w.aias.say(w.aias.trusted("w1", fallen(5, "miner")))
	t.Logf("class with grace 0: gone after %s", w.gone("hurried").Round(time.Millisecond))
	w.gone("stripped")
	leaving := w.eventually("the eviction is asked for", func() bool { there, leaving := w.has("sensitive"); return !there || leaving })
	t.Logf("from the verdict to the eviction: %s", leaving.Round(time.Millisecond))
	if there, leaving := w.has("guarded"); !there || leaving {
		t.Errorf("pod whose budget refuses, before its grace is over: there %v, leaving %v", there, leaving)
	}
	w.gone("guarded")
	if took := time.Since(start); took < 2*time.Second {
		t.Errorf("pod whose budget refuses is gone after %s, want its grace of 3 s to be over", took)
	}
	w.gone("sensitive")
	for _, name := range []string{"ordinary", "loyal", "static"} {
		if there, leaving := w.has(name); !there || leaving {
			t.Errorf("pod %s: there %v, leaving %v, want it left alone", name, there, leaving)
		}
	}
	for _, want := range []struct{ kind, name, reason, note string }{
		{"Pod", "guarded", "EvictionRefused", "level 5 is fail (miner)"}, {"Pod", "guarded", "TrustLost", "deleted"}, {"Node", "w1", "StaticPodStays", "static"}, {"Node", "w1", "Untrusted", "miner"},
	} {
		w.event(want.kind, want.name, want.reason, want.note)
	}
}

// event waits for an event.
func (w *world) event(kind, name, reason, note string) {
	w.t.Helper()
	w.eventually("event "+reason+" of "+name, func() bool {
		var list eventsv1.EventList
		if err := w.List(context.Background(), &list); err != nil {
			w.t.Fatal(err)
		}
		for _, e := range list.Items {
			if e.Regarding.Kind == kind && e.Regarding.Name == name && e.Reason == reason && strings.Contains(e.Note, note) {
				return true
			}
		}
		return false
	})
}

// TestEvictionOfBypass: a pod that got to a node that never met its class leaves it; so does one whose node lost only a tag; the class of the namespace counts, too.
func TestEvictionOfBypass(t *testing.T) {
	w := newWorld(t)
	w.account()
	w.class("regulated", 0)
	w.class("german", 0, func(s *v1alpha1.TrustClassSpec) { s.Tags = map[string]v1alpha1.TagValues{"country": {"de"}} })
	w.run()
	w.node("never")
	w.isTrusted("never", false)
	w.pod("smuggled", "never", "regulated")
	w.gone("smuggled")

	german := func(country string) func(*result.Result) {
		return func(r *result.Result) { r.Tags = map[string]string{"country": country} }
	}
	w.node("w1")
	w.aias.say(w.aias.trusted("w1", german("de")))
	w.isTrusted("w1", true)
	w.pod("tagged", "w1", "german")
	w.pod("other", "w1", "regulated")
	w.never("a pod leaves a node that meets its class", 500*time.Millisecond, func() bool { there, _ := w.has("tagged"); return !there })
	w.aias.say(w.aias.trusted("w1", german("fr")))
	w.gone("tagged")
	if there, leaving := w.has("other"); !there || leaving {
		t.Error("a pod of a class that needs no tag left")
	}
	w.pod("plain", "w1", "")
	ns := &corev1.Namespace{}
	if err := w.Get(context.Background(), types.NamespacedName{Name: "default"}, ns); err != nil {
		t.Fatal(err)
	}
	label := func(value string) {
		if err := w.Patch(context.Background(), ns, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"`+v1alpha1.ClassLabel+`":`+value+`}}}`))); err != nil {
			t.Fatal(err)
		}
	}
	defer label("null")
	label(`"german"`)
	w.gone("plain")
}

// TestRestartInGrace: a controller that starts while pods have grace left goes on where the last one stopped.
func TestRestartInGrace(t *testing.T) {
	w := newWorld(t)
	w.account()
	w.class("regulated", 5*time.Second)
	w.node("w1")
	w.aias.say(w.aias.trusted("w1"))
	stop := w.run()
	w.isTrusted("w1", true)
	w.pod("guarded", "w1", "regulated")
	w.budget("guarded")
	time.Sleep(1500 * time.Millisecond)
	start := time.Now()
	w.aias.say(w.aias.trusted("w1", fallen(5, "miner")))
	w.isTrusted("w1", false)
	time.Sleep(2 * time.Second)
	stop()
	w.run()
	w.gone("guarded")
	if took := time.Since(start); took < 4*time.Second {
		t.Errorf("gone after %s, want its grace of 5 s to be over", took)
	}
}
