package agent

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// aias is a TLS server that shows a chain of two certificates: its own and its root.
func aias(t *testing.T, h http.HandlerFunc) (server *httptest.Server, root string, pin string) {
	t.Helper()
	now := time.Now()
	rootKey, key := newTestKey(t), newTestKey(t)
	root = testPEM(t, rootKey, now.Add(-time.Hour), now.Add(time.Hour))
	roots, err := parsePEM(root)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: roots[0].SerialNumber, NotBefore: roots[0].NotBefore, NotAfter: roots[0].NotAfter,
		DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(nil, leaf, roots[0], key.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	server = httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der, roots[0].Raw}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	server.URL = strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	sum := sha256.Sum256(roots[0].Raw)
	return server, root, "sha256:" + hex.EncodeToString(sum[:])
}

func TestServerTrust(t *testing.T) {
	ok := func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"interval":1}`)) }
	server, root, pin := aias(t, ok)
	_, otherRoot, otherPin := aias(t, ok)
	leafPin := func() string {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(server.URL, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		sum := sha256.Sum256(conn.ConnectionState().PeerCertificates[0].Raw)
		return "sha256:" + hex.EncodeToString(sum[:])
	}()
	for _, tc := range []struct {
		name  string
		id    *Identity
		hash  string
		url   string
		wants string
	}{
		{"pinned root", nil, pin, server.URL, ""},
		{"root of the enrolment", &Identity{CA: root}, "", server.URL, ""},
		{"enrolment wins over the pin", &Identity{CA: root}, otherPin, server.URL, ""},
		{"other pin", nil, otherPin, server.URL, "not under the pinned root"},
		{"pin of the leaf is no root", nil, leafPin, server.URL, "not under the pinned root"},
		{"other root", &Identity{CA: otherRoot}, "", server.URL, "certificate"},
		{"pinned, other name", nil, pin, strings.Replace(server.URL, "localhost", "127.0.0.1", 1), "certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := Defaults()
			cfg.CAHash = tc.hash
			trust, err := trustFrom(&cfg, tc.id)
			if err != nil {
				t.Fatal(err)
			}
			c, err := newClient(tc.url, trust, nil, 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, err = c.Challenge(context.Background())
			if tc.wants == "" && err != nil || tc.wants != "" && (err == nil || !strings.Contains(err.Error(), tc.wants)) {
				t.Errorf("Challenge: got %v, want %q", err, tc.wants)
			}
		})
	}
	cfg := Defaults()
	if _, err := trustFrom(&cfg, nil); err == nil {
		t.Error("trustFrom without root and pin: no error, want one: there is no trust on first use")
	}
}

// From the enrolment on its root is trusted, so it must be the pinned one.
func TestEnrolmentRootIsThePinnedOne(t *testing.T) {
	_, root, pin := aias(t, nil)
	_, other, _ := aias(t, nil)
	hash, err := parsePin(pin)
	if err != nil {
		t.Fatal(err)
	}
	trust := serverTrust{pin: hash}
	for _, tc := range []struct {
		name, ca string
		good     bool
	}{{"pinned", root, true}, {"other", other, false}, {"both", root + other, false}, {"none", "", false}} {
		if err := trust.covers(tc.ca); (err == nil) != tc.good {
			t.Errorf("covers(%s): got %v, want good %v", tc.name, err, tc.good)
		}
	}
	if err := (serverTrust{}).covers(other); err != nil {
		t.Errorf("covers without a pin: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	problem, err := json.Marshal(protocol.Problem{Title: "stale challenge", Detail: "used before", Challenge: &protocol.Challenge{Nonce: []byte("n")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
		fresh  bool
		after  time.Duration
	}{
		{"conflict with challenge", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusConflict); w.Write(problem) }, "stale challenge: used before", true, 0},
		{"challenge only counts in a conflict", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest); w.Write(problem) }, "stale challenge", false, 0},
		{"no problem document", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			w.Write([]byte("<html>"))
		}, "502 Bad Gateway", false, 0},
		{"retry after", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, "503", false, 7 * time.Second},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://localhost:1/", http.StatusFound)
		}, "302", false, 0},
		{"endless answer", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, maxEnrolment+2)) }, "more than", false, 0},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) }, "read the answer", false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server, _, pin := aias(t, tc.answer)
			hash, err := parsePin(pin)
			if err != nil {
				t.Fatal(err)
			}
			c, err := newClient(server.URL, serverTrust{pin: hash}, nil, 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, err = c.Attest(context.Background(), []byte("evidence"))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Attest: got %v, want %q", err, tc.want)
			}
			if (freshChallenge(err) != nil) != tc.fresh {
				t.Errorf("freshChallenge: got %v, want %v", freshChallenge(err), tc.fresh)
			}
			var r *Refusal
			if errors.As(err, &r) && r.RetryAfter != tc.after {
				t.Errorf("RetryAfter: got %v, want %v", r.RetryAfter, tc.after)
			}
		})
	}
}

func TestRetryAfterHeader(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "-5": 0, "x": 0, "99999999999": maxRetryAfter, "Wed, 21 Oct 2026 07:28:00 GMT": 0,
	} {
		if got := retryAfter(header); got != want {
			t.Errorf("retryAfter(%q): got %v, want %v", header, got, want)
		}
	}
}
