package imagescans

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

var (
	start  = time.Unix(1_800_000_000, 0)
	digest = "sha256:" + strings.Repeat("a1", 32)
	app    = "registry.example/team/app@" + digest
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

// requirement asks for a profile within a day, and more.
func requirement(change func(*v1alpha1.ComplianceRequirement)) *v1alpha1.ComplianceRequirement {
	r := &v1alpha1.ComplianceRequirement{Profile: "baseline", MaxAge: metav1.Duration{Duration: 24 * time.Hour}}
	if change != nil {
		change(r)
	}
	return r
}

func gate(t testing.TB, change func(*v1alpha1.ComplianceRequirement)) *Gate {
	t.Helper()
	g, err := NewGate(requirement(change))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestKept: that there is no scan is kept for a moment, that AIAS is away is not.
func TestKept(t *testing.T) {
	now, s, g := start, &silent{}, gate(t, nil)
	scans := New(s, func() time.Time { return now })
	for i, wait := range []time.Duration{0, keepBad - 1, 1} {
		now = now.Add(wait)
		if got, err := scans.Judge(t.Context(), g, app); err != nil || got.Good() {
			t.Errorf("%d: got %+v, %v, want a verdict that is not good", i, got, err)
		}
	}
	if s.asked != 2 {
		t.Errorf("AIAS was asked %d times, want 2", s.asked)
	}
	s.err = errors.New("away")
	now = now.Add(keepBad)
	for range 2 {
		if _, err := scans.Judge(t.Context(), g, app); err == nil {
			t.Error("AIAS is away, and an old answer was taken")
		}
	}
	if s.asked != 4 {
		t.Errorf("AIAS was asked %d times, want 4", s.asked)
	}
	for _, image := range []string{"app", "app:1", "app@sha512:" + strings.Repeat("a", 128), "app@sha256:1", ""} {
		if _, err := scans.Judge(t.Context(), g, image); err == nil {
			t.Errorf("%q was judged: it is not named by a digest", image)
		}
	}
}

// scan is what AIAS says of an image: rules are "id severity outcome" each.
func scan(profile string, at time.Time, rules ...string) *result.Image {
	i := &result.Image{Profile: profile, Scanned: at, Content: strings.Repeat("c", 64), Score: 50}
	for _, r := range append(rules, "fine low pass") {
		f := strings.Fields(r)
		i.Rules = append(i.Rules, verdict.Rule{ID: f[0], Severity: xccdf.Severity(f[1]), Outcome: xccdf.Outcome(f[2])})
		if f[2] == "pass" {
			i.Passed++
		}
	}
	slices.SortFunc(i.Rules, func(a, b verdict.Rule) int { return strings.Compare(a.ID, b.ID) })
	return i
}

// looked is what a feed said of an image: flaws are "id severity fixed" each, fixed "-" when there is none.
func looked(i *result.Image, flaws ...string) *result.Image {
	i.FeedMade = i.Scanned.Add(-time.Hour)
	for _, x := range flaws {
		f := strings.Fields(x)
		i.Found = append(i.Found, verdict.Flaw{ID: f[0], Severity: f[1], Package: "p", Installed: "1", Fixed: strings.Trim(f[2], "-")})
	}
	return i
}

func TestGate(t *testing.T) {
	fresh := start.Add(-time.Hour)
	waive := func(w v1alpha1.ImageWaiver) func(*v1alpha1.ComplianceRequirement) {
		return func(r *v1alpha1.ComplianceRequirement) {
			w.Reason, w.Owner = "ticket 4711", "ops"
			if w.Until.IsZero() {
				w.Until = metav1.NewTime(start.Add(time.Minute))
			}
			r.Waivers = []v1alpha1.ImageWaiver{w}
		}
	}
	vulnerabilities := func(v v1alpha1.VulnerabilityRequirement) func(*v1alpha1.ComplianceRequirement) {
		return func(r *v1alpha1.ComplianceRequirement) { r.Vulnerabilities = &v }
	}
	fixable := vulnerabilities(v1alpha1.VulnerabilityRequirement{Unfixed: v1alpha1.Ignore, Max: v1alpha1.VulnerabilityCounts{Medium: -1, Low: -1, Unknown: -1}})
	telnet := scan("baseline", fresh, "telnet high fail")
	for name, c := range map[string]struct {
		change func(*v1alpha1.ComplianceRequirement)
		said   []*result.Image
		want   string // words of the refusal; empty: it passes
	}{
		"passes":             {nil, []*result.Image{scan("baseline", fresh)}, ""},
		"no scan":            {nil, nil, "AIAS has no scan of this digest by profile baseline (of an image for several platforms, name the digest of one); scan it: touchstone image scan " + app + " --profile baseline --content FILE --submit"},
		"by another profile": {nil, []*result.Image{scan("other", fresh)}, "no scan of this digest by profile baseline"},
		"too old":            {nil, []*result.Image{scan("baseline", start.Add(-25*time.Hour))}, "scan it again: touchstone image scan"},
		"a rule fails":       {nil, []*result.Image{telnet}, "high rule telnet: fails; mend the image, or let who answers for the class waive it"},
		"undecided":          {nil, []*result.Image{scan("baseline", fresh, "a low error")}, "low rule a: not decided (error)"},
		"undecided ignored":  {func(r *v1alpha1.ComplianceRequirement) { r.Undecided = v1alpha1.Ignore }, []*result.Image{scan("baseline", fresh, "a low error")}, ""},
		"within maxFailed":   {func(r *v1alpha1.ComplianceRequirement) { r.MaxFailed = &v1alpha1.FailedRules{High: 1} }, []*result.Image{telnet}, ""},
		"required in spite of it": {func(r *v1alpha1.ComplianceRequirement) {
			r.MaxFailed, r.Required = &v1alpha1.FailedRules{High: -1}, []string{"telnet"}
		}, []*result.Image{telnet}, "required rule telnet does not pass"},
		"required, not judged": {func(r *v1alpha1.ComplianceRequirement) { r.Required = []string{"x"} }, []*result.Image{scan("baseline", fresh)}, "required rule x was not judged"},
		"other content":        {func(r *v1alpha1.ComplianceRequirement) { r.Content = []string{strings.Repeat("d", 64)} }, []*result.Image{scan("baseline", fresh)}, "used other content"},
		"score":                {func(r *v1alpha1.ComplianceRequirement) { r.MinScore = 51 }, []*result.Image{scan("baseline", fresh)}, "the score of the compliance scan is too low"},

		"waived":                       {waive(v1alpha1.ImageWaiver{Rule: "telnet"}), []*result.Image{telnet}, ""},
		"waived for its repository":    {waive(v1alpha1.ImageWaiver{Rule: "telnet", Repository: "registry.example/team/app"}), []*result.Image{telnet}, ""},
		"waived for another":           {waive(v1alpha1.ImageWaiver{Rule: "telnet", Repository: "registry.example/team/ap"}), []*result.Image{telnet}, "high rule telnet: fails"},
		"waived for its digest":        {waive(v1alpha1.ImageWaiver{Rule: "telnet", Digest: digest}), []*result.Image{telnet}, ""},
		"waived for another digest":    {waive(v1alpha1.ImageWaiver{Rule: "telnet", Digest: "sha256:" + strings.Repeat("b", 64)}), []*result.Image{telnet}, "high rule telnet: fails"},
		"the waiver has ended":         {waive(v1alpha1.ImageWaiver{Rule: "telnet", Until: metav1.NewTime(start)}), []*result.Image{telnet}, "the waiver of ops for telnet ended"},
		"a vulnerability waives none":  {waive(v1alpha1.ImageWaiver{Vulnerability: "telnet"}), []*result.Image{telnet}, "high rule telnet: fails"},
		"a vulnerability waived":       {waive(v1alpha1.ImageWaiver{Vulnerability: "CVE-1"}), []*result.Image{looked(scan("baseline", fresh), "CVE-1 high 2")}, ""},
		"a rule waives no flaw":        {waive(v1alpha1.ImageWaiver{Rule: "CVE-1"}), []*result.Image{looked(scan("baseline", fresh), "CVE-1 high 2")}, "1 vulnerability of severity high"},
		"vulnerable, and nobody asked": {nil, []*result.Image{looked(scan("baseline", fresh), "CVE-1 low -")}, "1 vulnerability of severity low, at most 0: CVE-1 (p 1, no version mends it)"},

		"no feed":                 {fixable, []*result.Image{scan("baseline", fresh)}, "no look for vulnerabilities in this digest (of an image for several platforms, name the digest of one); scan it: touchstone image scan " + app + " --profile baseline --content FILE --feed FOLDER --submit"},
		"none that a fix mends":   {fixable, []*result.Image{looked(scan("baseline", fresh), "CVE-1 critical -", "CVE-2 low 2")}, ""},
		"one that a fix mends":    {fixable, []*result.Image{looked(scan("baseline", fresh), "CVE-1 critical 2")}, "CVE-1 (p 1, mended in 2)"},
		"looked apart":            {fixable, []*result.Image{scan("baseline", fresh), looked(&result.Image{Scanned: fresh}, "CVE-1 high 2")}, "CVE-1"},
		"the newest look counts":  {fixable, []*result.Image{looked(scan("baseline", fresh), "CVE-1 high 2"), looked(&result.Image{Scanned: fresh.Add(time.Minute)})}, ""},
		"looked too long ago":     {fixable, []*result.Image{scan("baseline", fresh), looked(&result.Image{Scanned: start.Add(-25 * time.Hour)})}, "the look for vulnerabilities is too old"},
		"by a feed that was old":  {vulnerabilities(v1alpha1.VulnerabilityRequirement{MaxFeedAge: &metav1.Duration{Duration: time.Minute}}), []*result.Image{looked(scan("baseline", fresh))}, "the feed of vulnerabilities was too old"},
		"no profile is asked for": {func(r *v1alpha1.ComplianceRequirement) { fixable(r); r.Profile = "" }, []*result.Image{looked(&result.Image{Scanned: fresh})}, ""},
	} {
		f := &facts{profiles: map[string]*result.Image{}}
		for _, i := range c.said {
			f.take(i)
		}
		g := gate(t, c.change)
		v := g.judge(f, "registry.example/team/app", digest, start)
		err := g.Refusal(v, app)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if v.Good() && (v.Next.IsZero() || !v.Next.After(start)) {
			t.Errorf("%s: it is good until %s, want an end", name, v.Next)
		}
	}
}

// TestEnds: the gate says something else exactly when it said that it would, though AIAS says the same.
func TestEnds(t *testing.T) {
	g := gate(t, func(r *v1alpha1.ComplianceRequirement) {
		r.Waivers = []v1alpha1.ImageWaiver{{Rule: "telnet", Reason: "r", Owner: "o", Until: metav1.NewTime(start.Add(time.Minute))}}
	})
	f := &facts{profiles: map[string]*result.Image{}}
	f.take(scan("baseline", start.Add(-time.Hour), "telnet high fail"))
	v := g.judge(f, "r", digest, start)
	if !v.Good() || !v.Next.Equal(start.Add(time.Minute)) {
		t.Fatalf("got good %v until %s, want true until the end of the waiver", v.Good(), v.Next)
	}
	if !g.judge(f, "r", digest, v.Next.Add(-1)).Good() || g.judge(f, "r", digest, v.Next).Good() {
		t.Error("the verdict does not change at the end of the waiver")
	}
}

// TestMalformed: what a gate cannot read is an error, and no gate.
func TestMalformed(t *testing.T) {
	end := metav1.NewTime(start)
	for want, change := range map[string]func(*v1alpha1.ComplianceRequirement){
		"maxAge":    func(r *v1alpha1.ComplianceRequirement) { r.MaxAge.Duration = 0 },
		"profile":   func(r *v1alpha1.ComplianceRequirement) { r.Profile = "" },
		"undecided": func(r *v1alpha1.ComplianceRequirement) { r.Undecided = "ignore" },
		"minScore":  func(r *v1alpha1.ComplianceRequirement) { r.MinScore = -1 },
		"vulnerabilities.unfixed": func(r *v1alpha1.ComplianceRequirement) {
			r.Vulnerabilities = &v1alpha1.VulnerabilityRequirement{Unfixed: "x"}
		},
		"vulnerabilities.maxFeedAge": func(r *v1alpha1.ComplianceRequirement) {
			r.Vulnerabilities = &v1alpha1.VulnerabilityRequirement{MaxFeedAge: &metav1.Duration{}}
		},
		"waivers[0]: want a rule": func(r *v1alpha1.ComplianceRequirement) {
			r.Waivers = []v1alpha1.ImageWaiver{{Reason: "r", Owner: "o", Until: end}}
		},
		"waivers[0]: want a reason": func(r *v1alpha1.ComplianceRequirement) {
			r.Waivers = []v1alpha1.ImageWaiver{{Rule: "x", Owner: "o", Until: end}}
		},
		"waivers[0]: repository": func(r *v1alpha1.ComplianceRequirement) {
			r.Waivers = []v1alpha1.ImageWaiver{{Rule: "x", Reason: "r", Owner: "o", Until: end, Repository: "A b"}}
		},
	} {
		if g, err := NewGate(requirement(change)); err == nil || g != nil || !strings.Contains(err.Error(), "images.compliance."+want) {
			t.Errorf("%s: got %v, %v", want, g, err)
		}
	}
}
