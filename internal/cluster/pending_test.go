package cluster

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// TestPending: a pod that the scheduler finds no node for is told what the nodes lack, and told anew when that changes.
func TestPending(t *testing.T) {
	w := newWorld(t)
	w.account()
	w.class("german", 0, func(s *v1alpha1.TrustClassSpec) { s.Tags = map[string]v1alpha1.TagValues{"country": {"de"}} })
	w.node("w1")
	w.aias.say(w.aias.trusted("w1"))
	w.run()
	w.isTrusted("w1", true)
	wait := func(name string) {
		w.pod(name, "", "german", func(p *corev1.Pod) {
			p.Spec.NodeSelector = map[string]string{v1alpha1.ClassNodeLabelPrefix + "german": "true"} // as the mutating policy does
		})
		p := &corev1.Pod{}
		if err := w.Get(context.Background(), client.ObjectKey{Namespace: "default", Name: name}, p); err != nil {
			t.Fatal(err)
		}
		p.Status.Phase = corev1.PodPending
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable}} // as the scheduler does
		if err := w.Status().Update(context.Background(), p); err != nil {
			t.Fatal(err)
		}
	}
	wait("waiting")
	w.event("Pod", "waiting", "NoTrustedNode", "no node meets trust class german. w1: tag country is not proven, want de")
	w.aias.say(w.aias.trusted("w1", fallen(5, "miner")))
	w.isTrusted("w1", false)
	wait("later")
	w.event("Pod", "later", "NoTrustedNode", "w1: level 5 is fail (miner), tag country is not proven, want de")
}
