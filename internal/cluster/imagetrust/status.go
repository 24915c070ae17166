package imagetrust

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/imagescans"
	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/result"
)

// judge makes the status of an image, and says when to look again.
func (r *Reconciler) judge(ctx context.Context, u *usage, asking map[string]*v1alpha1.ComplianceRequirement, have *v1alpha1.ImageTrustStatus) (v1alpha1.ImageTrustStatus, time.Duration) {
	now := r.Now()
	s := v1alpha1.ImageTrustStatus{Image: u.names[0], Pods: u.pods}
	scans, again := map[string]*result.Image{}, look
	var feed *result.Image
	for _, name := range order(asking, u.by) {
		c, found, err := r.class(ctx, name, asking[name], u.names)
		if err != nil { // nothing is known now: what was known stands, and is no longer said to hold
			s = *have.DeepCopy()
			s.Image, s.Pods = u.names[0], u.pods
			setAccepted(&s, have, now, metav1.ConditionUnknown, "AIASAway", "AIAS cannot be asked for scans: "+err.Error())
			return s, retry
		}
		if c.Until != nil {
			again = min(again, max(c.Until.Sub(now), 0)+time.Second)
		}
		s.Classes = append(s.Classes, c)
		for _, v := range found {
			if v.Scan != nil {
				scans[v.Scan.Profile] = v.Scan
			}
			if v.Feed != nil {
				feed = v.Feed
			}
		}
	}
	s.Scans = shortScans(scans)
	worst := int32(-1)
	for i := range s.Scans {
		x := &s.Scans[i]
		s.Scanned = later(s.Scanned, x.Scanned)
		if all := x.Failed.High + x.Failed.Medium + x.Failed.Low; all > worst {
			worst, s.FailedSummary = all, fmt.Sprintf("%dH %dM %dL", x.Failed.High, x.Failed.Medium, x.Failed.Low)
		}
	}
	if feed != nil {
		s.Vulnerabilities = shortFeed(feed)
		s.Scanned = later(s.Scanned, s.Vulnerabilities.Scanned)
		c, f := &s.Vulnerabilities.Counts, &s.Vulnerabilities.Fixable
		s.VulnerabilitySummary = fmt.Sprintf("%dC %dH %d more, %d fixable", c.Critical, c.High, c.Medium+c.Low+c.Unknown, f.Critical+f.High+f.Medium+f.Low+f.Unknown)
	}
	accepted(&s, have, u, now)
	slices.SortFunc(s.Classes, func(a, b v1alpha1.ImageClass) int { return strings.Compare(a.Name, b.Name) })
	return s, again
}

// order is which classes are asked: those of pods that use the image come first, if there are too many.
func order(asking map[string]*v1alpha1.ComplianceRequirement, by map[string]bool) []string {
	names := slices.Sorted(maps.Keys(asking))
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case by[a] == by[b]:
			return 0
		case by[a]:
			return -1
		}
		return 1
	})
	return names[:min(len(names), maxClasses)]
}

// class asks a class about an image by all of its names: waivers may be for one of them. It takes the image when it takes it by each.
func (r *Reconciler) class(ctx context.Context, name string, want *v1alpha1.ComplianceRequirement, images []string) (v1alpha1.ImageClass, []*imagescans.Verdict, error) {
	c := v1alpha1.ImageClass{Name: name, Accepted: true}
	gate, err := imagescans.NewGate(want)
	if err != nil {
		c.Accepted, c.Reason = false, bounded(err.Error())
		return c, nil, nil
	}
	var found []*imagescans.Verdict
	for _, image := range images {
		v, err := r.Scans.Judge(ctx, gate, image)
		if err != nil {
			return c, nil, err
		}
		found = append(found, v)
		c.Waived = max(c.Waived, int32(min(len(v.Waived), 1<<30))) //nolint:gosec // bounded
		if until := timeOf(v.Next); v.Good() && until != nil && (c.Until == nil || until.Before(c.Until)) {
			c.Until = until
		}
		if no := gate.Refusal(v, image); no != nil && c.Accepted {
			c.Accepted, c.Reason = false, bounded(no.Error())
		}
	}
	if !c.Accepted {
		c.Until = nil
	}
	return c, found, nil
}

// accepted sets the condition: whether each class whose pods use the image takes it.
func accepted(s, have *v1alpha1.ImageTrustStatus, u *usage, now time.Time) {
	var refused []string
	for i := range s.Classes {
		if c := &s.Classes[i]; u.by[c.Name] && !c.Accepted {
			refused = append(refused, "class "+c.Name+": "+c.Reason)
		}
	}
	if len(refused) > 0 {
		setAccepted(s, have, now, metav1.ConditionFalse, "Refused", strings.Join(refused, "; "))
		return
	}
	setAccepted(s, have, now, metav1.ConditionTrue, "AllClasses", "the classes of all pods that use the image would take it now")
}

func setAccepted(s, have *v1alpha1.ImageTrustStatus, now time.Time, status metav1.ConditionStatus, reason, message string) {
	c := metav1.Condition{Type: v1alpha1.ConditionAccepted, Status: status, Reason: reason, Message: bounded(message), LastTransitionTime: metav1.NewTime(now.Truncate(time.Second))}
	if old := meta.FindStatusCondition(have.Conditions, c.Type); old != nil && old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	s.Conditions = []metav1.Condition{c}
}

func shortScans(scans map[string]*result.Image) []v1alpha1.ImageScan {
	var out []v1alpha1.ImageScan
	for _, profile := range slices.Sorted(maps.Keys(scans)) {
		i := scans[profile]
		out = append(out, v1alpha1.ImageScan{
			Profile: i.Profile, Scanned: *timeOf(i.Scanned), By: bounded(i.By), Content: i.Content, Passed: number(i.Passed),
			Failed: v1alpha1.FailedRules{High: number(i.Failed["high"]), Medium: number(i.Failed["medium"]), Low: number(i.Failed["low"])},
		})
	}
	return out[:min(len(out), maxScans)]
}

func shortFeed(i *result.Image) *v1alpha1.ImageVulnerabilities {
	fixable := slices.DeleteFunc(slices.Clone(i.Found), func(f verdict.Flaw) bool { return f.Fixed == "" })
	return &v1alpha1.ImageVulnerabilities{Scanned: *timeOf(i.Scanned), FeedMade: *timeOf(i.FeedMade), Counts: counts(i.Flaws), Fixable: counts(verdict.Counts(fixable))}
}

func counts(n map[string]int) v1alpha1.VulnerabilityCounts {
	return v1alpha1.VulnerabilityCounts{Critical: number(n["critical"]), High: number(n["high"]), Medium: number(n["medium"]), Low: number(n["low"]), Unknown: number(n["unknown"])}
}

func number(n int) int32 { return int32(min(max(n, 0), 1<<30)) } //nolint:gosec // bounded

// timeOf is a time as it is kept: to the second, in the zone that the API server answers in. Nil for none.
func timeOf(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t.Local().Truncate(time.Second)}
}

func later(a *metav1.Time, b metav1.Time) *metav1.Time {
	if a == nil || a.Before(&b) {
		return &b
	}
	return a
}
