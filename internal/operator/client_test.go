package operator

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/protocol"
)

func TestPaths(t *testing.T) {
	tests := []struct{ got, want string }{
		{at(protocol.PathNode, "worker-1"), "/v1/nodes/worker-1"},
		{at(protocol.PathNode, "../../v1/tokens"), "/v1/nodes/..%2F..%2Fv1%2Ftokens"},
		{at(at(protocol.PathEvidence, "a.b"), Last), "/v1/nodes/a.b/evidence/last"},
		{at(protocol.PathToken, "x?y"), "/v1/tokens/x%3Fy"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("at(): got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Setenv(EnvBundle, "")
	if _, err := Open(""); err == nil || !strings.Contains(err.Error(), EnvBundle) {
		t.Errorf("Open(nothing): got %v, want what to do", err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"no JSON": "x", "empty": "{}", "no CA": `{"server":"https://a","ca":"x"}`} {
		path := filepath.Join(dir, "bundle.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv(EnvBundle, path)
		if _, err := Open(""); err == nil {
			t.Errorf("Open(%s): got no error", name)
		}
	}
}

func TestProblem(t *testing.T) {
	for body, want := range map[string]string{
		`{"type":"urn:x","title":"no such node","status":404,"remedy":"list them"}`: "no such node (list them)",
		`<html>proxy</html>`: "AIAS answered 404 Not Found: <html>proxy</html>",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(body))
		}))
		c := &Client{base: srv.URL, http: srv.Client()}
		_, err := c.Node(t.Context(), "worker-1")
		srv.Close()
		var p *protocol.Problem
		if !errors.As(err, &p) || p.Status != http.StatusNotFound || p.Error() != want {
			t.Errorf("Node() answered with %q: got %v, want %q", body, err, want)
		}
	}
}
