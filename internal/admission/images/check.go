package images

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
	"k8s.io/apimachinery/pkg/util/cache"

	"touchstone.dev/touchstone/internal/admission/signature"
)

// How long answers are kept. A digest never means something else, so a good one could be kept for ever; a bad one may change as soon as somebody signs.
const (
	keepGood = 12 * time.Hour
	keepBad  = 10 * time.Second
)

// Limits of the work at one time.
const (
	maxAnswers = 8192
	maxFlights = 16
	// checkTime bounds one check. The webhook has 15 seconds for a pod.
	checkTime = 8 * time.Second
)

// Demand is what an image must show, and for whom it is looked at.
type Demand struct {
	// SignedBy are public keys (PEM) of which one must have signed the image. None: it need not be signed.
	SignedBy []string
	// Encrypted: every layer is encrypted.
	Encrypted bool
	// Registries are prefixes of image names; their hosts may be asked, besides those of the options.
	Registries []string
	// Scope is whose credentials they are: a bad answer is kept for that scope only, as credentials may be the reason of it.
	Scope string
	// Credentials returns those for the registry. Nil: those of the options only.
	Credentials func(context.Context) (Keyring, error)
}

// Report tells what was found.
type Report struct {
	// Image is the repository that was asked, and the digest.
	Image string `json:"image"`
	// Signer is the fingerprint of the key that signed (SHA-256 of its PKIX form), Form "simple signing" or "bundle". Empty: no signature was demanded.
	Signer string `json:"signer,omitempty"`
	Form   string `json:"form,omitempty"`
	// EncryptedLayers of all manifests. Zero: encryption was not demanded.
	EncryptedLayers int `json:"encryptedLayers,omitempty"`
}

// answer is what the cache keeps.
type answer struct {
	report *Report
	err    error
}

// Checker decides on images. It is safe for concurrent use.
type Checker struct {
	policy  *policy
	guard   *guard
	answers *cache.LRUExpireCache
	flights singleflight.Group
	room    chan struct{}
	limit   time.Duration // of one check
	seconds *prometheus.HistogramVec
}

// New returns a Checker.
func New(o Options) (*Checker, error) {
	p, err := o.policy()
	if err != nil {
		return nil, err
	}
	return &Checker{policy: p, guard: newGuard(p), answers: cache.NewLRUExpireCache(maxAnswers), room: make(chan struct{}, maxFlights), limit: checkTime, seconds: newSeconds()}, nil
}

// Check returns what it found when the image is what is demanded. The error is for the person who wants to run it.
func (c *Checker) Check(ctx context.Context, image string, want Demand) (*Report, error) {
	if !strings.Contains(image, "@sha256:") {
		return nil, errors.New("it must be named by its digest (name@sha256:...): a tag can mean another image by the time it is pulled")
	}
	ref, err := name.NewDigest(image)
	if err != nil || !isDigest(ref.DigestStr()) {
		return nil, errors.New("its name cannot be read, want REGISTRY/NAME@sha256: and 64 hexadecimal digits")
	}
	hosts := c.policy.asks(want.Registries)
	repo, err := c.policy.locate(ref, hosts)
	if err != nil {
		return nil, err
	}
	good := question(repo.Name(), ref.DigestStr(), want)
	if kept, ok := c.answers.Get(good); ok {
		return kept.(answer).report, nil
	}
	bad := good + "\n" + want.Scope
	if kept, ok := c.answers.Get(bad); ok {
		return nil, kept.(answer).err
	}
	// What runs serves everybody who asks the same, so it does not end when the first of them goes away.
	flight := c.flights.DoChan(bad, func() (any, error) {
		apart, cancel := context.WithTimeout(within(context.WithoutCancel(ctx), hosts), c.limit)
		defer cancel()
		started := time.Now()
		report, err := c.survive(func() (*Report, error) { return c.look(apart, repo, ref.DigestStr(), want) })
		c.observe(time.Since(started), err)
		if err != nil {
			c.answers.Add(bad, answer{err: err}, keepBad)
			return nil, err
		}
		c.answers.Add(good, answer{report: report}, keepGood)
		return report, nil
	})
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("registry %s: it did not answer in time", repo.RegistryStr())
	case r := <-flight:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*Report), nil
	}
}

// survive makes an error of a panic: a flight has nobody above it who would, and what registries write goes through code that is not ours.
func (*Checker) survive(look func() (*Report, error)) (report *Report, err error) {
	defer func() {
		if p := recover(); p != nil {
			report, err = nil, fmt.Errorf("the check failed, please report it: %v", p)
		}
	}()
	return look()
}

// question is the key of an answer: the image, and what is demanded. Keys count as they are written, so that a cached answer costs no parsing.
func question(repo, digest string, want Demand) string {
	h := sha256.New()
	for _, text := range want.SignedBy {
		_ = binary.Write(h, binary.BigEndian, uint64(len(text))) // a hash does not fail
		h.Write([]byte(text))
	}
	return fmt.Sprintf("%s@%s %x %t", repo, digest, h.Sum(nil), want.Encrypted)
}

// look asks the registry, when there is room for one more question.
func (c *Checker) look(ctx context.Context, repo name.Repository, digest string, want Demand) (*Report, error) {
	var keys *signature.Keys
	if len(want.SignedBy) > 0 {
		var err error
		if keys, err = signature.ParseKeys(want.SignedBy); err != nil {
			return nil, fmt.Errorf("images.signedBy: %w", err)
		}
	}
	select {
	case c.room <- struct{}{}:
		defer func() { <-c.room }()
	case <-ctx.Done():
		return nil, errors.New("too many images are being looked at; try again")
	}
	report, err := c.ask(ctx, repo, digest, keys, want)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", repo.RegistryStr(), err)
	}
	return report, nil
}

// ask finds out what the registry has.
func (c *Checker) ask(ctx context.Context, repo name.Repository, digest string, keys *signature.Keys, want Demand) (*Report, error) {
	source, err := c.login(ctx, repo, digest, want)
	if err != nil {
		return nil, err
	}
	report := &Report{Image: repo.Name() + "@" + digest}
	if keys != nil {
		s := &search{source: source, keys: keys, digest: digest}
		f, err := s.run(ctx)
		if err != nil {
			return nil, err
		}
		report.Signer, report.Form = f.signer, f.form
	}
	if want.Encrypted {
		if report.EncryptedLayers, err = source.encrypted(ctx, digest); err != nil {
			return nil, err
		}
	}
	return report, nil
}
