package node

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/result"
)

// compliance is a scan as the NodeTrust has it.
func compliance(c *result.Compliance) *v1alpha1.NodeCompliance {
	if c == nil {
		return nil
	}
	return &v1alpha1.NodeCompliance{
		Profile: bounded(c.Profile), Scanned: metav1.NewTime(c.At.Truncate(time.Second)), Passed: number(c.Passed), Status: word(c.Status),
		Failed: v1alpha1.FailedRules{High: number(c.Failed["high"]), Medium: number(c.Failed["medium"]), Low: number(c.Failed["low"])},
	}
}

// severities of detections, the worst first.
var severities = []string{"critical", "high", "medium", "low", "informational"}

// audit is the audit of a node as the NodeTrust has it.
func audit(a *result.Audit) *v1alpha1.NodeAudit {
	if a == nil {
		return nil
	}
	out := &v1alpha1.NodeAudit{Chain: word(a.Chain)}
	for _, s := range severities {
		if n := a.Detections[s]; n > 0 && out.Worst == "" {
			out.Worst = s
		}
	}
	for _, n := range a.Detections {
		out.Detections = number(int(out.Detections) + n)
	}
	return out
}

// word is a status that the API knows.
func word(s appraisal.Status) string {
	if !slices.Contains(statuses, s) {
		s = appraisal.Unknown
	}
	return string(s)
}

func number(n int) int32 { return int32(min(max(n, 0), 1<<30)) } //nolint:gosec // bounded
