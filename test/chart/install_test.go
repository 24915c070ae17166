package chart_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/internal/kubetest"
)

// call sends an object to the API server and returns its answer.
func call(t *testing.T, s *kubetest.Server, method, path string, object any) (int, string) {
	t.Helper()
	b, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(method, s.URL+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestInstall installs, upgrades and removes the chart at a real API server: each object is valid there, and the types outlive the removal,
// and with them what they hold.
func TestInstall(t *testing.T) {
	s := kubetest.StartOwn(t)
	for _, set := range values {
		// The API server of the tests has one family of addresses.
		args := append([]string{"touchstone", folder, "--namespace", namespace, "--set", "aias.service.ipFamily=IPv4"}, valuesArgs(set)...)
		mustHelm(t, s.Kubeconfig, append([]string{"install", "--create-namespace"}, args...)...)
		mustHelm(t, s.Kubeconfig, append([]string{"upgrade"}, args...)...)
		for _, path := range []string{"/apis/apps/v1/namespaces/touchstone/statefulsets/aias", "/apis/apps/v1/namespaces/touchstone/daemonsets/trust-agent",
			"/apis/touchstone.dev/v1alpha1/trustenforcements/cluster"} {
			isThere(t, s, path)
		}
		mustHelm(t, s.Kubeconfig, "uninstall", "touchstone", "--namespace", namespace)
		isThere(t, s, "/apis/touchstone.dev/v1alpha1/nodetrusts")
	}
}

// isThere waits until a path can be read: a new type is served a moment after it was made.
func isThere(t *testing.T, s *kubetest.Server, path string) {
	t.Helper()
	eventually(t, func() error {
		if status, body := call(t, s, http.MethodGet, path, nil); status != http.StatusOK {
			return fmt.Errorf("GET %s: %d %s", path, status, body)
		}
		return nil
	})
}

// TestTPMIsTheAgents: only the agent's pods may ask for the resource that opens the TPM.
func TestTPMIsTheAgents(t *testing.T) {
	s := kubetest.StartOwn(t)
	mustHelm(t, s.Kubeconfig, "install", "touchstone", folder, "--namespace", namespace, "--create-namespace")
	for _, ns := range []string{"elsewhere", namespace} {
		if ns != namespace {
			mustCreate(t, s, "/api/v1/namespaces", "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+ns+"}")
		}
		for _, account := range []string{"default", "trust-agent"} {
			call(t, s, http.MethodPost, "/api/v1/namespaces/"+ns+"/serviceaccounts", map[string]any{"metadata": map[string]any{"name": account}})
			for i, containers := range []string{
				"containers: [{name: a, image: a, resources: {limits: {touchstone.dev/tpm: 1}}}]",
				"containers: [{name: a, image: a}]\n  initContainers: [{name: b, image: b, resources: {limits: {touchstone.dev/tpm: 1}}}]",
				"containers: [{name: a, image: a}]",
			} {
				pod := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s-%d}\nspec:\n  serviceAccountName: %s\n  automountServiceAccountToken: false\n  %s\n",
					account, i, account, containers)
				want := http.StatusForbidden
				if i == 2 || ns == namespace && account == "trust-agent" {
					want = http.StatusCreated
				}
				var object any
				if err := yaml.Unmarshal([]byte(pod), &object); err != nil {
					t.Fatal(err)
				}
				eventually(t, func() error {
					status, body := call(t, s, http.MethodPost, "/api/v1/namespaces/"+ns+"/pods?dryRun=All", object)
					if status != want || want == http.StatusForbidden && !strings.Contains(body, "trust-agent's alone") {
						return fmt.Errorf("pod in %s of %s with %s: %d %s, want %d", ns, account, containers, status, body, want)
					}
					return nil
				})
			}
		}
	}
}

func mustCreate(t *testing.T, s *kubetest.Server, path, manifest string) {
	t.Helper()
	var object any
	if err := yaml.Unmarshal([]byte(manifest), &object); err != nil {
		t.Fatal(err)
	}
	if status, body := call(t, s, http.MethodPost, path, object); status != http.StatusCreated {
		t.Fatalf("POST %s: %d %s", path, status, body)
	}
}
