package authority

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/kubetest"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

// kube is a namespace of a real API server, with the service accounts of an installation.
type kube struct {
	t         testing.TB
	server    *kubetest.Server
	namespace string
	aias      string // file with the token of AIAS
}

type object = map[string]any

func named(name string) object { return object{"metadata": object{"name": name}} }

// newKube sets a namespace up: AIAS may what the chart lets it.
func newKube(t testing.TB, s *kubetest.Server, namespace string) *kube {
	t.Helper()
	k := &kube{t: t, server: s, namespace: namespace}
	k.ask(http.MethodPost, "/api/v1/namespaces", named(namespace), 201)
	for _, account := range []string{"aias", "trust-controller", "party", "trust-agent", "stranger"} {
		k.ask(http.MethodPost, k.path("serviceaccounts"), named(account), 201)
	}
	subjects := []object{{"kind": "ServiceAccount", "name": "aias", "namespace": namespace}}
	rbac := "/apis/rbac.authorization.k8s.io/v1/"
	k.ask(http.MethodPost, rbac+"clusterrolebindings", object{"metadata": object{"name": namespace}, "subjects": subjects,
		"roleRef": object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"}}, 201)
	k.ask(http.MethodPost, rbac+"namespaces/"+namespace+"/roles", object{"metadata": object{"name": "aias"}, "rules": []object{
		{"apiGroups": []string{""}, "resources": []string{"configmaps"}, "verbs": []string{"create"}},
		{"apiGroups": []string{""}, "resources": []string{"configmaps"}, "resourceNames": []string{"aias-ca"}, "verbs": []string{"get", "update", "patch"}},
	}}, 201)
	k.ask(http.MethodPost, rbac+"namespaces/"+namespace+"/rolebindings", object{"metadata": object{"name": "aias"}, "subjects": subjects,
		"roleRef": object{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "aias"}}, 201)
	k.aias = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(k.aias, []byte(k.token("aias", "", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *kube) path(kind string) string { return "/api/v1/namespaces/" + k.namespace + "/" + kind }

func (k *kube) ask(method, path string, body any, status int) object {
	k.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		k.t.Fatal(err)
	}
	req, err := http.NewRequest(method, k.server.URL+path, bytes.NewReader(b))
	if err != nil {
		k.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := k.server.Client().Do(req)
	if err != nil {
		k.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != status {
		k.t.Fatalf("%s %s: %s: %s, want %d", method, path, resp.Status, answer, status)
	}
	out := object{}
	if err := json.Unmarshal(answer, &out); err != nil {
		k.t.Fatal(err)
	}
	return out
}

// pod makes a pod of a service account on a node, and returns its UID.
func (k *kube) pod(name, account, node string) string {
	k.t.Helper()
	p := k.ask(http.MethodPost, k.path("pods"), object{"metadata": object{"name": name}, "spec": object{
		"serviceAccountName": account, "nodeName": node, "automountServiceAccountToken": false, "containers": []object{{"name": "c", "image": "i"}},
	}}, 201)
	return p["metadata"].(object)["uid"].(string)
}

// token makes a token; with an audience for it, with a pod bound to it.
func (k *kube) token(account, audience, pod string) string {
	k.t.Helper()
	spec := object{"expirationSeconds": 600}
	if audience != "" {
		spec["audiences"] = []string{audience}
	}
	if pod != "" {
		spec["boundObjectRef"] = object{"kind": "Pod", "apiVersion": "v1", "name": pod}
	}
	out := k.ask(http.MethodPost, k.path("serviceaccounts/"+account+"/token"), object{"spec": spec}, 201)
	return out["status"].(object)["token"].(string)
}

// serve configures an AIAS for the namespace.
func (k *kube) serve(w *world) {
	w.cfg.Kubernetes = Kubernetes{
		Server: k.server.URL, CAFile: k.server.CAFile, TokenFile: k.aias, Audience: "aias", Controllers: []string{k.namespace + "/trust-controller"},
		RelyingParties: []string{k.namespace + "/party"}, Agents: []string{k.namespace + "/trust-agent"}, CAConfigMap: k.namespace + "/aias-ca",
	}
}

// asBearer asks a route with a token.
func (w *world) asBearer(token, method, path string) error {
	return w.call(&http.Client{Transport: bearerTransport{w.client().Transport, token}}, method, path, nil, nil)
}

type bearerTransport struct {
	http.RoundTripper
	token string
}

func (b bearerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.RoundTripper.RoundTrip(r)
}

// forged is a token that says of itself what a good one says, and is signed by nobody.
func forged(t testing.TB, namespace, account string, expires time.Time) string {
	t.Helper()
	claims, err := json.Marshal(object{"sub": "system:serviceaccount:" + namespace + ":" + account, "exp": expires.Unix(), "aud": []string{"aias"}})
	if err != nil {
		t.Fatal(err)
	}
	e := base64.RawURLEncoding
	return e.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + e.EncodeToString(claims) + "." + e.EncodeToString(make([]byte, 64))
}

// forget lets the API server be asked again.
func (c *cluster) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.kept)
}

func TestServiceAccountRoles(t *testing.T) {
	k := newKube(t, kubetest.Start(t), "roles")
	w := newWorld(t, k.serve)
	controller, party := k.token("trust-controller", "aias", ""), k.token("party", "aias", "")
	for _, token := range []string{controller, party} {
		for _, path := range []string{protocol.PathNodes, protocol.PathNodes} { // the second answer is remembered
			if err := w.asBearer(token, http.MethodGet, path); err != nil {
				t.Errorf("GET %s: %v", path, err)
			}
		}
	}
	if got := len(w.cluster.kept); got != 2 {
		t.Errorf("answers kept: got %d, want 2", got)
	}
	wantProblem(t, "policy as a Relying Party", w.asBearer(party, http.MethodGet, protocol.PathPolicy), http.StatusForbidden, "role")
	wantProblem(t, "tokens as controller", w.asBearer(controller, http.MethodGet, protocol.PathTokens), http.StatusForbidden, "role")
	wantProblem(t, "challenge as controller", w.asBearer(controller, http.MethodGet, protocol.PathChallenge), http.StatusForbidden, "role")
	for what, token := range map[string]string{
		"other account": k.token("stranger", "aias", ""), "agent": k.token("trust-agent", "aias", ""), "other audience": k.token("trust-controller", "other", ""),
		"audience of the API server": k.token("trust-controller", "", ""), "forged": forged(t, "roles", "trust-controller", time.Now().Add(time.Hour)),
		"expired": forged(t, "roles", "trust-controller", time.Now().Add(-time.Hour)), "cut": controller[:len(controller)-4], "garbage": "x",
		"other namespace": forged(t, "default", "trust-controller", time.Now().Add(time.Hour)), "long": strings.Repeat("x", 9000),
	} {
		wantProblem(t, what, w.asBearer(token, http.MethodGet, protocol.PathNodes), http.StatusUnauthorized, "service-account-token")
	}
	// A deleted service account counts no longer than a minute.
	k.ask(http.MethodDelete, k.path("serviceaccounts/party"), object{}, 200)
	w.clock.Advance(reviewLife)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && w.asBearer(party, http.MethodGet, protocol.PathNodes) == nil; time.Sleep(200 * time.Millisecond) {
		w.cluster.forget()
	}
	wantProblem(t, "deleted account", w.asBearer(party, http.MethodGet, protocol.PathNodes), http.StatusUnauthorized, "service-account-token")
	if err := w.asBearer(controller, http.MethodGet, protocol.PathPolicy); err != nil {
		t.Errorf("policy as controller: %v", err)
	}
	w.clock.Advance(10 * time.Minute) // of a token nothing is remembered beyond its life
	wantProblem(t, "token past its end", w.asBearer(controller, http.MethodGet, protocol.PathNodes), http.StatusUnauthorized, "service-account-token")
}

// TestServiceAccountStream: the controller's client, as it is in the cluster; its stream ends with its token.
func TestServiceAccountStream(t *testing.T) {
	k := newKube(t, kubetest.Start(t), "stream")
	w := newWorld(t, k.serve)
	w.enrolled("worker-1").attest()
	dir := t.TempDir()
	a := operator.Access{Server: w.url, CAFile: filepath.Join(dir, "ca.crt"), TokenFile: filepath.Join(dir, "token")}
	for path, text := range map[string]string{a.CAFile: pemCerts(w.ca.root), a.TokenFile: k.token("trust-controller", "aias", "")} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := operator.NewAccess(a)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	seen := 0
	err = c.Results(ctx, func(protocol.NodeResult) error { seen++; return nil }, func() error {
		w.clock.Advance(time.Hour)
		return nil
	})
	if !errors.Is(err, io.EOF) || seen != 1 {
		t.Errorf("Results() past the end of the token: got %v after %d results, want io.EOF after one", err, seen)
	}
}

// TestJoinByPod: an agent's pod enrols the node that it runs on, and no other.
func TestJoinByPod(t *testing.T) {
	k := newKube(t, kubetest.Start(t), "join")
	w := newWorld(t, k.serve)
	uid := k.pod("agent-1", "trust-agent", "worker-1")
	k.pod("stranger-1", "stranger", "worker-1")
	token := k.token("trust-agent", "aias", "agent-1")
	one, two := w.machine("worker-1"), w.machine("worker-2")

	_, err := two.begin(two.request(token))
	wantProblem(t, "pod of another node", err, http.StatusForbidden, "other-node")
	for what, bad := range map[string]string{
		"bound to no pod": k.token("trust-agent", "aias", ""),
	} {
		_, err = one.begin(one.request(bad))
		wantProblem(t, what, err, http.StatusForbidden, "other-node")
	}
	for what, bad := range map[string]string{
		"pod of another account": k.token("stranger", "aias", "stranger-1"), "other audience": k.token("trust-agent", "other", "agent-1"),
		"controller": k.token("trust-controller", "aias", ""), "forged": forged(t, "join", "trust-agent", time.Now().Add(time.Hour)),
	} {
		_, err = one.begin(one.request(bad))
		wantProblem(t, what, err, http.StatusUnauthorized, "service-account-token")
	}
	// The cluster's word is no word on the TPM.
	fake := w.machine("worker-1")
	fake.certs = nil
	_, err = fake.begin(fake.request(token))
	wantProblem(t, "unknown TPM", err, http.StatusForbidden, "ek")

	ch, err := one.begin(one.request(token))
	if err != nil {
		t.Fatal(err)
	}
	if err := one.finish(one.proof(ch)); err != nil {
		t.Fatal(err)
	}
	if a := one.attest(); !a.Trusted {
		t.Errorf("attestation after joining by pod: got %+v, want trusted", a)
	}
	other := w.machine("worker-1")
	other.tpm = two.tpm
	other.certs = two.certs
	_, err = other.begin(other.request(token))
	wantProblem(t, "another TPM under the name", err, http.StatusConflict, "name-taken")
	k.ask(http.MethodDelete, k.path("pods/agent-1"), object{"gracePeriodSeconds": 0, "preconditions": object{"uid": uid}}, 200)
	w.clock.Advance(reviewLife)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if _, err = one.begin(one.request(token)); err != nil {
			break
		}
		w.cluster.forget() // the API server itself remembers tokens for some 10 seconds
	}
	wantProblem(t, "deleted pod", err, http.StatusUnauthorized, "service-account-token")
}

// TestPublish: the root certificate is in its ConfigMap, and comes back.
func TestPublish(t *testing.T) {
	k := newKube(t, kubetest.Start(t), "publish")
	w := newWorld(t, k.serve)
	published := func() string {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { w.publishLoop(ctx); close(done) }()
		defer func() { cancel(); <-done }()
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			list := k.ask(http.MethodGet, k.path("configmaps"), nil, 200)["items"].([]any)
			for _, i := range list {
				if i.(object)["metadata"].(object)["name"] == "aias-ca" && fmt.Sprint(i.(object)["data"]) == fmt.Sprint(object{"ca.crt": pemCerts(w.ca.root), "jwks.json": string(w.jwks)}) {
					return ""
				}
			}
		}
		return "the ConfigMap does not hold the root certificate alone"
	}
	if bad := published(); bad != "" {
		t.Fatal(bad)
	}
	k.ask(http.MethodPut, k.path("configmaps/aias-ca"), object{"metadata": object{"name": "aias-ca"}, "data": object{"ca.crt": "another"}}, 200)
	if bad := published(); bad != "" {
		t.Error("after somebody wrote another: " + bad)
	}
}

// TestAPIServerAway: nobody is let in on no answer.
func TestAPIServerAway(t *testing.T) {
	s := kubetest.StartOwn(t)
	k := newKube(t, s, "away")
	w := newWorld(t, k.serve)
	k.pod("agent-1", "trust-agent", "worker-1")
	agent, controller, fresh := k.token("trust-agent", "aias", "agent-1"), k.token("trust-controller", "aias", ""), k.token("trust-controller", "aias", "")
	if err := w.asBearer(controller, http.MethodGet, protocol.PathNodes); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	m := w.machine("worker-1")
	_, err := m.begin(m.request(agent))
	wantProblem(t, "join", err, http.StatusServiceUnavailable, "api-server")
	wantProblem(t, "controller with a new token", w.asBearer(fresh, http.MethodGet, protocol.PathNodes), http.StatusServiceUnavailable, "api-server")
	if err := w.asBearer(controller, http.MethodGet, protocol.PathNodes); err != nil {
		t.Errorf("controller within the minute: %v", err)
	}
	w.clock.Advance(reviewLife)
	wantProblem(t, "controller after the minute", w.asBearer(controller, http.MethodGet, protocol.PathNodes), http.StatusServiceUnavailable, "api-server")
}
