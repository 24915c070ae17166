package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/result"
)

func TestPosture(t *testing.T) {
	if c, a := compliance(nil), audit(nil); c != nil || a != nil {
		t.Errorf("of nothing: got %+v, %+v", c, a)
	}
	got := compliance(&result.Compliance{Profile: "p", At: now.Add(time.Millisecond), Passed: 40, Failed: map[string]int{"high": 1, "low": -3}, Status: appraisal.Fail})
	want := &v1alpha1.NodeCompliance{Profile: "p", Scanned: metav1.NewTime(now), Passed: 40, Failed: v1alpha1.FailedRules{High: 1}, Status: "fail"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("compliance (-want +got):\n%s", diff)
	}
	for name, c := range map[string]struct {
		said result.Audit
		want v1alpha1.NodeAudit
	}{
		"quiet":              {result.Audit{Chain: appraisal.Pass}, v1alpha1.NodeAudit{Chain: "pass"}},
		"not judged":         {result.Audit{}, v1alpha1.NodeAudit{Chain: "unknown"}},
		"misuse":             {result.Audit{Chain: appraisal.Warn, Detections: map[string]int{"low": 2, "critical": 1}}, v1alpha1.NodeAudit{Chain: "warn", Detections: 3, Worst: "critical"}},
		"a word of tomorrow": {result.Audit{Chain: "splendid"}, v1alpha1.NodeAudit{Chain: "unknown"}},
	} {
		if diff := cmp.Diff(&c.want, audit(&c.said)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if c := compliance(&result.Compliance{}); c.Status != "unknown" {
		t.Errorf("of a scan that was not judged: got %q", c.Status)
	}
}
