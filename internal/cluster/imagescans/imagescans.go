// Package imagescans asks AIAS for scans of images, for the admission of pods. What AIAS says counts only with its signature (package result), and for a
// moment, so that a scan that fails is seen soon; when AIAS cannot be asked nothing is known, and whoever asks must refuse.
package imagescans

import (
	"context"
	"fmt"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

// Source is AIAS, as an operator.Client is.
type Source interface {
	// Image returns the newest scans of an image by its digest, one for each profile.
	Image(ctx context.Context, digest string) ([]protocol.ImageResult, error)
	// JWKS is the JSON Web Key Set that statements are signed with.
	JWKS(ctx context.Context) ([]byte, error)
}

// How long answers are kept, and how many. A bad one may change as soon as somebody scans.
const (
	keepGood = 30 * time.Second
	keepBad  = 3 * time.Second
	most     = 4096
)

// Scans knows scans of images. It is safe for concurrent use.
type Scans struct {
	source Source
	now    func() time.Time

	mu   sync.Mutex
	kept map[string]answer
}

type answer struct {
	image *result.Image
	until time.Time
}

// New returns Scans of an AIAS.
func New(source Source, now func() time.Time) *Scans {
	return &Scans{source: source, now: now, kept: map[string]answer{}}
}

// Newest returns what AIAS says of the newest scan of an image by a profile; nil when there is none.
func (s *Scans) Newest(ctx context.Context, digest, profile string) (*result.Image, error) {
	key, now := digest+" "+profile, s.now()
	s.mu.Lock()
	a, ok := s.kept[key]
	s.mu.Unlock()
	if ok && now.Before(a.until) {
		return a.image, nil
	}
	image, err := s.ask(ctx, digest, profile, now)
	if err != nil {
		return nil, err
	}
	a = answer{image, now.Add(keepBad)}
	if image != nil && Problem(image) == "" {
		a.until = now.Add(keepGood)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) >= most {
		clear(s.kept)
	}
	s.kept[key] = a
	return image, nil
}

func (s *Scans) ask(ctx context.Context, digest, profile string, now time.Time) (*result.Image, error) {
	all, err := s.source.Image(ctx, digest)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	keys, err := s.source.JWKS(ctx)
	if err != nil {
		return nil, err
	}
	var newest *result.Image
	for i := range all {
		said, err := result.VerifyImage(all[i].Statement, keys, digest, now)
		if err != nil {
			return nil, err // one that cannot be believed may be the one that matters
		}
		if said.Profile == profile && (newest == nil || said.Scanned.After(newest.Scanned)) {
			newest = said
		}
	}
	return newest, nil
}

// Problem says why an image does not pass by what AIAS says of it; "" when it passes: something was judged, no rule failed or stayed undecided, and no
// vulnerability was found, if a feed was asked.
func Problem(i *result.Image) string {
	count := func(n map[string]int) (all int) {
		for _, v := range n {
			all += v
		}
		return all
	}
	switch failed, flaws := count(i.Failed), count(i.Flaws); {
	case failed > 0:
		return fmt.Sprintf("%d rules fail (%d of high severity)", failed, i.Failed["high"])
	case flaws > 0:
		return fmt.Sprintf("it has %d known vulnerabilities", flaws)
	case i.Passed == 0:
		return "no rule passed"
	}
	return ""
}
