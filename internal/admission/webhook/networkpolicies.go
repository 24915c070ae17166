package webhook

import (
	"context"
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	runtimeadmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/admission/isolation"
)

// policyHandler keeps the NetworkPolicies that isolate pods of classes. It asks the API server, not the cache: policies seldom change, and two of
// them must not go at once because each still sees the other.
type policyHandler struct {
	live    client.Reader
	decoder runtimeadmission.Decoder
}

// Handle refuses a change after which a pod that was isolated is no longer.
func (h *policyHandler) Handle(ctx context.Context, req runtimeadmission.Request) runtimeadmission.Response {
	var after *netv1.NetworkPolicy
	if req.Operation != admissionv1.Delete {
		after = &netv1.NetworkPolicy{}
		if err := h.decoder.Decode(req, after); err != nil {
			return runtimeadmission.Denied("the NetworkPolicy cannot be read: " + err.Error())
		}
	}
	if err := h.check(ctx, req.Namespace, req.Name, after); err != nil {
		return runtimeadmission.Denied(err.Error())
	}
	return runtimeadmission.Allowed("")
}

// check holds the pods of a namespace against its policies, of which the one with this name becomes after, or goes when that is nil. A policy without a
// name is a new one, whose name the API server makes later.
func (h *policyHandler) check(ctx context.Context, namespace, name string, after *netv1.NetworkPolicy) error {
	var ns corev1.Namespace
	if err := h.live.Get(ctx, client.ObjectKey{Name: namespace}, &ns); err != nil {
		return fmt.Errorf("namespace %s cannot be read: %w", namespace, err)
	}
	if !ns.DeletionTimestamp.IsZero() {
		return nil
	}
	var pods corev1.PodList
	if err := h.live.List(ctx, &pods, client.InNamespace(namespace), client.HasLabels{v1alpha1.ClassLabel}); err != nil {
		return fmt.Errorf("pods of namespace %s cannot be read: %w", namespace, err)
	}
	running := slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	if len(running) == 0 {
		return nil
	}
	var list netv1.NetworkPolicyList
	if err := h.live.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return fmt.Errorf("NetworkPolicies of namespace %s cannot be read: %w", namespace, err)
	}
	had := list.Items
	has := slices.DeleteFunc(slices.Clone(had), func(p netv1.NetworkPolicy) bool { return p.Name == name })
	if after != nil {
		has = append(has, *after)
	}
	for i := range running {
		p := &running[i]
		if isolation.Missing(p.Labels, had) != "" {
			continue
		}
		if missing := isolation.Missing(p.Labels, has); missing != "" {
			needs, err := h.needs(ctx, p.Labels[v1alpha1.ClassLabel])
			if err != nil {
				return err
			}
			if needs {
				return fmt.Errorf("pod %s of trust class %s must stay isolated by NetworkPolicies, and would not be: %s. Delete such pods first, or let other policies do it",
					p.Name, p.Labels[v1alpha1.ClassLabel], missing)
			}
		}
	}
	return nil
}

// needs tells whether pods of a class must be isolated.
func (h *policyHandler) needs(ctx context.Context, class string) (bool, error) {
	c := &v1alpha1.TrustClass{}
	switch err := h.live.Get(ctx, client.ObjectKey{Name: class}, c); {
	case apierrors.IsNotFound(err):
		return true, nil // whoever knows no class of that name is careful
	case err != nil:
		return false, fmt.Errorf("TrustClass %q cannot be read: %w", class, err)
	}
	return c.Spec.Network.Isolation != v1alpha1.None, nil
}
