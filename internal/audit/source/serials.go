package source

import (
	"slices"
	"time"
)

// span is a range of serial numbers, both ends included.
type span struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// serials are the numbers of one boot that were handed out, as ranges in order: nearly always one.
type serials struct {
	spans []span
	since []time.Time // since[i]: since when there is a hole before spans[i]
	// named are holes that were given as a gap. They lie in spans, but what comes out of them late is still new.
	named []span
}

// maxSpans bounds the ranges of one boot; more holes than that are named at once.
const maxSpans = 4096

// maxNamed bounds the named holes that may still be filled.
const maxNamed = 1024

// add takes a number in, and returns false when it was there before.
func (s *serials) add(n uint64, now time.Time) bool {
	i, found := s.find(n)
	if found {
		return s.unname(n)
	}
	left := i > 0 && s.spans[i-1].Last+1 == n
	right := i < len(s.spans) && s.spans[i].First == n+1
	switch {
	case left && right:
		s.spans[i-1].Last = s.spans[i].Last
		s.drop(i)
	case left:
		s.spans[i-1].Last = n
	case right:
		s.spans[i].First = n
	default:
		s.spans = slices.Insert(s.spans, i, span{n, n})
		s.since = slices.Insert(s.since, i, now)
	}
	return true
}

// has reports whether n was taken in.
func (s *serials) has(n uint64) bool {
	_, found := s.find(n)
	return found && !slices.ContainsFunc(s.named, func(h span) bool { return h.First <= n && n <= h.Last })
}

// find returns the range that n lies in, or where one with n would stand.
func (s *serials) find(n uint64) (int, bool) {
	return slices.BinarySearchFunc(s.spans, n, func(sp span, n uint64) int {
		switch {
		case sp.Last < n:
			return -1
		case sp.First > n:
			return 1
		}
		return 0
	})
}

func (s *serials) drop(i int) {
	s.spans = slices.Delete(s.spans, i, i+1)
	s.since = slices.Delete(s.since, i, i+1)
}

// unname takes n out of the named holes; false when it is in none.
func (s *serials) unname(n uint64) bool {
	for i, h := range s.named {
		if n < h.First || h.Last < n {
			continue
		}
		rest := make([]span, 0, 2)
		if h.First < n {
			rest = append(rest, span{h.First, n - 1})
		}
		if n < h.Last {
			rest = append(rest, span{n + 1, h.Last})
		}
		s.named = slices.Replace(s.named, i, i+1, rest...)
		return true
	}
	return false
}

// name closes a hole that is given as a gap, wherever it lies.
func (s *serials) name(h span) {
	i, found := s.find(h.First)
	if found || i == 0 || i == len(s.spans) {
		return
	}
	s.spans[i-1].Last = s.spans[i].Last
	s.drop(i)
	s.named = append(s.named, h)
	if len(s.named) > maxNamed {
		s.named = slices.Delete(s.named, 0, 1)
	}
}

// overdue returns the oldest hole that has been one since before the given time, or that is one too many.
func (s *serials) overdue(before time.Time) (span, bool) {
	for i := 1; i < len(s.spans); i++ {
		if s.since[i].Before(before) || len(s.spans) > maxSpans {
			return span{s.spans[i-1].Last + 1, s.spans[i].First - 1}, true
		}
	}
	return span{}, false
}

// last returns the highest number, 0 when there is none.
func (s *serials) last() uint64 {
	if len(s.spans) == 0 {
		return 0
	}
	return s.spans[len(s.spans)-1].Last
}

// restore makes the set of a checkpoint's ranges; false when they are not in order.
func (s *serials) restore(spans, named []span, now time.Time) bool {
	for i, sp := range spans {
		if sp.Last < sp.First || i > 0 && sp.First <= spans[i-1].Last {
			return false
		}
	}
	s.spans, s.named = slices.Clone(spans), slices.Clone(named)
	s.since = make([]time.Time, len(spans))
	for i := range s.since {
		s.since[i] = now
	}
	return true
}
