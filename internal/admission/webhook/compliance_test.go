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
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/imagescans"
	"touchstone.dev/touchstone/internal/compliance/verdict"
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
	if digest == "sha256:"+strings.Repeat("d", 64) {
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
		i := &result.Image{Manifest: digest(about), Config: digest("f"), Profile: "baseline", Passed: 1, Rules: []verdict.Rule{{ID: "fine", Severity: "low", Outcome: "pass"}}, Scanned: time.Now().Add(-time.Minute), Issued: time.Now(), Expires: time.Now().Add(time.Hour)}
		change(i)
		token, err := result.SignImage(k, i)
		w.must(err)
		s.said[digest(c)] = append(s.said[digest(c)], protocol.ImageResult{Statement: token})
	}
	say("1", "1", ours, func(*result.Image) {})
	say("2", "2", ours, func(i *result.Image) { fail(i, "telnet") })
	say("3", "3", ours, func(i *result.Image) { i.Scanned = time.Now().Add(-48 * time.Hour) })
	say("4", "4", ours, func(i *result.Image) {
		i.FeedMade, i.Flaws = i.Scanned, map[string]int{"low": 1}
		i.Found = []verdict.Flaw{{ID: "CVE-2026-1", Severity: "low", Package: "p", Installed: "1", Fixed: "2"}}
	})
	say("5", "5", others, func(*result.Image) {})
	say("6", "1", ours, func(*result.Image) {})
	say("7", "7", ours, func(i *result.Image) { i.Profile = "other" })
	say("9", "9", ours, func(i *result.Image) { fail(i, "ftp") })
	say("a", "a", ours, func(i *result.Image) { i.Failed = map[string]int{"high": 1} }) // and does not name it
	stop := w.run(Options{Compliance: imagescans.New(s, time.Now)})
	defer stop()
	ends := time.Now().Add(20 * time.Second).Truncate(time.Second)
	w.class("scanned", func(s *v1alpha1.TrustClassSpec) {
		s.Network.Isolation = v1alpha1.None
		s.Images.Digests = v1alpha1.Any
		s.Images.Compliance = &v1alpha1.ComplianceRequirement{Profile: "baseline", MaxAge: metav1.Duration{Duration: 24 * time.Hour}, Waivers: []v1alpha1.ImageWaiver{
			{Rule: "ftp", Repository: "registry.example/app", Reason: "ticket 4711", Owner: "ops", Until: metav1.NewTime(ends)},
		}}
	})
	w.namespace("pay")
	image := func(c string) string { return "registry.example/app@" + digest(c) }
	w.eventually("an image that passed", func() error { return w.Create(ctx, pod("pay", "scanned", image("1"))) })
	w.must(w.Create(ctx, pod("pay", "scanned", image("9")))) // waived
	for name, c := range map[string]struct{ image, want string }{
		"failed":              {image("2"), "high rule telnet: fails; mend the image"},
		"too old":             {image("3"), "the compliance scan is too old (expected at most 24h0m0s"},
		"vulnerable":          {image("4"), "1 vulnerability of severity low, at most 0: CVE-2026-1 (p 1, mended in 2)"},
		"waived elsewhere":    {"registry.example/other@" + digest("9"), "high rule ftp: fails"},
		"by an older AIAS":    {image("a"), "AIAS is of an older version"},
		"AIAS is away":        {"registry.example/app@" + digest("d"), "AIAS cannot be asked for its scans: connection refused"},
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
	w.eventually("the waiver's end", func() error {
		return refusedWith(w.Create(ctx, pod("pay", "scanned", image("9"))), "the waiver of ops for ftp ended "+ends.UTC().Format(time.RFC3339))
	})
	if early := time.Until(ends); early > 0 {
		t.Errorf("the waiver ended %s before its end", early)
	}
}

// fail has a rule of high severity fail.
func fail(i *result.Image, rule string) {
	i.Failed = map[string]int{"high": 1}
	i.Rules = append(i.Rules, verdict.Rule{ID: rule, Severity: "high", Outcome: "fail"})
}

// TestComplianceMalformed: the API server refuses a class whose demands on scans say nothing, or too little.
func TestComplianceMalformed(t *testing.T) {
	w := newWorld(t)
	until := "until: \"2030-01-01T00:00:00Z\""
	for given, want := range map[string]string{
		"{maxAge: 24h}":            "profile, vulnerabilities or both must say",
		"{profile: p}":             "maxAge: Required",
		"{profile: p, maxAge: 0s}": "want a time that is more than nothing",
		"{profile: p, maxAge: 1d}": "maxAge",
		"{maxAge: 24h, vulnerabilities: {}, required: [x]}":                                                                   "name one",
		"{profile: p, maxAge: 24h, maxFailed: {high: -2}}":                                                                    "should be greater than or equal to -1",
		"{profile: p, maxAge: 24h, undecided: ignore}":                                                                        "Unsupported value",
		"{profile: p, maxAge: 24h, content: [x]}":                                                                             "should match",
		"{profile: p, maxAge: 24h, vulnerabilities: {maxFeedAge: 0s}}":                                                        "maxFeedAge: want a time",
		"{profile: p, maxAge: 24h, waivers: [{rule: r, owner: o, reason: r}]}":                                                "until: Required",
		"{profile: p, maxAge: 24h, waivers: [{rule: r, owner: o, reason: \"\", " + until + "}]}":                              "should be at least 1 chars",
		"{profile: p, maxAge: 24h, waivers: [{owner: o, reason: r, " + until + "}]}":                                          "a waiver names a rule or a vulnerability",
		"{profile: p, maxAge: 24h, waivers: [{rule: r, vulnerability: v, owner: o, reason: r, " + until + "}]}":               "a waiver names a rule or a vulnerability",
		"{profile: p, maxAge: 24h, waivers: [{rule: r, owner: o, reason: r, until: tomorrow}]}":                               "date-time",
		"{profile: p, maxAge: 24h, waivers: [{rule: r, owner: o, reason: r, repository: nginx, " + until + "}]}":              "should match",
		"{profile: p, maxAge: 24h, waivers: [{rule: r, owner: o, reason: r, digest: \"sha256:1\", " + until + "}]}":           "should match",
		"{profile: p, maxAge: 24h, waivers: [{rule: r, owner: o, reason: r, repository: registry.example/a, " + until + "}]}": "",
	} {
		c := &unstructured.Unstructured{}
		w.must(yaml.Unmarshal([]byte("apiVersion: touchstone.dev/v1alpha1\nkind: TrustClass\nmetadata: {name: c}\nspec: {images: {compliance: "+given+"}}\n"), &c.Object))
		err := w.Create(ctx, c)
		if want == "" {
			w.must(err)
		} else if err := refusedWith(err, want); err != nil {
			t.Errorf("%s: %v", given, err)
		}
	}
}
