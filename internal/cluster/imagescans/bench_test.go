package imagescans

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

// signed is an AIAS that has one statement for every digest.
type signed struct {
	keys []byte
	said []protocol.ImageResult
}

func (s *signed) Image(context.Context, string) ([]protocol.ImageResult, error) { return s.said, nil }
func (s *signed) JWKS(context.Context) ([]byte, error)                          { return s.keys, nil }

// large is an AIAS whose image has as many rules and vulnerabilities as a large image of a distribution has.
func large(b *testing.B) *signed {
	b.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	key, err := result.NewKey(private)
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	var rules, flaws []string
	for i := range 300 {
		rules = append(rules, fmt.Sprintf("xccdf_org.ssgproject.content_rule_%03d medium pass", i))
	}
	for i := range 500 {
		flaws = append(flaws, fmt.Sprintf("CVE-2026-%04d low -", i))
	}
	image := looked(scan("baseline", now.Add(-time.Hour), rules...), flaws...)
	image.Manifest, image.Config, image.Issued, image.Expires, image.Flaws = digest, digest, now, now.Add(time.Hour), map[string]int{"low": len(flaws)}
	token, err := result.SignImage(key, image)
	if err != nil {
		b.Fatal(err)
	}
	keys, err := result.JWKS(key)
	if err != nil {
		b.Fatal(err)
	}
	return &signed{keys: keys, said: []protocol.ImageResult{{Statement: token}}}
}

// BenchmarkAdmission is what an image of 300 rules and 500 vulnerabilities costs at the admission of a pod: its class read, its scan known, or asked for and verified.
func BenchmarkAdmission(b *testing.B) {
	source := large(b)
	want := requirement(func(r *v1alpha1.ComplianceRequirement) {
		r.Vulnerabilities = &v1alpha1.VulnerabilityRequirement{Max: v1alpha1.VulnerabilityCounts{Low: -1}}
		for i := range 64 {
			r.Waivers = append(r.Waivers, v1alpha1.ImageWaiver{Vulnerability: fmt.Sprintf("CVE-2026-%04d", i), Repository: "registry.example/team/app", Reason: "r", Owner: "o", Until: metav1.NewTime(time.Now().Add(time.Hour))})
		}
	})
	for name, forget := range map[string]bool{"known": false, "asked": true} {
		b.Run(name, func(b *testing.B) {
			scans := New(source, time.Now)
			for b.Loop() {
				if forget {
					clear(scans.kept)
				}
				g, err := NewGate(want)
				if err != nil {
					b.Fatal(err)
				}
				v, err := scans.Judge(b.Context(), g, app)
				if err != nil || !v.Good() {
					b.Fatal(v, err)
				}
			}
		})
	}
}
