package images

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/admission/images/imagetest"
)

const anyDigest = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// TestWhoIsAsked: a pod cannot have the controller ask whom it likes.
func TestWhoIsAsked(t *testing.T) {
	w := newWorld(t)
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer server.Close()
	local := strings.TrimPrefix(server.URL, "http://")
	ask := func(o Options, image string, registries ...string) string {
		t.Helper()
		c, err := New(o)
		w.must(err)
		_, err = c.Check(ctx, image, Demand{Encrypted: true, Registries: registries})
		if err == nil {
			t.Fatalf("Check(%s) passes", image)
		}
		return err.Error()
	}
	all := Options{Registries: []string{AnyRegistry}}
	for _, c := range []struct {
		name       string
		options    Options
		image      string
		registries []string
		want       string
	}{
		{"nobody named it", Options{}, "registry.example/app", nil, "is not one that is asked"},
		{"another is named", Options{Registries: []string{"other.example"}}, "registry.example/app", []string{"third.example/team/"}, "is not one that is asked"},
		{"another port", Options{Registries: []string{"registry.example"}}, "registry.example:444/app", nil, "is not one that is asked"},
		{"a prefix of the host", Options{}, "registry.example.evil/app", []string{"registry.example"}, "is not one that is asked"},
		{"Docker Hub is not named", Options{}, "app", []string{"registry.example/"}, "registry index.docker.io is not one"},
		{"any, and it is this machine", all, local + "/app", nil, "is not public"},
		{"any, and it is this machine by name", all, strings.Replace(local, "127.0.0.1", "localhost", 1) + "/app", nil, "is not public"},
		{"any, and it is in a private network", all, "10.0.0.1/app", nil, "address 10.0.0.1 is not public"},
		{"any, and it is the cloud's", all, "169.254.169.254/app", nil, "address 169.254.169.254 is not one of a registry"},
		{"named, and it is the cloud's", Options{Insecure: []string{"169.254.169.254"}}, "169.254.169.254/app", nil, "address 169.254.169.254 is not one of a registry"},
		{"named by the class, and it is the cloud's", Options{}, "[fd00:ec2::254]:443/app", []string{"[fd00:ec2::254]:443/"}, "address fd00:ec2::254 is not one of a registry"},
		{"without TLS", Options{Registries: []string{local}}, local + "/app", nil, "HTTP response to HTTPS client"},
	} {
		if got := ask(c.options, c.image+anyDigest, c.registries...); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %q", c.name, got, c.want)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	if got := ask(Options{}, local+"/app"+anyDigest, local+"/app"); !strings.Contains(got, "HTTPS client") {
		t.Errorf("named by the class: %s, want it to be asked", got)
	}
	for _, bad := range []Options{
		{Registries: []string{"https://registry.example"}}, {Registries: []string{""}}, {Insecure: []string{"a/b"}}, {Mirrors: map[string]string{"docker.io": ""}}, {CA: []byte("x")},
	} {
		if _, err := New(bad); err == nil {
			t.Errorf("New(%+v) passes", bad)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		address            string
		never, unlessNamed bool
	}{
		{"169.254.169.254", true, true}, {"fe80::1", true, true}, {"0.0.0.0", true, true}, {"::", true, true}, {"224.0.0.1", true, true},
		{"fd00:ec2::254", true, true}, {"100.100.100.200", true, true}, {"168.63.129.16", true, true},
		{"127.0.0.1", false, true}, {"::1", false, true}, {"10.1.2.3", false, true}, {"192.168.1.1", false, true}, {"fd12::1", false, true},
		{"100.64.0.1", false, true}, {"64:ff9b::a9fe:a9fe", false, true}, {"2002:a9fe:a9fe::1", false, true}, {"198.18.0.1", false, true}, {"0.1.2.3", false, true},
		{"1.1.1.1", false, false}, {"2606:4700:4700::1111", false, false},
	} {
		a := netip.MustParseAddr(c.address)
		if got := neverAsked(a) != nil; got != c.never {
			t.Errorf("neverAsked(%s) = %v, want %v", a, got, c.never)
		}
		if got := notPublic(a) != nil; got != c.unlessNamed {
			t.Errorf("notPublic(%s) = %v, want %v", a, got, c.unlessNamed)
		}
	}
}

// TestHostileRegistry: what a registry that is asked can do to us.
func TestHostileRegistry(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(func() {
		other.Close()
		if n := elsewhere.Load(); n != 0 {
			t.Errorf("another server was asked %d times", n)
		}
	})
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				http.Redirect(w, r, to, http.StatusTemporaryRedirect)
			}
		}
	}
	challenge := func(realm string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"redirect to the cloud's address", redirect("http://169.254.169.254/latest/meta-data"), "not asked without TLS"},
		{"redirect to the cloud's address by HTTPS", redirect("https://169.254.169.254/latest/meta-data"), "is not one of a registry"},
		{"redirect to this machine", redirect(strings.Replace(other.URL, "http:", "https:", 1)), "is not public"},
		{"redirect to this machine without TLS", redirect(other.URL), "not asked without TLS"},
		{"redirect to a file", redirect("file:///etc/passwd"), "address that is none"},
		{"redirect in a circle", redirect("/v2/app/x"), "redirects"},
		{"token service at the cloud's address", challenge("https://169.254.169.254/token"), "169.254.169.254"},
		{"token service at this machine", challenge(strings.Replace(other.URL, "http:", "https:", 1)), "private"},
		{"error text", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "secret words", http.StatusTeapot) }, "it answered 418"},
		{"another manifest than the one asked for", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"schemaVersion":2,"layers":[{"mediaType":%q,"annotations":{%q:""}}]}`, imagetest.EncryptedLayer, wrappedKey+"jwe")
		}, "other bytes than those of sha256:aaaa"},
		{"silence", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "it did not answer in time"},
		{"endless headers", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxHeader))
		}, "headers"},
		{"words without end", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil && r.Method != http.MethodHead {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, "more than 1048576 bytes"},
		{"a word a second", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" || r.Method == http.MethodHead {
				return
			}
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(" "))
				w.(http.Flusher).Flush()
				time.Sleep(100 * time.Millisecond)
			}
		}, "it did not answer in time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(c.handler)
			defer server.Close()
			host := strings.TrimPrefix(server.URL, "http://")
			checker, err := New(Options{Insecure: []string{host}})
			if err != nil {
				t.Fatal(err)
			}
			checker.limit = time.Second
			started := time.Now()
			_, err = checker.Check(ctx, host+"/app"+anyDigest, Demand{Encrypted: true})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret words") {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if took := time.Since(started); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	r := imagetest.New(t, nil)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		q.URL.Scheme, q.URL.Host = "http", r.Host
		http.Redirect(w, q, q.URL.String(), http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "https://")
	c, err := New(Options{Registries: []string{host}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check(ctx, host+"/app"+anyDigest, Demand{Encrypted: true}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody: %v", err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if c, err = New(Options{Registries: []string{host}, CA: ca}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check(ctx, host+"/app"+anyDigest, Demand{Encrypted: true}); err == nil || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("a redirect away from TLS: %v", err)
	}
}
