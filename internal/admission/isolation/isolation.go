// Package isolation decides whether NetworkPolicies isolate a pod, and writes the one that does. It is pure: the webhook asks it when a pod is made
// or a policy is taken away, and `touchstone netpol` prints the same manifest.
//
// A pod is isolated when, for ingress and for egress, at least one policy selects it and none that does allows everything: policies add up. It
// knows networking.k8s.io/v1 only; what other policies of a network plugin add or take away is not seen, and whether the plugin enforces any is not
// known.
package isolation

import (
	"net/netip"
	"slices"
	"strings"

	netv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Missing says what keeps a pod with these labels from being isolated by the policies of its namespace, in words; empty when it is isolated.
func Missing(podLabels map[string]string, policies []netv1.NetworkPolicy) string {
	var missing []string
	for _, direction := range []netv1.PolicyType{netv1.PolicyTypeIngress, netv1.PolicyTypeEgress} {
		selected, open := false, ""
		for i := range policies {
			p := &policies[i]
			if !Selects(p, podLabels) || !slices.Contains(types(p), direction) {
				continue
			}
			selected = true
			if allowsEverything(p, direction) {
				open = p.Name
			}
		}
		word := strings.ToLower(string(direction))
		switch {
		case !selected:
			missing = append(missing, "no NetworkPolicy selects it for "+word)
		case open != "":
			missing = append(missing, "NetworkPolicy "+open+" allows all "+word)
		}
	}
	return strings.Join(missing, ", ")
}

// Selects tells whether a policy is about a pod with these labels in its namespace. A selector that cannot be read selects nothing.
func Selects(p *netv1.NetworkPolicy, podLabels map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
	return err == nil && s.Matches(labels.Set(podLabels))
}

// types are the directions of a policy, with the API's default.
func types(p *netv1.NetworkPolicy) []netv1.PolicyType {
	if len(p.Spec.PolicyTypes) > 0 {
		return p.Spec.PolicyTypes
	}
	if len(p.Spec.Egress) > 0 {
		return []netv1.PolicyType{netv1.PolicyTypeIngress, netv1.PolicyTypeEgress}
	}
	return []netv1.PolicyType{netv1.PolicyTypeIngress}
}

// allowsEverything tells whether a rule of the policy lets every peer in, or out to, on every port.
func allowsEverything(p *netv1.NetworkPolicy, direction netv1.PolicyType) bool {
	if direction == netv1.PolicyTypeIngress {
		return slices.ContainsFunc(p.Spec.Ingress, func(r netv1.NetworkPolicyIngressRule) bool { return everyPort(r.Ports) && everyPeer(r.From) })
	}
	return slices.ContainsFunc(p.Spec.Egress, func(r netv1.NetworkPolicyEgressRule) bool { return everyPort(r.Ports) && everyPeer(r.To) })
}

func everyPort(ports []netv1.NetworkPolicyPort) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p netv1.NetworkPolicyPort) bool {
		return p.Port == nil || p.EndPort != nil && p.Port.IntValue() <= 1 && *p.EndPort >= 65535
	})
}

// everyPeer tells whether the peers are everybody: none named, all pods of all namespaces, or all addresses, in one block or in halves.
func everyPeer(peers []netv1.NetworkPolicyPeer) bool {
	return len(peers) == 0 || slices.ContainsFunc(peers, func(p netv1.NetworkPolicyPeer) bool {
		if p.IPBlock != nil {
			prefix, err := netip.ParsePrefix(p.IPBlock.CIDR)
			return err == nil && prefix.Bits() <= 1 && len(p.IPBlock.Except) == 0
		}
		return p.NamespaceSelector != nil && everything(p.NamespaceSelector) && (p.PodSelector == nil || everything(p.PodSelector))
	})
}

func everything(s *metav1.LabelSelector) bool {
	return len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0
}
