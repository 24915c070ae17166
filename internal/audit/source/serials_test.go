package source

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSerials(t *testing.T) {
	now := time.Unix(1000, 0)
	var s serials
	for _, n := range []uint64{5, 6, 9, 8, 12} {
		if !s.add(n, now) {
			t.Errorf("add(%d): was there, want new", n)
		}
	}
	for _, n := range []uint64{5, 9, 12} {
		if s.add(n, now) {
			t.Errorf("add(%d) again: new, want was there", n)
		}
	}
	if diff := cmp.Diff([]span{{5, 6}, {8, 9}, {12, 12}}, s.spans); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
	if h, ok := s.overdue(now); ok {
		t.Errorf("overdue at once: got %v, want none", h)
	}
	h, ok := s.overdue(now.Add(time.Second))
	if !ok || h != (span{7, 7}) {
		t.Errorf("overdue: got %v, %v, want 7", h, ok)
	}
	s.name(h)
	if h, _ = s.overdue(now.Add(time.Second)); h != (span{10, 11}) {
		t.Errorf("overdue: got %v, want 10 to 11", h)
	}
	s.name(h)
	if diff := cmp.Diff([]span{{5, 12}}, s.spans); diff != "" {
		t.Errorf("spans after naming (-want +got):\n%s", diff)
	}
	// What was given as a gap is still new when it comes, once.
	if s.has(11) || !s.add(11, now) || s.add(11, now) || !s.has(11) {
		t.Error("the number of a named hole: want new once")
	}
	if !s.add(10, now) || !s.add(7, now) || len(s.named) != 0 {
		t.Errorf("named holes after all were filled: %v", s.named)
	}
}

// TestSerialsRandom: against a map, in any order.
func TestSerialsRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		var s serials
		seen := map[uint64]bool{}
		for range 2000 {
			n := 1 + rng.Uint64N(1500)
			if got := s.add(n, time.Time{}); got == seen[n] {
				t.Fatalf("add(%d): got %v, want %v", n, got, !seen[n])
			}
			seen[n] = true
			if rng.IntN(20) == 0 {
				if h, ok := s.overdue(time.Unix(1, 0)); ok {
					for n := h.First; n <= h.Last; n++ {
						if seen[n] {
							t.Fatalf("hole %v holds %d, which was added", h, n)
						}
					}
					s.name(h)
				}
			}
		}
		var back serials
		if !back.restore(s.spans, s.named, time.Time{}) {
			t.Fatalf("restore refuses %v", s.spans)
		}
		for n := uint64(1); n <= 1500; n++ {
			if back.has(n) != seen[n] {
				t.Fatalf("has(%d): got %v, want %v", n, back.has(n), seen[n])
			}
		}
	}
	var s serials
	for _, bad := range [][]span{{{5, 4}}, {{1, 5}, {5, 6}}, {{7, 8}, {1, 2}}} {
		if s.restore(bad, nil, time.Time{}) {
			t.Errorf("restore(%v): taken, want refused", bad)
		}
	}
}
