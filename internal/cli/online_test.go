package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
)

// operated starts a server that answers as AIAS does, and returns the path of an operator bundle for it. An answer is by method and
// path; anything else is refused.
func operated(t *testing.T, answers map[string]any) string {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.Method+" "+r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = protocol.Problem{Title: "no such node", Detail: r.URL.Path, Remedy: "list the nodes: touchstone nodes", Status: http.StatusNotFound}
		}
		if raw, ok := answer.([]byte); ok {
			_, _ = w.Write(raw)
			return
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := json.Marshal(protocol.OperatorBundle{
		Server: server.URL, CA: string(root),
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})),
		Key:         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "operator.json")
	if err := os.WriteFile(path, bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOnline(t *testing.T) {
	verdict, err := json.Marshal(appraisal.Verdict{Trusted: true, Levels: []appraisal.Level{{
		Level: 5, Name: "runtime", Status: appraisal.Pass, Findings: []appraisal.Finding{{Rule: "runtime.ima", Status: appraisal.Pass}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	tagged := protocol.Node{Name: "w3", Trust: protocol.Trusted, Tags: map[string]string{"site": "muc", "country": "de"}, TagsProven: true, TagSerial: 4}
	waiting := protocol.TagState{Node: "w3", Tags: map[string]string{"site": "muc"}, Serial: 5, Reason: "the node has not answered yet"}
	node := protocol.Node{Name: "w1", Trust: protocol.Untrusted, Reason: "silent for 6m", Attested: now.Add(-6 * time.Minute)}
	bundle := operated(t, map[string]any{
		"GET /v1/nodes":            protocol.NodeList{Nodes: []protocol.Node{node, tagged}},
		"GET /v1/nodes/w3/verdict": protocol.Report{Node: tagged, Verdict: verdict},
		"PUT /v1/nodes/w3/tags":    waiting,
		"GET /v1/nodes/w3/tags":    waiting,
		"DELETE /v1/nodes/w3/tags": protocol.TagState{Node: "w3", Serial: 6},
		"GET /v1/nodes/w1/verdict": protocol.Report{Node: node, Verdict: verdict, Notes: []string{"the verdict has expired"}},
		"GET /v1/nodes/w2/verdict": protocol.Report{Node: protocol.Node{Name: "w2", Trust: protocol.Unknown}, Verdict: json.RawMessage("null")},
		"GET /v1/history":          protocol.History{Changes: []protocol.Change{{Node: "w1", At: now, To: protocol.Untrusted, Cause: protocol.CauseExpiry, Reason: "silent"}}},
		"GET /v1/nodes/w1/history": protocol.History{},
		"DELETE /v1/nodes/w1":      map[string]string{},
		"POST /v1/nodes/w1/rebind": map[string]string{},
		"GET /v1/tokens":           protocol.TokenList{Tokens: []protocol.Token{{ID: "t1", Left: 1, Expires: now.Add(time.Hour)}}},
		"DELETE /v1/tokens/t1":     map[string]string{},
		"GET /v1/eks":              protocol.EKList{EKs: []protocol.EK{{SHA256: "abcd", Note: "rack 4"}}},
		"POST /v1/eks":             map[string]string{},
		"POST /v1/reload":          protocol.Snapshot{ID: "snap", Pending: 3, Warnings: []string{"a.json: left out"}},
		"GET /v1/references":       protocol.ReferenceList{References: []protocol.Reference{{Kind: "package", Name: "shim-signed", Note: "why"}}},
	})
	hash := strings.Repeat("ab", 32)
	for _, tc := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"nodes"}, 0, []string{"w1", "untrusted", "silent for 6m", "6m"}},
		{[]string{"why", "w1"}, 0, []string{"w1 is not trusted", "silent for 6m", "expired", "6m ago"}},
		{[]string{"why", "w2"}, 0, []string{"w2 has sent no Evidence yet"}},
		{[]string{"why", "w9"}, 1, []string{"no such node", "touchstone nodes"}},
		{[]string{"reload"}, 0, []string{"workers being judged again: 3", "snap", "warning a.json: left out"}},
		{[]string{"evidence", "download", "w1", "--which", "worst"}, 2, []string{`--which "worst"`, "last-good"}},
		{[]string{"evidence", "download", "w9"}, 1, []string{"no such node"}},
		{[]string{"history"}, 0, []string{"w1", "expiry", "silent"}},
		{[]string{"history", "w1"}, 0, []string{"nothing has happened yet"}},
		{[]string{"node", "delete", "w1"}, 0, []string{"w1 is removed"}},
		{[]string{"node", "rebind", "w1", "--ttl", "5m"}, 0, []string{"5m0s", "w1"}},
		{[]string{"token", "list"}, 0, []string{"t1", "any"}},
		{[]string{"token", "revoke", "t1"}, 0, []string{"t1 is revoked"}},
		{[]string{"nodes"}, 0, []string{"w3", "country=de, site=muc"}},
		{[]string{"why", "w3"}, 0, []string{"tags country=de, site=muc"}},
		{[]string{"tag", "set", "w3", "site=muc"}, 0, []string{"w3", "5", "not yet", "site=muc", "has not answered"}},
		{[]string{"tag", "set", "w3", "site=muc", "--wait", "300ms"}, 1, []string{"not proven after 300ms", "touchstone why w3"}},
		{[]string{"tag", "set", "w3", "site"}, 2, []string{`"site" is no tag: want NAME=VALUE`}},
		{[]string{"tag", "set", "w3", "site=a", "site=b"}, 2, []string{"twice"}},
		{[]string{"tag", "set", "w3"}, 2, []string{"--help"}},
		{[]string{"tag", "set", "w9", "site=muc"}, 1, []string{"no such node"}},
		{[]string{"tag", "list"}, 0, []string{"w3", "4", "yes", "country=de, site=muc"}},
		{[]string{"tag", "clear", "w3"}, 0, []string{"w3 has no asset tags"}},
		{[]string{"ek", "list"}, 0, []string{"abcd", "rack 4"}},
		{[]string{"ek", "allow", hash}, 0, []string{hash}},
		{[]string{"ek", "allow", "nonsense"}, 2, []string{"neither 64 hexadecimal digits nor a file"}},
		{[]string{"reference", "list"}, 0, []string{"shim-signed", "why"}},
	} {
		code, out, errOut := run(t, append(tc.args, "--operator", bundle)...)
		if code != tc.code {
			t.Errorf("touchstone %q: got exit code %d, want %d: %s", tc.args, code, tc.code, errOut)
		}
		for _, want := range tc.want {
			if !strings.Contains(strings.Join(strings.Fields(out+errOut), " "), want) {
				t.Errorf("touchstone %q: no %q in %q", tc.args, want, out+errOut)
			}
		}
		if tc.code != 0 {
			continue
		}
		if code, out, _ := run(t, append(tc.args, "--operator", bundle, "-o", "json")...); code != 0 || !json.Valid([]byte(out)) {
			t.Errorf("touchstone %q -o json: exit code %d, %q, want JSON", tc.args, code, out)
		}
	}
}

// A join token comes with the hash of the root, so that the agent needs no file.
func TestTokenCreate(t *testing.T) {
	bundle := operated(t, map[string]any{"POST /v1/tokens": protocol.NewToken{Token: protocol.Token{ID: "t1"}, Secret: "t1.SECRET"}})
	code, out, errOut := run(t, "token", "create", "--operator", bundle)
	if code != 0 || !strings.Contains(out, "--token t1.SECRET") || !strings.Contains(out, "--ca-hash sha256:") {
		t.Errorf("token create: exit code %d, %q%q", code, out, errOut)
	}
}

func TestServerAway(t *testing.T) {
	bundle := operated(t, nil)
	data, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	var b protocol.OperatorBundle
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	b.Server = "https://127.0.0.1:1"
	if data, err = json.Marshal(b); err == nil {
		err = os.WriteFile(bundle, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := run(t, "nodes", "--operator", bundle); code != 1 || !strings.Contains(errOut, "https://127.0.0.1:1 cannot be reached") || !strings.Contains(errOut, "aias serve") {
		t.Errorf("nodes: exit code %d, %q", code, errOut)
	}
}
