package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/internal/cluster/feed"
)

// TestReadyzWords: what keeps the process from being ready, and what is only named.
func TestReadyzWords(t *testing.T) {
	aias := newAIAS(t, time.Now)
	f := feed.New(feed.Options{Source: aias})
	h := &health{feed: f, elected: make(chan struct{}), now: time.Now}
	get := func() (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		return w.Code, w.Body.String()
	}
	want := func(code int, words ...string) {
		t.Helper()
		got, text := get()
		if got != code {
			t.Errorf("GET /readyz: got %d, want %d:\n%s", got, code, text)
		}
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("GET /readyz: want %q in:\n%s", word, text)
			}
		}
	}
	want(503, "not yet  caches: ", "warning  aias: no stream of results since ", "ok       leader: this replica stands by")
	h.synced.Store(true)
	want(200, "ok       caches: ", "warning  aias: ")
	var trouble error
	h.add("webhook", func(*http.Request) error { return trouble })
	want(200, "ok       webhook: ")
	trouble = errors.New("not started")
	want(503, "not yet  webhook: not started")
}

// TestReadyz: of two replicas both are ready, the one that leads and the one that stands by, also while AIAS is away, which both name.
func TestReadyz(t *testing.T) {
	w := newWorld(t)
	t.Cleanup(func() {
		_ = w.Delete(context.Background(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: leaderID, Namespace: "default"}})
	})
	get := func(address string) (int, string) {
		resp, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	addresses := []string{free(t), free(t)}
	replica := func(i int, word string) {
		t.Helper()
		w.eventually(addresses[i]+" is ready and says "+word, func() bool {
			code, text := get(addresses[i])
			return code == 200 && strings.Contains(text, word)
		})
	}
	for i, word := range []string{"this replica acts", "this replica stands by"} {
		w.run(func(o *Options) { o.LeaderElection, o.Namespace, o.Health = true, "default", addresses[i] })
		replica(i, word)
	}
	both := func(word string) {
		t.Helper()
		replica(0, word)
		replica(1, word)
	}
	both("its stream of results is open")
	w.aias.setDown(true)
	both("AIAS is down; nothing is renewed")
	w.aias.setDown(false)
	both("its stream of results is open")
}

// free is an address that nobody listens at.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
