// Package imagescans decides by scans of images: it asks AIAS for them, and holds them against what a trust class asks (Gate). What AIAS says counts only with
// its signature (package result), and for a moment, so that a scan that fails is seen soon; when AIAS cannot be asked nothing is known, and whoever asks must
// refuse. Time is not kept: a waiver that ends, and a scan that gets too old, count at once.
package imagescans

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

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

// How long answers are kept. One by which an image does not pass may change as soon as somebody scans.
const (
	keepGood = 30 * time.Second
	keepBad  = 3 * time.Second
)

// askTime is how long AIAS may take.
const askTime = 8 * time.Second

// maxKept bounds what is kept: rules and vulnerabilities, of some 150 bytes each.
const maxKept = 200_000

// Scans knows scans of images. It is safe for concurrent use.
type Scans struct {
	source Source
	now    func() time.Time
	asking singleflight.Group

	mu   sync.Mutex
	kept map[string]*facts
	size int
}

// facts are what AIAS says of one digest, verified.
type facts struct {
	profiles map[string]*result.Image // the newest by each profile
	feed     *result.Image            // the newest that was held against a feed of vulnerabilities
	asked    time.Time
	size     int
}

// New returns Scans of an AIAS.
func New(source Source, now func() time.Time) *Scans {
	return &Scans{source: source, now: now, kept: map[string]*facts{}}
}

// Judge says what a gate says of an image, named by its digest. What is known may be keepGood old when the image passes by it, keepBad when it does not.
func (s *Scans) Judge(ctx context.Context, g *Gate, image string) (*Verdict, error) {
	repository, digest, err := Split(image)
	if err != nil {
		return nil, err
	}
	now := s.now()
	s.mu.Lock()
	have := s.kept[digest]
	s.mu.Unlock()
	if have != nil {
		age := now.Sub(have.asked)
		if v := g.judge(have, repository, digest, now); age >= 0 && (v.Good() && age < keepGood || age < keepBad) {
			return v, nil
		}
	}
	found, err, _ := s.asking.Do(digest, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime) // others wait for it, too
		defer cancel()
		return s.ask(ctx, digest, now)
	})
	if err != nil {
		return nil, err
	}
	return g.judge(found.(*facts), repository, digest, now), nil
}

func (s *Scans) ask(ctx context.Context, digest string, now time.Time) (*facts, error) {
	all, err := s.source.Image(ctx, digest)
	if err != nil {
		return nil, err
	}
	f := &facts{profiles: map[string]*result.Image{}, asked: now, size: 1}
	if len(all) > 0 {
		keys, err := s.source.JWKS(ctx)
		if err != nil {
			return nil, err
		}
		for i := range all {
			said, err := result.VerifyImage(all[i].Statement, keys, digest, now)
			if err != nil {
				return nil, err // one that cannot be believed may be the one that matters
			}
			f.take(said)
		}
	}
	s.keep(digest, f)
	return f, nil
}

func (f *facts) take(i *result.Image) {
	if have := f.profiles[i.Profile]; have == nil || i.Scanned.After(have.Scanned) {
		f.profiles[i.Profile] = i
	}
	if !i.FeedMade.IsZero() && (f.feed == nil || i.Scanned.After(f.feed.Scanned)) {
		f.feed = i
	}
	f.size += len(i.Rules) + len(i.Found)
}

func (s *Scans) keep(digest string, f *facts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.kept[digest]; have != nil {
		s.size -= have.size
	}
	if s.size+f.size > maxKept {
		clear(s.kept)
		s.size = 0
	}
	s.kept[digest] = f
	s.size += f.size
}
