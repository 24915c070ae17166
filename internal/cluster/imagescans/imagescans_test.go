package imagescans

import (
	"context"
	"errors"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

// silent is an AIAS that knows of no scan, and counts who asks.
type silent struct {
	asked int
	err   error
}

func (s *silent) Image(context.Context, string) ([]protocol.ImageResult, error) {
	s.asked++
	return nil, s.err
}

func (*silent) JWKS(context.Context) ([]byte, error) { return nil, errors.New("not asked") }

// TestNewest: that there is no scan is kept for a moment, that AIAS is away is not.
func TestNewest(t *testing.T) {
	now, s := time.Unix(1_800_000_000, 0), &silent{}
	scans := New(s, func() time.Time { return now })
	for i, wait := range []time.Duration{0, keepBad - 1, 1} {
		now = now.Add(wait)
		if got, err := scans.Newest(t.Context(), "sha256:x", "p"); got != nil || err != nil {
			t.Errorf("%d: got %v, %v, want none", i, got, err)
		}
	}
	if s.asked != 2 {
		t.Errorf("AIAS was asked %d times, want 2", s.asked)
	}
	s.err = errors.New("away")
	for range 2 {
		if _, err := scans.Newest(t.Context(), "sha256:y", "p"); err == nil {
			t.Error("AIAS is away, and the answer was taken")
		}
	}
	if s.asked != 4 {
		t.Errorf("AIAS was asked %d times, want 4", s.asked)
	}
}

func TestProblem(t *testing.T) {
	for name, c := range map[string]struct {
		image result.Image
		good  bool
	}{
		"passed":     {result.Image{Passed: 3, Failed: map[string]int{}, Flaws: map[string]int{"low": 0}}, true},
		"nothing":    {result.Image{}, false},
		"failed":     {result.Image{Passed: 3, Failed: map[string]int{"low": 1}}, false},
		"vulnerable": {result.Image{Passed: 3, Flaws: map[string]int{"unknown": 1}}, false},
	} {
		if got := Problem(&c.image); (got == "") != c.good {
			t.Errorf("%s: got %q", name, got)
		}
	}
}
