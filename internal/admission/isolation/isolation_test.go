package isolation

import (
	"strings"
	"testing"

	netv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

func TestMissing(t *testing.T) {
	const both = "policyTypes: [Ingress, Egress]"
	tests := []struct {
		name  string
		specs []string // of policies, YAML
		want  string   // in the answer; "" means isolated
	}{
		{"none", nil, "no NetworkPolicy selects it for ingress, no NetworkPolicy selects it for egress"},
		{"deny all", []string{"{podSelector: {}, " + both + "}"}, ""},
		{"by label", []string{"{podSelector: {matchLabels: {app: x}}, " + both + "}"}, ""},
		{"of another pod", []string{"{podSelector: {matchLabels: {app: y}}, " + both + "}"}, "for ingress"},
		{"by expression", []string{"{podSelector: {matchExpressions: [{key: app, operator: In, values: [x, y]}]}, " + both + "}"}, ""},
		{"unreadable selector", []string{"{podSelector: {matchExpressions: [{key: app, operator: Near}]}, " + both + "}"}, "for ingress"},
		{"ingress only", []string{"{podSelector: {}, policyTypes: [Ingress]}"}, "no NetworkPolicy selects it for egress"},
		{"egress only", []string{"{podSelector: {}, policyTypes: [Egress]}"}, "no NetworkPolicy selects it for ingress"},
		{"types left out", []string{"{podSelector: {}}"}, "no NetworkPolicy selects it for egress"},
		{"types left out, egress rules", []string{"{podSelector: {}, egress: [{to: [{podSelector: {}}]}]}"}, ""},
		{"two halves", []string{"{podSelector: {}, policyTypes: [Ingress]}", "{podSelector: {}, policyTypes: [Egress]}"}, ""},
		{"all ingress", []string{"{podSelector: {}, " + both + ", ingress: [{}]}"}, "p0 allows all ingress"},
		{"all egress", []string{"{podSelector: {}, " + both + ", egress: [{}]}"}, "p0 allows all egress"},
		{"another policy allows all egress", []string{"{podSelector: {}, " + both + "}", "{podSelector: {matchLabels: {app: x}}, policyTypes: [Egress], egress: [{}]}"}, "p1 allows all egress"},
		{"another pod's policy allows all", []string{"{podSelector: {}, " + both + "}", "{podSelector: {matchLabels: {app: y}}, policyTypes: [Egress], egress: [{}]}"}, ""},
		{"one port for everybody", []string{"{podSelector: {}, " + both + ", ingress: [{ports: [{port: 443}]}]}"}, ""},
		{"all TCP ports", []string{"{podSelector: {}, " + both + ", ingress: [{ports: [{protocol: TCP}]}]}"}, "allows all ingress"},
		{"ports 1 to 65535", []string{"{podSelector: {}, " + both + ", egress: [{ports: [{port: 1, endPort: 65535}]}]}"}, "allows all egress"},
		{"all addresses", []string{"{podSelector: {}, " + both + ", egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}"}, "allows all egress"},
		{"all addresses of IPv6", []string{"{podSelector: {}, " + both + ", egress: [{to: [{ipBlock: {cidr: '::/0'}}]}]}"}, "allows all egress"},
		{"half of all addresses", []string{"{podSelector: {}, " + both + ", egress: [{to: [{ipBlock: {cidr: 128.0.0.0/1}}]}]}"}, "allows all egress"},
		{"all but private addresses", []string{"{podSelector: {}, " + both + ", egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]}]}"}, ""},
		{"all namespaces", []string{"{podSelector: {}, " + both + ", ingress: [{from: [{namespaceSelector: {}}]}]}"}, "allows all ingress"},
		{"some pods of all namespaces", []string{"{podSelector: {}, " + both + ", ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}]}]}"}, ""},
		{"own namespace", []string{"{podSelector: {}, " + both + ", ingress: [{from: [{podSelector: {}}]}]}"}, ""},
	}
	for _, tt := range tests {
		var policies []netv1.NetworkPolicy
		for i, spec := range tt.specs {
			p := netv1.NetworkPolicy{}
			p.Name = "p" + string(rune('0'+i))
			if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			policies = append(policies, p)
		}
		got := Missing(map[string]string{"app": "x"}, policies)
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("Missing, %s: got %q, want %q in it", tt.name, got, tt.want)
		}
	}
}

// TestManifest: what is printed isolates the pods it names.
func TestManifest(t *testing.T) {
	labels := map[string]string{"app": "x", "pod-template-hash": "1", "touchstone.dev/trust-class": "regulated"}
	for _, p := range []*netv1.NetworkPolicy{ClassPolicy("ns", "regulated"), Policy("ns", "x", Selector(labels))} {
		text, err := Manifest(p)
		if err != nil {
			t.Fatal(err)
		}
		var back netv1.NetworkPolicy
		if err := yaml.UnmarshalStrict([]byte(text), &back); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if got := Missing(labels, []netv1.NetworkPolicy{back}); got != "" {
			t.Errorf("the printed policy does not isolate: %s\n%s", got, text)
		}
		if strings.Contains(text, "template-hash") || strings.Contains(text, "null") || strings.Contains(text, "status") {
			t.Errorf("the printed policy has what it should not:\n%s", text)
		}
	}
}
