package imagescans

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/result"
)

// defaultFeedAge is how old a feed may be of which a class says no age: what the API server fills in.
const defaultFeedAge = 7 * 24 * time.Hour

// Gate is what a class asks of the scans of an image.
type Gate struct {
	profile string // empty: no scan by a profile is needed
	feed    bool   // the image must have been held against a feed
	rules   verdict.Rules
	flaws   verdict.FlawRules
	waivers []waiver
}

type waiver struct {
	verdict.Waiver
	repository, digest string // empty: any
}

// NewGate reads what a class asks. What it cannot read is an error, and asks for nothing: the API server's own checks may have been passed by, or be of another version.
func NewGate(want *v1alpha1.ComplianceRequirement) (*Gate, error) {
	bad := func(format string, a ...any) (*Gate, error) {
		return nil, fmt.Errorf("images.compliance."+format, a...)
	}
	g := &Gate{profile: want.Profile, feed: want.Vulnerabilities != nil, rules: verdict.Rules{
		Profile: want.Profile, Content: want.Content, Tailoring: want.Tailorings, MaxAge: want.MaxAge.Duration, Required: want.Required,
		IgnoreUndecided: want.Undecided == v1alpha1.Ignore, MinScore: float64(want.MinScore),
	}}
	switch {
	case want.MaxAge.Duration <= 0:
		return bad("maxAge is %s: want a time that is more than nothing, such as 168h", want.MaxAge.Duration)
	case g.profile == "" && !g.feed:
		return bad("profile: what are images scanned for? Name a profile, or ask for vulnerabilities")
	case want.Undecided != "" && want.Undecided != v1alpha1.Fail && want.Undecided != v1alpha1.Ignore:
		return bad("undecided is %.40q: want Fail or Ignore", want.Undecided)
	case want.MinScore < 0 || want.MinScore > 100:
		return bad("minScore is %d: want 0 to 100", want.MinScore)
	}
	if slices.Contains(g.rules.Content, content.Name) {
		g.rules.Content = append(slices.Clone(g.rules.Content), content.Digest())
	}
	if m := want.MaxFailed; m != nil {
		g.rules.MaxFailed = verdict.Budget{High: int(m.High), Medium: int(m.Medium), Low: int(m.Low)}
	}
	g.flaws.MaxAge = want.MaxAge.Duration
	if v := want.Vulnerabilities; v != nil {
		if v.Unfixed != "" && v.Unfixed != v1alpha1.Count && v.Unfixed != v1alpha1.Ignore {
			return bad("vulnerabilities.unfixed is %.40q: want Count or Ignore", v.Unfixed)
		}
		g.flaws.IgnoreUnfixed, g.flaws.FeedAge, g.flaws.Max = v.Unfixed == v1alpha1.Ignore, defaultFeedAge, verdict.FlawBudget{
			"critical": int(v.Max.Critical), "high": int(v.Max.High), "medium": int(v.Max.Medium), "low": int(v.Max.Low), "unknown": int(v.Max.Unknown),
		}
		if v.MaxFeedAge != nil {
			g.flaws.FeedAge = v.MaxFeedAge.Duration
		}
		if g.flaws.FeedAge <= 0 {
			return bad("vulnerabilities.maxFeedAge is %s: want a time that is more than nothing, such as 168h", g.flaws.FeedAge)
		}
	}
	for i := range want.Waivers {
		w, err := newWaiver(&want.Waivers[i])
		if err != nil {
			return bad("waivers[%d]: %w", i, err)
		}
		g.waivers = append(g.waivers, w)
	}
	return g, nil
}

func newWaiver(w *v1alpha1.ImageWaiver) (waiver, error) {
	out := waiver{verdict.Waiver{Rule: w.Rule, Flaw: w.Vulnerability, Reason: w.Reason, Owner: w.Owner, Until: w.Until.Time}, "", w.Digest}
	switch {
	case (w.Rule == "") == (w.Vulnerability == ""):
		return out, errors.New("want a rule or a vulnerability, and not both")
	case w.Reason == "" || w.Owner == "" || w.Until.IsZero():
		return out, errors.New("want a reason, an owner and an end (until)")
	}
	if w.Repository != "" {
		repository, err := name.NewRepository(w.Repository, name.WeakValidation)
		if err != nil {
			return out, fmt.Errorf("repository: %w", err)
		}
		out.repository = repository.Name()
	}
	return out, nil
}

