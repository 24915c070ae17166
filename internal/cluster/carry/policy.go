// Package carry brings to AIAS what administrators say in the cluster: the TrustPolicy by which it appraises, and the asset tags of nodes.
package carry

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/protocol"
)

// Times.
const (
	askTime   = 30 * time.Second // for one request to AIAS
	againSoon = 10 * time.Second // when AIAS could not be asked
	againOnce = 10 * time.Minute // to see that AIAS still has it
)

// Outcomes, for metrics.
const (
	PolicyTaken   = "policy taken"
	PolicyRefused = "policy refused"
	TagsTaken     = "tags taken"
	TagsRefused   = "tags refused"
)

// PolicyStore is the part of AIAS that keeps the policy, as an operator.Client is.
type PolicyStore interface {
	Policy(ctx context.Context) ([]byte, error)
	SetPolicy(ctx context.Context, yaml []byte) (*protocol.Snapshot, error)
}

// Policies carries the TrustPolicy named "default".
type Policies struct {
	Client client.Client
	AIAS   PolicyStore
	Events events.EventRecorder
	Log    *slog.Logger
	Count  func(outcome string)
}

// Reconcile carries one TrustPolicy, or says that it does not count.
func (r *Policies) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var tp v1alpha1.TrustPolicy
	if err := r.Client.Get(ctx, req.NamespacedName, &tp); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err) // AIAS keeps what it has: a policy that is deleted does not switch appraisal off
	}
	accepted := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return metav1.Condition{Type: v1alpha1.ConditionAccepted, Status: status, Reason: reason, Message: bounded(message), ObservedGeneration: tp.Generation}
	}
	if tp.Name != v1alpha1.PolicyName {
		return ctrl.Result{}, r.write(ctx, &tp, "", accepted(metav1.ConditionFalse, "OtherName", "only the TrustPolicy named "+v1alpha1.PolicyName+" counts"))
	}
	doc, parsed, err := document(&tp)
	if err != nil {
		return ctrl.Result{}, r.write(ctx, &tp, "", accepted(metav1.ConditionFalse, "Invalid", err.Error()))
	}
	ctxAIAS, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	switch err := r.bring(ctxAIAS, &tp, doc, parsed); {
	case err == nil:
		return ctrl.Result{RequeueAfter: againOnce}, r.write(ctx, &tp, parsed.ID(), accepted(metav1.ConditionTrue, "InForce", "AIAS appraises by it"))
	case refusal(err):
		r.Count(PolicyRefused)
		r.Events.Eventf(&tp, nil, corev1.EventTypeWarning, "PolicyRefused", "Carry", "AIAS refuses it: %v", err)
		return ctrl.Result{RequeueAfter: againOnce}, r.write(ctx, &tp, "", accepted(metav1.ConditionFalse, "Refused", "AIAS refuses it: "+err.Error()))
	default:
		return ctrl.Result{RequeueAfter: againSoon}, r.write(ctx, &tp, tp.Status.Policy, accepted(metav1.ConditionUnknown, "NotCarried", "AIAS could not be asked: "+err.Error()))
	}
}

// bring gives AIAS the policy, unless that is what it has.
func (r *Policies) bring(ctx context.Context, tp *v1alpha1.TrustPolicy, doc []byte, want *policy.Policy) error {
	have, err := r.AIAS.Policy(ctx)
	if err != nil {
		return err
	}
	if p, err := policy.Parse(have); err == nil && p.ID() == want.ID() {
		return nil
	}
	snapshot, err := r.AIAS.SetPolicy(ctx, doc)
	if err != nil {
		return err
	}
	r.Count(PolicyTaken)
	r.Log.Info("AIAS appraises by the TrustPolicy", "policy", want.ID(), "snapshot", snapshot.ID, "nodes_to_judge_again", snapshot.Pending, "warnings", snapshot.Warnings)
	r.Events.Eventf(tp, nil, corev1.EventTypeNormal, "PolicyInForce", "Carry", "AIAS appraises by it from now on; %d nodes are judged again", snapshot.Pending)
	return nil
}

// document is the policy as AIAS reads it, and what it says.
func document(tp *v1alpha1.TrustPolicy) ([]byte, *policy.Policy, error) {
	spec := json.RawMessage(tp.Spec.Raw)
	if len(spec) == 0 {
		spec = json.RawMessage("{}")
	}
	doc, err := yaml.Marshal(map[string]any{
		"apiVersion": policy.APIVersion, "kind": policy.Kind, "metadata": map[string]string{"name": tp.Name}, "spec": spec,
	})
	if err != nil {
		return nil, nil, err
	}
	p, err := policy.Parse(doc)
	return doc, p, err
}

// refusal says whether AIAS answered that it does not want it: asking again changes nothing.
func refusal(err error) bool {
	var p *protocol.Problem
	return errors.As(err, &p) && p.Status >= 400 && p.Status < 500
}

// write sets the condition when it says something new.
func (r *Policies) write(ctx context.Context, tp *v1alpha1.TrustPolicy, id string, c metav1.Condition) error {
	before := tp.DeepCopy()
	changed := meta.SetStatusCondition(&tp.Status.Conditions, c)
	if !changed && tp.Status.Policy == id {
		return nil
	}
	tp.Status.Policy = id
	return r.Client.Status().Patch(ctx, tp, client.MergeFrom(before))
}

func bounded(s string) string {
	const most = 1024
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}
