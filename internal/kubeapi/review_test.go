package kubeapi

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func jwt(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

func TestPeek(t *testing.T) {
	good := jwt(`{"sub":"system:serviceaccount:touchstone:trust-agent","exp":1800000000,"iat":1}`)
	if a, err := Peek(good); err != nil || a.String() != "touchstone/trust-agent" || !a.Expires.Equal(time.Unix(1800000000, 0)) {
		t.Errorf("Peek(good): got %+v, %v", a, err)
	}
	for name, token := range map[string]string{
		"empty": "", "two parts": "a.b", "four parts": "a.b.c.d", "no base64": "a.!.c", "no JSON": jwt("x"), "no end": jwt(`{"sub":"system:serviceaccount:a:b"}`),
		"endless": jwt(`{"sub":"system:serviceaccount:a:b","exp":1e300}`), "user": jwt(`{"sub":"admin","exp":1800000000}`),
		"short name": jwt(`{"sub":"system:serviceaccount:a:","exp":1800000000}`), "long name": jwt(`{"sub":"system:serviceaccount:a:b:c","exp":1800000000}`),
		"large": jwt(`{"x":"` + strings.Repeat("x", MaxToken) + `"}`),
	} {
		if a, err := Peek(token); !errors.Is(err, ErrToken) {
			t.Errorf("Peek(%s): got %+v, %v, want %v", name, a, err, ErrToken)
		}
	}
}

// TestAccount: what an API server could answer, and must be understood to be a yes.
func TestAccount(t *testing.T) {
	for _, tt := range []struct{ name, status, want string }{
		{"pod", `{"authenticated":true,"audiences":["aias"],"user":{"username":"system:serviceaccount:a:b","extra":{"authentication.kubernetes.io/node-name":["w1"],"authentication.kubernetes.io/pod-name":["p"]}}}`, "a/b on w1"},
		{"bound to a node", `{"authenticated":true,"audiences":["aias"],"user":{"username":"system:serviceaccount:a:b","extra":{"authentication.kubernetes.io/node-name":["w1"]}}}`, "a/b on "},
		{"two nodes", `{"authenticated":true,"audiences":["aias"],"user":{"username":"system:serviceaccount:a:b","extra":{"authentication.kubernetes.io/node-name":["w1","w2"],"authentication.kubernetes.io/pod-name":["p"]}}}`, "a/b on "},
		{"no audience", `{"authenticated":true,"user":{"username":"system:serviceaccount:a:b"}}`, ""},
		{"other audience", `{"authenticated":true,"audiences":["other"],"user":{"username":"system:serviceaccount:a:b"}}`, ""},
		{"not authenticated", `{"audiences":["aias"],"user":{"username":"system:serviceaccount:a:b"}}`, ""},
		{"error", `{"authenticated":true,"audiences":["aias"],"error":"half","user":{"username":"system:serviceaccount:a:b"}}`, ""},
		{"user", `{"authenticated":true,"audiences":["aias"],"user":{"username":"admin"}}`, ""},
		{"nothing", `{}`, ""},
	} {
		var r review
		if err := json.Unmarshal([]byte(`{"status":`+tt.status+`}`), &r); err != nil {
			t.Fatal(err)
		}
		got := ""
		a, err := r.account("aias")
		if err == nil {
			got = a.String() + " on " + a.Node
		}
		if got != tt.want || err != nil && !errors.Is(err, ErrToken) {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func FuzzPeek(f *testing.F) {
	f.Add(jwt(`{"sub":"system:serviceaccount:touchstone:trust-agent","exp":1800000000}`))
	f.Fuzz(func(t *testing.T, token string) {
		if a, err := Peek(token); err == nil && (a.Namespace == "" || a.Name == "" || a.Expires.IsZero()) {
			t.Errorf("Peek(%q): got %+v", token, a)
		}
	})
}
