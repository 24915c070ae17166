package images

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"touchstone.dev/touchstone/internal/admission/images/imagetest"
)

// counted is a world that counts the questions of checkers, and can answer none of them, or late.
func counted(t testing.TB) (w *world, asked *atomic.Int32, away *atomic.Bool, delay *atomic.Int64) {
	asked, away, delay = &atomic.Int32{}, &atomic.Bool{}, &atomic.Int64{}
	r := imagetest.New(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.UserAgent(), "touchstone/") {
				asked.Add(1)
				time.Sleep(time.Duration(delay.Load()))
				if away.Load() {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
			}
			h.ServeHTTP(w, r)
		})
	})
	return &world{r, t}, asked, away, delay
}

func TestAnswersAreKept(t *testing.T) {
	w, asked, away, _ := counted(t)
	c := w.checker()
	good, bad := w.Push("good", w.Image(imagetest.PlainLayer)), w.Push("bad", w.Image(imagetest.PlainLayer, imagetest.PlainLayer))
	w.Sign(good, nil)
	_, other := imagetest.NewKey(t)
	want := Demand{SignedBy: []string{w.Key}}
	w.verdict("first", c, good, want, "")
	n := asked.Load()
	away.Store(true)
	w.verdict("again, with the registry away", c, good, want, "")
	if asked.Load() != n {
		t.Errorf("a kept answer cost %d questions", asked.Load()-n)
	}
	w.verdict("other keys", c, good, Demand{SignedBy: []string{other}}, "it answered 503")
	w.verdict("keys cut otherwise", c, good, Demand{SignedBy: []string{w.Key[:100], w.Key[100:]}}, "images.signedBy")
	w.verdict("one more demand", c, good, Demand{SignedBy: []string{w.Key}, Encrypted: true}, "it answered 503")
	w.verdict("bad", c, bad, want, "it answered 503")
	away.Store(false)
	n = asked.Load()
	w.verdict("bad, a moment later", c, bad, want, "it answered 503")
	if asked.Load() != n {
		t.Error("a bad answer was not kept")
	}
	w.verdict("bad, for somebody else", c, bad, Demand{SignedBy: want.SignedBy, Scope: "other"}, "it is not signed")
	r := prometheus.NewRegistry()
	w.must(r.Register(c.Metrics()))
	families, err := r.Gather()
	w.must(err)
	got := map[string]uint64{}
	for _, m := range families[0].GetMetric() {
		got[m.GetLabel()[0].GetValue()] = m.GetHistogram().GetSampleCount()
	}
	if want := map[string]uint64{"passed": 1, "refused": 2, "unanswered": 3}; !maps.Equal(got, want) {
		t.Errorf("checks by outcome: %v, want %v", got, want)
	}
	if keepBad > 15*time.Second || keepGood < time.Hour {
		t.Errorf("answers are kept for %s and %s", keepBad, keepGood)
	}
}

func TestPanic(t *testing.T) {
	w := newWorld(t)
	_, err := w.checker().Check(ctx, w.Host+"/app"+anyDigest, Demand{Encrypted: true, Credentials: func(context.Context) (Keyring, error) { panic("at the disco") }})
	if err == nil || !strings.Contains(err.Error(), "at the disco") {
		t.Errorf("a panic on the way: %v", err)
	}
}

// TestOneFlight: many pods with the same image are one question, and one that gives up does not end it for the others.
func TestOneFlight(t *testing.T) {
	w, asked, _, delay := counted(t)
	good := w.Push("good", w.Image(imagetest.PlainLayer))
	w.Sign(good, nil)
	want := Demand{SignedBy: []string{w.Key}}
	w.verdict("alone", w.checker(), good, want, "")
	alone := asked.Swap(0)

	c := w.checker()
	delay.Store(int64(100 * time.Millisecond))
	hasty, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Check(hasty, good, want); err == nil || !strings.Contains(err.Error(), "in time") {
			t.Errorf("who does not wait gets %v", err)
		}
	})
	time.Sleep(20 * time.Millisecond)
	for range 50 {
		wg.Go(func() {
			if _, err := c.Check(ctx, good, want); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := asked.Load(); got != alone {
		t.Errorf("51 checks at once: %d questions, want %d", got, alone)
	}
}

// BenchmarkKept is what a pod costs whose image was looked at before.
func BenchmarkKept(b *testing.B) {
	w, _, _, _ := counted(b)
	c := w.checker()
	good := w.Push("good", w.Image(imagetest.PlainLayer))
	w.Sign(good, nil)
	want := Demand{SignedBy: []string{w.Key}, Registries: []string{w.Host + "/"}}
	for b.Loop() {
		if _, err := c.Check(ctx, good, want); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAsked is what the first one costs, with the registry on this machine.
func BenchmarkAsked(b *testing.B) {
	w, _, _, _ := counted(b)
	good := w.Push("good", w.Image(imagetest.PlainLayer))
	w.Sign(good, nil)
	want := Demand{SignedBy: []string{w.Key}}
	for b.Loop() {
		if _, err := w.checker().Check(ctx, good, want); err != nil {
			b.Fatal(err)
		}
	}
}
