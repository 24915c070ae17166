package cli

import (
	"io"
	"net/http"
	"strings"
	"testing"

	netv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/internal/admission/isolation"
	"touchstone.dev/touchstone/internal/kubetest"
)

// send gives a manifest to the API server, as its admin.
func send(t *testing.T, s *kubetest.Server, method, path, manifest string) {
	t.Helper()
	sendAs(t, s, "application/yaml", method, path, manifest)
}

func sendAs(t *testing.T, s *kubetest.Server, kind, method, path, manifest string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(manifest))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", kind)
	response, err := s.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if answer, _ := io.ReadAll(response.Body); response.StatusCode >= 300 {
		t.Fatalf("%s %s: %s: %s", method, path, response.Status, answer)
	}
}

// room makes a namespace in which pods can be.
func room(t *testing.T, s *kubetest.Server, name, labels string) {
	t.Helper()
	send(t, s, http.MethodPost, "/api/v1/namespaces", "metadata: {name: "+name+", labels: {"+labels+"}}")
	send(t, s, http.MethodPost, "/api/v1/namespaces/"+name+"/serviceaccounts", "metadata: {name: default}")
}

func pod(t *testing.T, s *kubetest.Server, namespace, name, labels string) {
	t.Helper()
	send(t, s, http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods",
		"{metadata: {name: "+name+", labels: {"+labels+"}}, spec: {containers: [{name: c, image: i}]}}")
}

// noCluster keeps the kubeconfig of whoever runs the tests out of them.
func noCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", t.TempDir()+"/none")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
}

// TestNetpolSelector: without a cluster, what is printed isolates just the pods that were named, and what is wrong is refused.
func TestNetpolSelector(t *testing.T) {
	noCluster(t)
	for _, tc := range []struct {
		args   []string
		name   string            // of the policy; "" when the command is refused
		labels map[string]string // of a pod it isolates; or
		want   string            // in the message
	}{
		{[]string{"-l", "app=web"}, "isolate-web", map[string]string{"app": "web"}, ""},
		{[]string{"-l", "app=Web_1.x,tier="}, "isolate-web-1-x", map[string]string{"app": "Web_1.x", "tier": ""}, ""},
		{[]string{"--selector", "app=web", "--class", "gold"}, "isolate-web-gold", map[string]string{"app": "web", "touchstone.dev/trust-class": "gold"}, ""},
		{[]string{"--class", "gold"}, "isolate-gold", map[string]string{"touchstone.dev/trust-class": "gold"}, ""},
		{[]string{"--class", "gold", "--name", "mine"}, "mine", map[string]string{"touchstone.dev/trust-class": "gold"}, ""},
		{[]string{"-l", "a=" + strings.Repeat("x", 63)}, "isolate-" + strings.Repeat("x", 55), map[string]string{"a": strings.Repeat("x", 63)}, ""},
		{nil, "", nil, "which pods?"},
		{[]string{"-l", "app"}, "", nil, "invalid selector"},
		{[]string{"-l", "app=a b"}, "", nil, "--selector"},
		{[]string{"-l", "app=a,app=b"}, "", nil, "twice"},
		{[]string{"-l", "app=a\nb"}, "", nil, "--selector"},
		{[]string{"--class", "Gold"}, "", nil, "--class"},
		{[]string{"-l", "app=a", "--name", "a/b"}, "", nil, "--name"},
		{[]string{"-l", "app=a", "pod/x"}, "", nil, "not both"},
		{[]string{"deploy/x"}, "", nil, "is no pod"},
		{[]string{"pod/.."}, "", nil, "is no pod"},
		{[]string{"-l", "app=a", "-n", "A b"}, "", nil, "namespace"},
		{[]string{"pod/x"}, "", nil, "no cluster is known"},
	} {
		code, out, errOut := run(t, append([]string{"netpol", "-n", "shop"}, tc.args...)...)
		if tc.name == "" {
			if code == 0 || out != "" || !strings.Contains(errOut, tc.want) {
				t.Errorf("netpol %q: exit code %d, %q, %q; want %q", tc.args, code, out, errOut, tc.want)
			}
			continue
		}
		var p netv1.NetworkPolicy
		if err := yaml.UnmarshalStrict([]byte(out), &p); code != 0 || err != nil {
			t.Errorf("netpol %q: exit code %d, %v: %s%s", tc.args, code, err, out, errOut)
			continue
		}
		if p.Name != tc.name || p.Namespace != "shop" {
			t.Errorf("netpol %q: policy %s/%s, want shop/%s", tc.args, p.Namespace, p.Name, tc.name)
		}
		if missing := isolation.Missing(tc.labels, []netv1.NetworkPolicy{p}); missing != "" {
			t.Errorf("netpol %q: the pod is not isolated: %s", tc.args, missing)
		}
		for key := range tc.labels {
			if isolation.Selects(&p, map[string]string{key: "other"}) || isolation.Selects(&p, nil) {
				t.Errorf("netpol %q: selects pods with other labels", tc.args)
			}
		}
	}
}

// TestNetpolPod: the policy made for a pod of a cluster is one that the API server takes, and isolates the pod that replaces it.
func TestNetpolPod(t *testing.T) {
	s := kubetest.Start(t)
	t.Setenv("KUBECONFIG", s.Kubeconfig)
	room(t, s, "netpol", "")
	pod(t, s, "netpol", "web-1", "app: web, pod-template-hash: '1'")
	pod(t, s, "netpol", "bare", "pod-template-hash: '1'")
	code, out, errOut := run(t, "netpol", "-n", "netpol", "--class", "gold", "pod/web-1")
	if code != 0 {
		t.Fatalf("netpol pod/web-1: exit code %d: %s", code, errOut)
	}
	send(t, s, http.MethodPost, "/apis/networking.k8s.io/v1/namespaces/netpol/networkpolicies", out)
	var p netv1.NetworkPolicy
	if err := yaml.UnmarshalStrict([]byte(out), &p); err != nil {
		t.Fatal(err)
	}
	next := map[string]string{"app": "web", "pod-template-hash": "2", "touchstone.dev/trust-class": "gold"}
	if missing := isolation.Missing(next, []netv1.NetworkPolicy{p}); missing != "" {
		t.Errorf("netpol pod/web-1: the next pod is not isolated: %s\n%s", missing, out)
	}
	for name, want := range map[string]string{"pod/bare": "no label", "pod/none": "not found"} {
		if code, out, errOut := run(t, "netpol", "-n", "netpol", name); code != 1 || out != "" || !strings.Contains(errOut, want) {
			t.Errorf("netpol %s: exit code %d, %q, %q; want 1 and %q", name, code, out, errOut, want)
		}
	}
	if code, _, errOut := run(t, "netpol", "-n", "netpol", "--context", "other", "pod/web-1"); code != 1 || !strings.Contains(errOut, `"other" does not exist`) {
		t.Errorf("netpol --context other: exit code %d, %q", code, errOut)
	}
	if code, out, _ := run(t, "netpol", "-n", "netpol", "-o", "json", "pod/web-1"); code != 0 || !strings.HasPrefix(out, "{") {
		t.Errorf("netpol -o json: exit code %d, %s", code, out)
	}
}
