package exposure

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// condition is ours of a pod; nil when it has none.
func condition(p *corev1.Pod) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == v1alpha1.IsolatedCondition {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// marked tells whether a pod was found exposed before.
func marked(p *corev1.Pod) bool {
	c := condition(p)
	return c != nil && c.Status != corev1.ConditionTrue
}

// mark writes on a pod what keeps it from being isolated, or that it is again, and returns since when that is so. A pod that was never exposed is not written to.
func (r *Reconciler) mark(ctx context.Context, p *corev1.Pod, d demand, missing string) (time.Time, error) {
	now := r.Now().Truncate(time.Second)
	have := condition(p)
	want := corev1.PodCondition{Type: v1alpha1.IsolatedCondition, Status: corev1.ConditionTrue, Reason: "Isolated", LastTransitionTime: metav1.NewTime(now)}
	if missing != "" {
		want.Status, want.Reason = corev1.ConditionFalse, "NotIsolated"
		want.Message = fmt.Sprintf("trust class %s wants the pod isolated by NetworkPolicies: %s", d.String(), missing)
	}
	turned := marked(p) != (missing != "")
	if !turned {
		if have == nil {
			return now, nil
		}
		if !have.LastTransitionTime.After(now) { // a time that others moved ahead prolongs nothing
			want.LastTransitionTime = have.LastTransitionTime
		}
		if have.Message == want.Message && have.LastTransitionTime.Equal(&want.LastTransitionTime) {
			return want.LastTransitionTime.Time, nil
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": map[string]any{"conditions": []corev1.PodCondition{want}}})
	if err != nil {
		return now, err
	}
	r.Wrote("pods/status")
	err = r.Client.Status().Patch(ctx, &corev1.Pod{ObjectMeta: p.ObjectMeta}, client.RawPatch(types.StrategicMergePatchType, patch), client.FieldOwner(fieldOwner))
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return now, fmt.Errorf("mark pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	if turned {
		r.tell(p, d, &want)
	}
	return want.LastTransitionTime.Time, nil
}

const fieldOwner = "trust-controller"

func (r *Reconciler) tell(p *corev1.Pod, d demand, c *corev1.PodCondition) {
	if c.Status == corev1.ConditionTrue {
		r.Events.Eventf(p, nil, corev1.EventTypeNormal, "Isolated", "Isolate", "the pod is isolated by NetworkPolicies again, or need not be")
		return
	}
	then := "it stays (network.onLoss: Report)"
	if len(d.leave) > 0 {
		then = "it is evicted"
	}
	r.Events.Eventf(p, nil, corev1.EventTypeWarning, "NotIsolated", "Isolate", "%s; %s. A policy that isolates it: touchstone netpol pod/%s --namespace %s", c.Message, then, p.Name, p.Namespace)
}
