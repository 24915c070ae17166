package images

import (
	"context"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/admission/images/imagetest"
)

var ctx = context.Background()

// world is a registry, and what is found out about its images.
type world struct {
	*imagetest.Registry
	t testing.TB
}

func newWorld(t testing.TB) *world { return &world{imagetest.New(t, nil), t} }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// checker asks the world's registry without TLS.
func (w *world) checker() *Checker {
	w.t.Helper()
	c, err := New(Options{Insecure: []string{w.Host}})
	w.must(err)
	return c
}

// verdict compares the answer of a check with the words that it must have; "" wants none.
func (w *world) verdict(what string, c *Checker, image string, want Demand, words string) {
	w.t.Helper()
	r, err := c.Check(ctx, image, want)
	switch {
	case words == "" && (err != nil || r == nil):
		w.t.Errorf("%s: %v, want it to pass", what, err)
	case words != "" && (err == nil || !strings.Contains(err.Error(), words)):
		w.t.Errorf("%s: got error %v, want one with %q", what, err, words)
	case words != "" && r != nil:
		w.t.Errorf("%s: a report beside an error", what)
	}
}
