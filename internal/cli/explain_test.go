package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/kubetest"
)

// install gives the API server our kinds, and returns when it serves those that explain asks for.
func install(t *testing.T, s *kubetest.Server) {
	t.Helper()
	files, err := filepath.Glob("../../api/v1alpha1/crds/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		send(t, s, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", string(b))
	}
	for _, kind := range []string{"nodetrusts", "trustclasses"} {
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			response, err := s.Client().Get(s.URL + "/" + touchstoneAPI + "/" + kind)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %s", kind, response.Status)
			}
		}
	}
}

// trust makes a node and what is known of it.
func trust(t *testing.T, s *kubetest.Server, node, level5, tag string, expires time.Time) {
	t.Helper()
	send(t, s, http.MethodPost, "/api/v1/nodes", "metadata: {name: "+node+"}")
	meta := "{apiVersion: touchstone.dev/v1alpha1, kind: NodeTrust, metadata: {name: " + node + "}"
	send(t, s, http.MethodPost, "/"+touchstoneAPI+"/nodetrusts", meta+"}")
	levels := ""
	for l := 1; l <= 4; l++ {
		levels += fmt.Sprintf("{level: %d, name: l%d, status: pass}, ", l, l)
	}
	request := meta + ", status: {trusted: true, levels: [" + levels + "{level: 5, name: runtime, status: " + level5 + "}], tags: {country: " + tag + "}, " +
		"expiresAt: '" + expires.UTC().Format(time.RFC3339) + "', conditions: [{type: Bound, status: 'True', reason: R, message: '', lastTransitionTime: '2026-01-01T00:00:00Z'}]}}"
	sendAs(t, s, "application/apply-patch+yaml", http.MethodPatch, "/"+touchstoneAPI+"/nodetrusts/"+node+"/status?fieldManager=test&force=true", request)
}

func TestExplain(t *testing.T) {
	s := kubetest.Start(t)
	t.Setenv("KUBECONFIG", s.Kubeconfig)
	install(t, s)
	later := time.Now().Add(time.Hour)
	trust(t, s, "w1", "pass", "de", later)
	trust(t, s, "w2", "fail", "de", later)
	trust(t, s, "w3", "pass", "fr", later)
	trust(t, s, "w4", "pass", "de", time.Now().Add(-time.Minute))
	send(t, s, http.MethodPost, "/api/v1/nodes", "metadata: {name: w5}")
	for name, spec := range map[string]string{"gold": "tags: {country: [de]}", "moon": "tags: {country: [moon]}"} {
		send(t, s, http.MethodPost, "/"+touchstoneAPI+"/trustclasses", "{apiVersion: touchstone.dev/v1alpha1, kind: TrustClass, metadata: {name: "+name+"}, spec: {"+spec+"}}")
	}
	room(t, s, "explain", "touchstone.dev/trust-class: gold")
	room(t, s, "plain", "")
	pod(t, s, "explain", "web", "app: web")
	pod(t, s, "plain", "free", "app: web")
	pod(t, s, "plain", "moon", "touchstone.dev/trust-class: moon")
	pod(t, s, "plain", "lost", "touchstone.dev/trust-class: none")

	code, out, errOut := run(t, "explain", "-n", "explain", "pod/web", "-o", "json")
	var e render.Explanation
	if err := json.Unmarshal([]byte(out), &e); code != 0 || err != nil {
		t.Fatalf("explain pod/web: exit code %d, %v: %s%s", code, err, out, errOut)
	}
	missing := map[string]string{"w1": "", "w2": "level 5 is fail", "w3": "tag country is fr, want de", "w4": "its result has expired", "w5": "there is no fresh result about the node"}
	if e.Class != "gold" || e.ClassOf != "namespace" || len(e.Nodes) != len(missing) {
		t.Errorf("explain pod/web: got %+v", e)
	}
	for _, n := range e.Nodes {
		want := missing[n.Node]
		if got := strings.Join(n.Missing, "; "); got != want || n.Meets != (want == "") {
			t.Errorf("explain pod/web: node %s meets %v, missing %q, want %q", n.Node, n.Meets, got, want)
		}
	}
	for _, tc := range []struct {
		namespace, pod string
		code           int
		want           string
	}{
		{"explain", "pod/web", 0, "1 of 5 nodes"},
		{"plain", "pod/moon", 1, "0 of 5 nodes"},
		{"plain", "pod/free", 1, "without a trust class"},
		{"plain", "pod/lost", 1, "there is no TrustClass none"},
		{"plain", "pod/absent", 1, "not found"},
		{"plain", "web", 2, "want pod/NAME"},
	} {
		if code, out, errOut := run(t, "explain", "-n", tc.namespace, tc.pod); code != tc.code || !strings.Contains(out+errOut, tc.want) {
			t.Errorf("explain %s: exit code %d, %s%s; want %d and %q", tc.pod, code, out, errOut, tc.code, tc.want)
		}
	}
}
