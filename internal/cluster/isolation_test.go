package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

var bothWays = []netv1.PolicyType{netv1.PolicyTypeIngress, netv1.PolicyTypeEgress}

// isolate makes a NetworkPolicy for pods with a label app: one that lets nothing through, unless it is changed.
func (w *world) isolate(name, app string, change ...func(*netv1.NetworkPolicySpec)) {
	w.t.Helper()
	ctx := context.Background()
	p := &netv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	p.Spec = netv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}, PolicyTypes: bothWays}
	for _, f := range change {
		f(&p.Spec)
	}
	if err := w.Create(ctx, p); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = w.Delete(ctx, &netv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}})
	})
}

// expose deletes a NetworkPolicy.
func (w *world) expose(name string) {
	w.t.Helper()
	if err := w.Delete(context.Background(), &netv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}); err != nil {
		w.t.Fatal(err)
	}
}

// podIsolated is the condition of a pod: True, False or "" when it has none.
func (w *world) podIsolated(name string) string {
	w.t.Helper()
	p := &corev1.Pod{}
	if err := w.Get(context.Background(), types.NamespacedName{Namespace: "default", Name: name}, p); client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
	for _, c := range p.Status.Conditions {
		if c.Type == v1alpha1.IsolatedCondition {
			return string(c.Status)
		}
	}
	return ""
}

// classIsolated waits for the condition of a class.
func (w *world) classIsolated(name string, want metav1.ConditionStatus, words string) {
	w.t.Helper()
	w.eventually("class "+name+" is isolated: "+string(want), func() bool {
		tc := &v1alpha1.TrustClass{}
		if err := w.Get(context.Background(), types.NamespacedName{Name: name}, tc); err != nil {
			w.t.Fatal(err)
		}
		c := meta.FindStatusCondition(tc.Status.Conditions, v1alpha1.ConditionIsolated)
		return c != nil && c.Status == want && strings.Contains(c.Message, words)
	})
}

func required(s *v1alpha1.TrustClassSpec) { s.Network.Isolation = v1alpha1.Required }

// TestIsolationLost: a pod that nothing isolates any more is told so and leaves within the grace, or is only told, as its class says.
func TestIsolationLost(t *testing.T) {
	w := newWorld(t)
	w.account()
	w.class("leaves", 3*time.Second, required)
	w.class("reports", 0, required, func(s *v1alpha1.TrustClassSpec) { s.Network.OnLoss = v1alpha1.Report })
	w.class("open", 0)
	w.node("w1")
	w.aias.say(w.aias.trusted("w1"))
	w.run()
	w.isTrusted("w1", true)
	all := map[string]string{"deleted": "leaves", "opened": "leaves", "relabelled": "leaves", "told": "reports", "free": "open", "quiet": "leaves"}
	for name, class := range all {
		if class != "open" {
			w.isolate(name, name)
		}
		w.pod(name, "w1", class)
	}
	w.classIsolated("leaves", metav1.ConditionTrue, "")
	w.classIsolated("open", metav1.ConditionTrue, "wants no isolation")
	w.never("a pod that is isolated is marked, or leaves", 2*time.Second, func() bool {
		for name := range all {
			if there, leaving := w.has(name); !there || leaving || w.podIsolated(name) != "" {
				return true
			}
		}
		return false
	})

	w.budget("deleted")
	start := time.Now()
	w.expose("deleted")
	w.isolate("beside", "opened", func(s *netv1.NetworkPolicySpec) { s.Egress = []netv1.NetworkPolicyEgressRule{{}} })
	relabelled := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "relabelled", Namespace: "default"}}
	if err := w.Patch(context.Background(), relabelled, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"app":"other"}}}`))); err != nil {
		t.Fatal(err)
	}
	w.expose("told")
	told := w.eventually("the pod is told", func() bool { return w.podIsolated("deleted") == "False" })
	t.Logf("from the deletion of the policy to the pod's condition: %s", told.Round(time.Millisecond))
	w.classIsolated("leaves", metav1.ConditionFalse, "default/deleted (no NetworkPolicy selects it for ingress, no NetworkPolicy selects it for egress)")
	w.classIsolated("reports", metav1.ConditionFalse, "1 running pods are not isolated: default/told")
	w.eventually("the eviction is asked for", func() bool { there, leaving := w.has("opened"); return !there || leaving })
	w.isolate("stir", "nobody") // the namespace is looked at again while pods are on their way out, and no kubelet lets them go
	w.gone("opened")
	w.gone("relabelled")
	w.gone("deleted")
	if took := time.Since(start); took < 2*time.Second {
		t.Errorf("pod whose budget refuses is gone after %s, want its grace of 3 s to be over", took)
	}
	for _, want := range []struct{ name, reason, note string }{
		{"deleted", "NotIsolated", "it is evicted. A policy that isolates it: touchstone netpol pod/deleted --namespace default"}, {"opened", "NotIsolated", "beside allows all egress"},
		{"told", "NotIsolated", "it stays"}, {"deleted", "IsolationLost", "deleted, its grace of 3s is over: class leaves wants the pod isolated"},
	} {
		w.event("Pod", want.name, want.reason, want.note)
	}
	w.classIsolated("leaves", metav1.ConditionTrue, "")
	for _, name := range []string{"told", "free", "quiet"} {
		if there, leaving := w.has(name); !there || leaving {
			t.Errorf("pod %s: there %v, leaving %v, want it left alone", name, there, leaving)
		}
	}
	w.isolate("told-again", "told")
	w.eventually("the pod is isolated again", func() bool { return w.podIsolated("told") == "True" })
	w.classIsolated("reports", metav1.ConditionTrue, "")
	w.event("Pod", "told", "Isolated", "again")
}

// TestExposedInGrace: a controller that starts while exposed pods have grace left goes on where the last one stopped; a class that changes its mind is obeyed.
func TestExposedInGrace(t *testing.T) {
	w := newWorld(t)
	w.account()
	w.class("leaves", 5*time.Second, required)
	w.class("reports", 0, required, func(s *v1alpha1.TrustClassSpec) { s.Network.OnLoss = v1alpha1.Report })
	w.node("w1")
	w.aias.say(w.aias.trusted("w1"))
	stop := w.run()
	w.isTrusted("w1", true)
	w.isolate("guarded", "guarded")
	w.pod("guarded", "w1", "leaves")
	w.budget("guarded")
	w.pod("told", "w1", "reports")
	w.eventually("the pod that never was isolated is told", func() bool { return w.podIsolated("told") == "False" })
	time.Sleep(1500 * time.Millisecond)
	start := time.Now()
	w.expose("guarded")
	w.eventually("told", func() bool { return w.podIsolated("guarded") == "False" })
	time.Sleep(2 * time.Second)
	stop()
	w.run()
	w.gone("guarded")
	if took := time.Since(start); took < 4*time.Second {
		t.Errorf("gone after %s, want its grace of 5 s to be over", took)
	}
	if there, leaving := w.has("told"); !there || leaving {
		t.Fatalf("pod of a class that only reports: there %v, leaving %v", there, leaving)
	}
	tc := &v1alpha1.TrustClass{ObjectMeta: metav1.ObjectMeta{Name: "reports"}}
	if err := w.Patch(context.Background(), tc, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"network":{"onLoss":"Evict"}}}`))); err != nil {
		t.Fatal(err)
	}
	w.gone("told")
}
