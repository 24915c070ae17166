package chart_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/cli"
	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/kubetest"
)

// explain runs `touchstone explain` as a user.
func explain(t *testing.T, s *kubetest.Server, user string) (code int, said string) {
	t.Helper()
	kubeconfig, err := s.WriteKubeconfig(user)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	app := &cli.App{Out: &out, Err: &out, In: strings.NewReader(""), Style: render.Style{Width: 120}, Now: time.Now}
	code = app.Run(t.Context(), []string{"touchstone", "explain", "--kubeconfig", kubeconfig, "-n", "shop", "pod/web"})
	return code, out.String()
}

// TestExplainAsUser: who may look at a namespace, and has the role of the chart, is told why a pod waits there. Who looks at the whole cluster needs no other role;
// who lacks it is told which it is.
func TestExplainAsUser(t *testing.T) {
	s := kubetest.StartOwn(t)
	s.Run(t, "kube-controller-manager", "--controllers=clusterrole-aggregation-controller")
	mustCreate(t, s, "/api/v1/namespaces", "metadata: {name: shop, labels: {touchstone.dev/trust-class: regulated}}")
	mustCreate(t, s, "/api/v1/namespaces/shop/serviceaccounts", "metadata: {name: default}")
	for _, node := range []string{"w1", "w2"} {
		mustCreate(t, s, "/api/v1/nodes", "metadata: {name: "+node+"}")
	}
	// The pod was there first: with the chart alone none of a class can be made, for lack of a controller.
	mustCreate(t, s, "/api/v1/namespaces/shop/pods", "metadata: {name: web}\nspec: {containers: [{name: c, image: i}]}")
	mustHelm(t, s.Kubeconfig, "install", "touchstone", folder, "--namespace", namespace, "--create-namespace")
	isThere(t, s, "/apis/touchstone.dev/v1alpha1/trustclasses/regulated")
	isThere(t, s, "/apis/touchstone.dev/v1alpha1/nodetrusts")
	known(t, s, "w1")

	bind := func(kind, path, role, user string) {
		t.Helper()
		mustCreate(t, s, path, fmt.Sprintf("metadata: {name: %s-%s}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %s}\nsubjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: %s}]\nkind: %s\napiVersion: rbac.authorization.k8s.io/v1", role, user, role, user, kind))
	}
	const rooms, all = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
	bind("RoleBinding", rooms, "view", "tenant")
	bind("ClusterRoleBinding", all, "touchstone-explain", "tenant")
	bind("RoleBinding", rooms, "edit", "stranger")
	bind("ClusterRoleBinding", all, "view", "auditor")
	for user, want := range map[string]string{
		"tenant":   "0 of 1 nodes",
		"auditor":  "0 of 1 nodes", // the role of viewers has ours in it
		"admin":    "0 of 2 nodes", // who may list nodes sees those that nothing is known of, too
		"stranger": "needs the ClusterRole touchstone-explain",
		"nobody":   "cannot get resource \"pods\"",
	} {
		if user == "admin" {
			bind("ClusterRoleBinding", all, "cluster-admin", user)
		}
		eventually(t, func() error { // roles are put together a moment after they are made
			if code, said := explain(t, s, user); code != 1 || !strings.Contains(said, want) {
				return fmt.Errorf("explain as %s: exit code %d, want 1 and %q: %s", user, code, want, said)
			}
			return nil
		})
	}
}

// known makes the NodeTrust of a node, as the controller would.
func known(t *testing.T, s *kubetest.Server, node string) {
	t.Helper()
	body := "{\"apiVersion\": \"touchstone.dev/v1alpha1\", \"kind\": \"NodeTrust\", \"metadata\": {\"name\": \"" + node + "\"}}"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/apis/touchstone.dev/v1alpha1/nodetrusts", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Impersonate-User", "system:serviceaccount:"+namespace+":trust-controller")
	response, err := s.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		t.Fatalf("NodeTrust %s: %s", node, response.Status)
	}
}
