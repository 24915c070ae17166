package admission

import (
	arv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Objects returns everything that enforces trust classes in the API server, in an order that can be applied: roles, mutating policies,
// validating policies, webhook. Each policy stands before its binding, of the same name. O must be valid.
func Objects(o Options) []client.Object {
	o = o.withDefaults()
	role, binding := workloadRole()
	out := []client.Object{role, binding}
	for _, p := range append(podClass(), daemonSets(), daemonSetTolerations(), newNodes()) {
		m, b := p.mutating()
		out = append(out, m, b)
	}
	validating := append(podPolicies(), templatePolicies()...)
	validating = append(validating, bindings(o), namespaces(), nodes(o), written(o))
	for _, p := range validating {
		v, b := p.validating()
		out = append(out, v, b)
	}
	return append(out, webhooks(o))
}

// WebhookName is the name of the ValidatingWebhookConfiguration.
const WebhookName = "touchstone"

// Paths of the webhook.
const (
	PodPath           = "/admit/pods"
	UnlabelledPath    = "/admit/unlabelled"
	NetworkPolicyPath = "/admit/networkpolicies"
)

// webhooks registers what the API server cannot decide by itself.
func webhooks(o Options) *arv1.ValidatingWebhookConfiguration {
	p := policy{name: "webhook", about: "network isolation, signatures, encryption and compliance of images"}
	c := &arv1.ValidatingWebhookConfiguration{ObjectMeta: p.meta()}
	c.SetGroupVersionKind(arv1.SchemeGroupVersion.WithKind("ValidatingWebhookConfiguration"))
	c.Name = WebhookName
	c.Webhooks = []arv1.ValidatingWebhook{
		o.hook("pods", PodPath, policy{object: true, rules: []rule{
			{resources: []string{"pods"}, operations: []arv1.OperationType{arv1.Create}},
			{resources: []string{"pods/ephemeralcontainers"}, operations: []arv1.OperationType{arv1.Update}},
		}}),
		// A pod without the label in a namespace with it: the policies that give and demand it are missing.
		o.hook("unlabelled", UnlabelledPath, policy{namespace: true, rules: []rule{
			{resources: []string{"pods"}, operations: []arv1.OperationType{arv1.Create}},
		}, when: []variable{{"no-class", ownClass + ` == ''`}}}),
		// What isolates running pods of a class is neither taken away nor opened by another policy. The namespace controller may: it ends a namespace with
		// all that is in it. A new policy opens something when a rule of it may be for everybody; others need no controller to be made.
		o.elsewhere(o.hook("networkpolicies", NetworkPolicyPath, policy{rules: []rule{
			{group: "networking.k8s.io", resources: []string{"networkpolicies"}, operations: []arv1.OperationType{arv1.Create, arv1.Update, arv1.Delete}},
		}, when: []variable{
			{"not-namespace-controller", `request.userInfo.username != 'system:serviceaccount:kube-system:namespace-controller'`},
			{"opens", `object == null || (oldObject == null ? ` + opens("ingress", "from") + ` || ` + opens("egress", "to") + ` : object.spec != oldObject.spec)`},
		}})),
	}
	return c
}

// opens is an expression that is true at least when package isolation says that a rule of a new NetworkPolicy allows everything.
func opens(rules, peers string) string {
	return `object.spec.?` + rules + `.orValue([]).exists(r,
		(size(r.?ports.orValue([])) == 0 || r.ports.exists(p, !has(p.port) || has(p.endPort))) &&
		(size(r.?` + peers + `.orValue([])) == 0 || r.` + peers + `.exists(p, has(p.ipBlock) ? p.ipBlock.cidr.matches('/0*[01]$') : has(p.namespaceSelector) &&
			size(p.namespaceSelector.?matchLabels.orValue({})) == 0 && size(p.namespaceSelector.?matchExpressions.orValue([])) == 0)))`
}

// elsewhere keeps a webhook from our own namespace: what repairs it must not wait for it.
func (o Options) elsewhere(h arv1.ValidatingWebhook) arv1.ValidatingWebhook {
	h.NamespaceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: []string{o.Namespace}},
	}}
	return h
}

// webhookTimeout in seconds: a registry may be asked for a signature.
const webhookTimeout = 15

func (o Options) hook(name, path string, p policy) arv1.ValidatingWebhook {
	constraints := p.constraints()
	h := arv1.ValidatingWebhook{
		Name: name + ".webhook" + suffix,
		ClientConfig: arv1.WebhookClientConfig{
			Service:  &arv1.ServiceReference{Namespace: o.Namespace, Name: o.Service, Path: &path, Port: new(int32(443))},
			CABundle: o.CABundle,
		},
		FailurePolicy: new(arv1.Fail), MatchPolicy: new(arv1.Equivalent), SideEffects: new(arv1.SideEffectClassNone),
		NamespaceSelector: constraints.NamespaceSelector, ObjectSelector: constraints.ObjectSelector,
		TimeoutSeconds: new(int32(webhookTimeout)), AdmissionReviewVersions: []string{"v1"}, MatchConditions: p.conditions(),
	}
	for _, r := range constraints.ResourceRules {
		h.Rules = append(h.Rules, r.RuleWithOperations)
	}
	return h
}
