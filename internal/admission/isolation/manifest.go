package isolation

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// changing are labels that controllers give to each pod or revision: a policy must not select by them.
var changing = []string{
	"pod-template-hash", "controller-revision-hash", "pod-template-generation", "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
	"batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "batch.kubernetes.io/job-completion-index", "controller-uid", "job-name",
}

// Selector is what of a pod's labels a policy selects it by: those that stay when the pod is made anew.
func Selector(podLabels map[string]string) map[string]string {
	out := maps.Clone(podLabels)
	for _, key := range changing {
		delete(out, key)
	}
	return out
}

// OfClass selects all pods of a class.
func OfClass(class string) map[string]string { return map[string]string{v1alpha1.ClassLabel: class} }

// Policy isolates the pods with these labels: nobody comes in, and they reach nothing but the cluster's DNS. Further policies add what they need.
func Policy(namespace, name string, selector map[string]string) *netv1.NetworkPolicy {
	port := func(protocol corev1.Protocol) netv1.NetworkPolicyPort {
		return netv1.NetworkPolicyPort{Protocol: &protocol, Port: new(intstr.FromInt32(53))}
	}
	return &netv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: netv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: netv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: selector},
			PolicyTypes: []netv1.PolicyType{netv1.PolicyTypeIngress, netv1.PolicyTypeEgress},
			Egress: []netv1.NetworkPolicyEgressRule{{
				To: []netv1.NetworkPolicyPeer{{
					NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: "kube-system"}},
					PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}},
				}},
				Ports: []netv1.NetworkPolicyPort{port(corev1.ProtocolUDP), port(corev1.ProtocolTCP)},
			}},
		},
	}
}

// ClassPolicy isolates all pods of a class in a namespace.
func ClassPolicy(namespace, class string) *netv1.NetworkPolicy {
	return Policy(namespace, "isolate-"+class, OfClass(class))
}

// Manifest writes a policy as YAML, without what the API server fills in.
func Manifest(p *netv1.NetworkPolicy) (string, error) {
	b, err := yaml.Marshal(p)
	if err != nil {
		return "", err
	}
	return strings.ReplaceAll(string(b), "  creationTimestamp: null\n", ""), nil
}
