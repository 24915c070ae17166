package images

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"

	"touchstone.dev/touchstone/internal/admission/images/imagetest"
)

func TestKeyring(t *testing.T) {
	k, err := ParseKeyring([]byte(`{"auths":{
		"https://index.docker.io/v1/":{"auth":"aHViOnB3"},
		"registry.example":{"username":"all","password":"pw"},
		"registry.example/team":{"username":"team","password":"pw"},
		"*.cloud.example":{"username":"cloud","password":"pw"},
		"other.example:5000":{"identitytoken":"t"},
		"REGISTRY.example/TEAM":{"username":"case","password":"pw"}
	},"credsStore":"desktop","credHelpers":{"registry.example":"evil"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ repo, want string }{
		{"alpine", "hub"}, {"docker.io/library/alpine", "hub"},
		{"registry.example/app", "all"}, {"registry.example/team", "team all"}, {"registry.example/team/app", "team all"}, {"registry.example/teams/app", "all"},
		{"a.cloud.example/app", "cloud"}, {"a.b.cloud.example/app", ""}, {"cloud.example/app", ""},
		{"other.example:5000/app", "token"}, {"other.example/app", ""}, {"evil.registry.example/app", ""},
	} {
		repo, err := name.NewRepository(c.repo)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range k.find(repo) {
			if a.IdentityToken != "" {
				a.Username = "token"
			}
			got = append(got, a.Username)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("credentials for %s: %q, want %q", c.repo, got, c.want)
		}
	}
	for _, bad := range []string{"", "x", `{"auths":1}`, `{"auths":{"a":{"auth":"%"}}}`, `{"auths":{"a":{"auth":"eA=="}}}`, strings.Repeat(" ", MaxKeyring+1)} {
		if _, err := ParseKeyring([]byte(bad)); err == nil || strings.Contains(err.Error(), "%") {
			t.Errorf("ParseKeyring(%.20q): error %v", bad, err)
		}
	}
	if k, err := ParseOldKeyring([]byte(`{"https://registry.example":{"username":"old","password":"pw"}}`)); err != nil || len(k) != 1 || k[0].auth.Username != "old" {
		t.Errorf("ParseOldKeyring: %+v, %v", k, err)
	}
}

func FuzzKeyring(f *testing.F) {
	f.Add([]byte(`{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOnB3"},"*.example/a":{"identitytoken":"t"}}}`))
	repo, err := name.NewRepository("registry.example/app")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		if k, err := ParseKeyring(b); err == nil {
			k.find(repo)
		}
		_, _ = ParseOldKeyring(b)
	})
}

// guarded puts a token service (or, without one, passwords) before a registry; team/NAME is for the user team only.
func guarded(tokens bool) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			if r.URL.Path == "/token" {
				if user == "wrong" {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				fmt.Fprintf(w, `{"token":%q}`, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
				return
			}
			if b, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && tokens {
				pair, _ := base64.StdEncoding.DecodeString(b)
				user, password, _ = strings.Cut(string(pair), ":")
			}
			allowed := user == "team" && password == "secret" || tokens && r.URL.Path != "/v2/" && !strings.HasPrefix(r.URL.Path, "/v2/team/")
			if !strings.HasPrefix(r.UserAgent(), "touchstone/") || allowed {
				h.ServeHTTP(w, r)
				return
			}
			challenge := `Basic realm="x"`
			if tokens {
				challenge = `Bearer realm="http://` + r.Host + `/token",service="x"`
			}
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
		})
	}
}

func TestCredentials(t *testing.T) {
	for _, tokens := range []bool{false, true} {
		w := &world{imagetest.New(t, guarded(tokens)), t}
		image, public := w.Push("team/app", w.Image(imagetest.PlainLayer)), w.Push("public", w.Image(imagetest.PlainLayer))
		w.Sign(image, nil)
		w.Sign(public, nil)
		ring := func(users ...string) func(context.Context) (Keyring, error) {
			return func(context.Context) (k Keyring, err error) {
				for _, u := range users {
					one, err := ParseKeyring([]byte(fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":"secret"}}}`, w.Host, u)))
					w.must(err)
					k = append(k, one...)
				}
				return k, nil
			}
		}
		for _, c := range []struct {
			name  string
			image string
			users []string
			words string
		}{
			{"right", image, []string{"team"}, ""},
			{"none", image, nil, "it answered 401: of the credentials for team/app that are known here (0) none is accepted"},
			{"wrong", image, []string{"wrong"}, "(1) none is accepted"},
			{"another user", image, []string{"other"}, "(1) none is accepted"},
			{"the second", image, []string{"wrong", "other", "team"}, ""},
			{"beyond what is tried", image, []string{"a", "b", "c", "d", "team"}, "(5) none is accepted"},
		} {
			w.verdict(fmt.Sprintf("%s, tokens %v", c.name, tokens), w.checker(), c.image, Demand{SignedBy: []string{w.Key}, Credentials: ring(c.users...)}, c.words)
		}
		if tokens {
			w.verdict("public, anonymous", w.checker(), public, Demand{SignedBy: []string{w.Key}}, "")
		}
		c, err := New(Options{Insecure: []string{w.Host}, Keyring: func() (Keyring, error) { return ring("team")(ctx) }})
		w.must(err)
		w.verdict("the controller's own", c, image, Demand{SignedBy: []string{w.Key}}, "")
	}
}

func TestMirror(t *testing.T) {
	w := newWorld(t)
	image := w.Push("hub/library/app", w.Image(imagetest.PlainLayer))
	w.Sign(image, nil)
	_, digest, _ := strings.Cut(image, "@")
	c, err := New(Options{Registries: []string{"docker.io"}, Insecure: []string{w.Host}, Mirrors: map[string]string{"docker.io": w.Host + "/hub"}})
	w.must(err)
	report, err := c.Check(ctx, "app@"+digest, Demand{SignedBy: []string{w.Key}})
	if err != nil || report.Image != image {
		t.Errorf("Check at a mirror: %+v, %v", report, err)
	}
	w.verdict("another registry is not in the mirror's place", c, "registry.example/app@"+digest, Demand{SignedBy: []string{w.Key}}, "is not one that is asked")
}
