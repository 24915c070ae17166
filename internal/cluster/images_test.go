package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/imagescans"
	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

// scanned is what the test's AIAS says of images.
type scanned struct {
	*testAIAS
	mu    sync.Mutex
	scans map[string][]protocol.ImageResult
	away  error
}

func (s *scanned) Image(_ context.Context, digest string) ([]protocol.ImageResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scans[digest], s.away
}

// scan has AIAS say of an image that a rule of high severity fails, and that it has a vulnerability.
func (s *scanned) scan(digest string) {
	now := time.Now()
	token, err := result.SignImage(s.key, &result.Image{
		Manifest: digest, Config: digest, Profile: "baseline", By: "ci", Passed: 1, Scanned: now, FeedMade: now, Issued: now, Expires: now.Add(time.Hour),
		Failed: map[string]int{"high": 1}, Rules: []verdict.Rule{{ID: "fine", Severity: "low", Outcome: "pass"}, {ID: "telnet", Severity: "high", Outcome: "fail"}},
		Flaws: map[string]int{"medium": 1}, Found: []verdict.Flaw{{ID: "CVE-2026-1", Severity: "medium", Package: "p", Installed: "1", Fixed: "2"}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scans[digest] = []protocol.ImageResult{{Statement: token}}
}

func (s *scanned) be(away error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// image waits until an ImageTrust is as wanted.
func (w *world) image(what, digest string, is func(*v1alpha1.ImageTrustStatus, *metav1.Condition) bool) {
	w.t.Helper()
	var last string
	defer func() {
		if w.t.Failed() {
			w.t.Log(last)
		}
	}()
	w.eventually(what, func() bool {
		it := &v1alpha1.ImageTrust{}
		if err := w.Get(context.Background(), types.NamespacedName{Name: v1alpha1.ImageTrustName(digest)}, it); err != nil {
			last = err.Error()
			return false
		}
		last = fmt.Sprintf("%+v", it.Status)
		c := meta.FindStatusCondition(it.Status.Conditions, v1alpha1.ConditionAccepted)
		return c != nil && is(&it.Status, c)
	})
}

// TestImageTrusts: an image that pods of a class with scans use has an ImageTrust, which follows its scans, the class and the end of waivers, and goes with the last
// such pod.
func TestImageTrusts(t *testing.T) {
	w := newWorld(t)
	w.account()
	s := &scanned{testAIAS: w.aias, scans: map[string][]protocol.ImageResult{}}
	ask := func(spec *v1alpha1.TrustClassSpec) {
		spec.Images.Compliance = &v1alpha1.ComplianceRequirement{Profile: "baseline", MaxAge: metav1.Duration{Duration: time.Hour}}
	}
	w.class("asks", time.Hour, ask)
	w.class("other", time.Hour, ask)
	w.class("silent", time.Hour)
	w.node("w1")
	w.aias.say(w.aias.trusted("w1"))
	w.run(func(o *Options) { o.ImageScans = imagescans.New(s, time.Now) })
	w.isTrusted("w1", true)
	digest, free := "sha256:"+strings.Repeat("a1", 32), "sha256:"+strings.Repeat("b2", 32)
	named := func(images ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers = nil
			for i, image := range images {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprintf("c%d", i), Image: image})
			}
		}
	}
	const app = "registry.example/team/app@"
	w.pod("app", "w1", "asks", named(app+digest))
	w.pod("app2", "w1", "asks", named("registry.example/sidecar:1", app+digest))
	w.pod("free", "w1", "silent", named(app+free))
	w.pod("none", "w1", "", named(app+free))
	w.image("it was never scanned", digest, func(st *v1alpha1.ImageTrustStatus, c *metav1.Condition) bool {
		return c.Status == metav1.ConditionFalse && strings.Contains(c.Message, "class asks: AIAS has no scan of this digest") && st.Pods == 2 && st.Image == app+digest && st.Scanned == nil
	})

	s.scan(digest)
	time.Sleep(3 * time.Second) // that there is none is kept for so long
	ends := time.Now().Add(8 * time.Second).Truncate(time.Second)
	tc := &v1alpha1.TrustClass{ObjectMeta: metav1.ObjectMeta{Name: "asks"}}
	w.edit(tc, func() {
		tc.Spec.Images.Compliance.Vulnerabilities = &v1alpha1.VulnerabilityRequirement{Max: v1alpha1.VulnerabilityCounts{Medium: 1}}
		tc.Spec.Images.Compliance.Waivers = []v1alpha1.ImageWaiver{{Rule: "telnet", Reason: "ticket 4711", Owner: "ops", Until: metav1.NewTime(ends)}}
	})
	w.image("it is accepted, by a waiver and by one class of two", digest, func(st *v1alpha1.ImageTrustStatus, c *metav1.Condition) bool {
		return c.Status == metav1.ConditionTrue && len(st.Classes) == 2 &&
			st.Classes[0].Name == "asks" && st.Classes[0].Accepted && st.Classes[0].Waived == 1 && st.Classes[0].Until.Time.Equal(ends) &&
			st.Classes[1].Name == "other" && !st.Classes[1].Accepted && strings.Contains(st.Classes[1].Reason, "high rule telnet: fails") &&
			len(st.Scans) == 1 && st.Scans[0].Failed.High == 1 && st.Scans[0].Passed == 1 && st.Scans[0].By == "ci" && st.Scanned != nil &&
			st.Vulnerabilities.Counts.Medium == 1 && st.Vulnerabilities.Fixable.Medium == 1 && st.FailedSummary == "1H 0M 0L" && st.VulnerabilitySummary == "0C 0H 1 more, 1 fixable"
	})
	w.image("the waiver has ended", digest, func(_ *v1alpha1.ImageTrustStatus, c *metav1.Condition) bool {
		return c.Status == metav1.ConditionFalse && strings.Contains(c.Message, "the waiver of ops for telnet ended")
	})
	if early := time.Until(ends); early > 0 {
		t.Errorf("the waiver ended %s before its end", early)
	}

	s.be(context.DeadlineExceeded)
	time.Sleep(3 * time.Second)
	w.edit(tc, func() { tc.Spec.Images.Compliance.Waivers = nil })
	w.image("AIAS is away: what was known stands, and nobody says that it holds", digest, func(st *v1alpha1.ImageTrustStatus, c *metav1.Condition) bool {
		return c.Status == metav1.ConditionUnknown && len(st.Scans) == 1
	})

	for _, name := range []string{"app", "app2"} {
		if err := w.Delete(context.Background(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}, client.GracePeriodSeconds(0)); err != nil {
			t.Fatal(err)
		}
	}
	w.eventually("the ImageTrust goes with the last pod", func() bool {
		var all v1alpha1.ImageTrustList
		if err := w.List(context.Background(), &all); err != nil {
			t.Fatal(err)
		}
		for i := range all.Items {
			if all.Items[i].Name == v1alpha1.ImageTrustName(free) {
				t.Fatalf("an image that no class asks about has an ImageTrust: %+v", all.Items[i].Status)
			}
		}
		return len(all.Items) == 0
	})
}
