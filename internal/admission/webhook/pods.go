package webhook

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	runtimeadmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/admission/isolation"
)

const retry = 100 * time.Millisecond

// pods decides on pods of classes.
type pods struct {
	client    client.Client
	live      client.Reader
	installed *installed
	images    Images
	// pullSecrets: the secrets that pods pull with are read.
	pullSecrets bool
	compliance  Compliance
	log         *slog.Logger
}

type podHandler struct {
	pods    *pods
	decoder runtimeadmission.Decoder
}

// Handle answers for a pod that is made, or gets ephemeral containers.
func (h *podHandler) Handle(ctx context.Context, req runtimeadmission.Request) runtimeadmission.Response {
	pod := &corev1.Pod{}
	if err := h.decoder.Decode(req, pod); err != nil {
		return runtimeadmission.Denied("the pod cannot be read: " + err.Error())
	}
	if err := h.pods.check(ctx, req.Namespace, pod, req.Operation); err != nil {
		h.pods.log.Info("webhook: pod refused", "namespace", req.Namespace, "pod", pod.Name, "user", req.UserInfo.Username, "reason", err)
		return runtimeadmission.Denied(err.Error())
	}
	return runtimeadmission.Allowed("")
}

// check returns nil when the pod may be.
func (p *pods) check(ctx context.Context, namespace string, pod *corev1.Pod, operation admissionv1.Operation) error {
	if problem := p.installed.problem(ctx); problem != nil {
		return fmt.Errorf("pods with a trust class are refused while admission is not complete: %w", problem)
	}
	name := pod.Labels[v1alpha1.ClassLabel]
	class, err := p.class(ctx, p.client, name)
	if err != nil { // or the cache is behind
		class, err = p.class(ctx, p.live, name)
	}
	if err != nil {
		return err
	}
	if operation == admissionv1.Create && class.Spec.Network.Isolation != v1alpha1.None {
		if err := p.isolated(ctx, namespace, pod, name); err != nil {
			return err
		}
	}
	return p.imagesOf(ctx, &class.Spec.Images, namespace, pod, name)
}

// class returns a class that the policies in the API server know as it is.
func (p *pods) class(ctx context.Context, from client.Reader, name string) (*v1alpha1.TrustClass, error) {
	class, table := &v1alpha1.TrustClass{}, &v1alpha1.TrustAdmission{}
	if err := from.Get(ctx, client.ObjectKey{Name: name}, class); apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is no TrustClass %q", name)
	} else if err != nil {
		return nil, fmt.Errorf("TrustClass %q cannot be read: %w", name, err)
	}
	if err := from.Get(ctx, client.ObjectKey{Name: v1alpha1.AdmissionName}, table); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("TrustAdmission %s cannot be read: %w", v1alpha1.AdmissionName, err)
	}
	if problem := tableProblem(table, class); problem != nil {
		return nil, fmt.Errorf("trust class %s: %w", name, problem)
	}
	return class, nil
}

// isolated demands NetworkPolicies. The API server is asked, not the cache: a policy that was deleted a moment ago isolates nothing.
func (p *pods) isolated(ctx context.Context, namespace string, pod *corev1.Pod, class string) error {
	var list netv1.NetworkPolicyList
	if err := p.live.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return fmt.Errorf("NetworkPolicies of namespace %s cannot be read: %w", namespace, err)
	}
	if pod.Spec.HostNetwork {
		return fmt.Errorf("trust class %s wants the pod isolated, and NetworkPolicies do not hold in the network of the node: remove hostNetwork", class)
	}
	missing := isolation.Missing(pod.Labels, list.Items)
	if missing == "" {
		return nil
	}
	manifest, err := isolation.Manifest(isolation.ClassPolicy(namespace, class))
	if err != nil {
		return err
	}
	return fmt.Errorf("trust class %s wants the pod isolated by NetworkPolicies: %s; apply this one, or write your own:\n%s", class, missing, manifest)
}

// unlabelled refuses pods that have no class in a namespace that has one.
type unlabelled struct{}

// Handle refuses.
func (unlabelled) Handle(context.Context, runtimeadmission.Request) runtimeadmission.Response {
	return runtimeadmission.Denied("the namespace has a trust class and the pod has none: the admission policies class-of-namespaces.touchstone.dev and " +
		"pods-of-namespaces.touchstone.dev are missing; install the chart of Touchstone again")
}