// waiversOf are those that hold for an image.
func (g *Gate) waiversOf(repository, digest string) []verdict.Waiver {
	var out []verdict.Waiver
	for i := range g.waivers {
		w := &g.waivers[i]
		if (w.repository == "" || w.repository == repository) && (w.digest == "" || w.digest == digest) {
			out = append(out, w.Waiver)
		}
	}
	return out
}

// Split divides the name of an image into repository and digest. One that is not named by a digest can be another image by the time it is pulled.
func Split(image string) (repository, digest string, err error) {
	d, err := name.NewDigest(image, name.WeakValidation)
	if err != nil || !strings.HasPrefix(d.DigestStr(), "sha256:") {
		return "", "", errors.New("it must be named by its digest (name@sha256:...): a tag can mean another image by the time it is pulled")
	}
	return d.Context().Name(), d.DigestStr(), nil
}

// Verdict is what a gate says of an image.
type Verdict struct {
	Scan *result.Image // by the profile; nil: none is there, or none is asked for
	Feed *result.Image // the newest that was held against a feed; nil: none
	// Missing says what was not looked for; empty: all that the class asks for.
	Missing string
	verdict.Judgement
	// Next is when the gate may say something else of the same scans; zero: never.
	Next time.Time
}

// Good reports whether the image passes.
func (v *Verdict) Good() bool { return v.Missing == "" && v.Judgement.Good() }

// Profile is the profile by which images must have been scanned; empty: by none.
func (g *Gate) Profile() string { return g.profile }

// Feed reports whether images must have been held against a feed of vulnerabilities.
func (g *Gate) Feed() bool { return g.feed }

// Rules are those that an image of a repository (as Repository names it) and a digest is held against.
func (g *Gate) Rules(repository, digest string) (*verdict.Rules, *verdict.FlawRules) {
	rules, flaws := g.rules, g.flaws
	rules.Waivers = g.waiversOf(repository, digest)
	flaws.Waivers = rules.Waivers
	return &rules, &flaws
}

// Repository is the repository of an image, with its registry, in the form that waivers are compared in; "" of what names none.
func Repository(image string) string {
	ref, err := name.ParseReference(image, name.WeakValidation)
	if err != nil {
		return ""
	}
	return ref.Context().Name()
}

// judge holds the scans of an image, named as a pod names it, against what the class asks.
func (g *Gate) judge(scans *facts, repository, digest string, now time.Time) *Verdict {
	v := &Verdict{Feed: scans.feed}
	rules, flaws := g.Rules(repository, digest)
	if g.profile != "" {
		v.Scan = scans.profiles[g.profile]
	}
	switch {
	case g.profile != "" && v.Scan == nil:
		v.Missing = "AIAS has no scan of this digest by profile " + g.profile
		return v
	case g.feed && v.Feed == nil:
		v.Missing = "AIAS knows of no look for vulnerabilities in this digest"
		return v
	}
	if v.Scan != nil {
		v.Judgement = *verdict.Judge(rules, v.Scan.Scan(), now)
		v.Next = verdict.Next(rules.Waivers, v.Scan.Scanned, rules.MaxAge, now)
	}
	if v.Feed == nil {
		return v
	}
	if !g.feed {
		flaws.MaxAge = 0 // nobody asked for the look; what it saw is there
	}
	found := verdict.JudgeFlaws(flaws, v.Feed.Vulnerabilities(), now)
	v.Problems, v.Waived, v.Within, v.Unused = append(v.Problems, found.Problems...), append(v.Waived, found.Waived...), append(v.Within, found.Within...), append(v.Unused, found.Unused...)
	if next := verdict.Next(rules.Waivers, v.Feed.Scanned, flaws.MaxAge, now); v.Next.IsZero() || !next.IsZero() && next.Before(v.Next) {
		v.Next = next
	}
	return v
}
