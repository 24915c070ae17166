package webhook

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/imagescans"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

// scanned is what AIAS says of images, by digest, signed.
type scanned struct {
	keys []byte
	said map[string][]protocol.ImageResult
}

func (s *scanned) JWKS(context.Context) ([]byte, error) { return s.keys, nil }

func (s *scanned) Image(_ context.Context, digest string) ([]protocol.ImageResult, error) {
	if strings.HasSuffix(digest, "down") {
		return nil, errors.New("connection refused")
	}
	return s.said[digest], nil
}

// TestCompliance: pods of a class that asks for scans of images, at a real API server.
func TestCompliance(t *testing.T) {
	w := newWorld(t)
	key := func() *result.Key {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		w.must(err)
		k, err := result.NewKey(private)
		w.must(err)
		return k
	}
	ours, others := key(), key()
	jwks, err := result.JWKS(ours)
	w.must(err)
	s := &scanned{keys: jwks, said: map[string][]protocol.ImageResult{}}
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	say := func(c, about string, k *result.Key, change func(*result.Image)) {
		i := &result.Image{Manifest: digest(about), Config: digest("f"), Profile: "baseline", Passed: 9, Scanned: time.Now().Add(-time.Minute), Issued: time.Now(), Expires: time.Now().Add(time.Hour)}
		change(i)
		token, err := result.SignImage(k, i)
		w.must(err)
		s.said[digest(c)] = append(s.said[digest(c)], protocol.ImageResult{Statement: token})
	}
	say("1", "1", ours, func(*result.Image) {})
	say("2", "2", ours, func(i *result.Image) { i.Failed = map[string]int{"high": 1} })
	say("3", "3", ours, func(i *result.Image) { i.Scanned = time.Now().Add(-48 * time.Hour) })
	say("4", "4", ours, func(i *result.Image) { i.Flaws = map[string]int{"low": 2} })
	say("5", "5", others, func(*result.Image) {})
	say("6", "1", ours, func(*result.Image) {})
	say("7", "7", ours, func(i *result.Image) { i.Profile = "other" })
	stop := w.run(Options{Compliance: imagescans.New(s, time.Now)})
	defer stop()
	w.class("scanned", func(s *v1alpha1.TrustClassSpec) {
		s.Network.Isolation = v1alpha1.None
		s.Images.Digests = v1alpha1.Any
		s.Images.Compliance = &v1alpha1.ComplianceRequirement{Profile: "baseline", MaxAge: metav1.Duration{Duration: 24 * time.Hour}}
	})
	w.namespace("pay")
	image := func(c string) string { return "registry.example/app@" + digest(c) }
	w.eventually("an image that passed", func() error { return w.Create(ctx, pod("pay", "scanned", image("1"))) })
	for name, c := range map[string]struct{ image, want string }{
		"failed":              {image("2"), "1 rules fail (1 of high severity)"},
		"too old":             {image("3"), "older than 24h"},
		"vulnerable":          {image("4"), "2 known vulnerabilities"},
		"signed by others":    {image("5"), "not signed by a known key"},
		"about another image": {image("6"), "about another node or key"},
		"by another profile":  {image("7"), "has no scan of this digest by profile baseline"},
		"never scanned":       {image("8"), "touchstone image scan " + image("8") + " --profile baseline"},
		"by tag":              {"registry.example/app:1", "must be named by its digest"},
		"the second was not":  {image("1") + " " + image("8"), "image " + image("8")},
	} {
		if err := refusedWith(w.Create(ctx, pod("pay", "scanned", strings.Fields(c.image)...)), c.want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
