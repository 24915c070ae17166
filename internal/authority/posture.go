package authority

import (
	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/result"
)

// posture is what a verdict says of the compliance and the audit chain of a node; empty: nothing.
type posture struct{ compliance, chain appraisal.Status }

// postureOf takes the worst that the rules found.
func postureOf(v *appraisal.Verdict) posture {
	var p posture
	for i := range v.Levels {
		for _, f := range v.Levels[i].Findings {
			switch f.Rule {
			case appraisal.RuleCompliance:
				p.compliance = worstOf(p.compliance, f.Status)
			case appraisal.RuleAuditChain:
				p.chain = worstOf(p.chain, f.Status)
			}
		}
	}
	return p
}

// worstOf returns what says less for the worker.
func worstOf(a, b appraisal.Status) appraisal.Status {
	order := map[appraisal.Status]int{"": 0, appraisal.Pass: 1, appraisal.Warn: 2, appraisal.Unknown: 3, appraisal.Fail: 4}
	if order[b] > order[a] {
		return b
	}
	return a
}

// scanned is what a signed result says of the newest scan of a node; nil when there is none.
func (n *node) scanned(p posture) *result.Compliance {
	c := n.compliance.Load()
	if c == nil || c.Scan == nil {
		return nil
	}
	s := c.Scan
	return &result.Compliance{
		Profile: s.Profile, Content: s.Content, Tool: s.Tool, At: s.At, Passed: s.Passed, NotPassed: len(s.Rules) - s.Passed, Score: s.Score, Failed: s.Failed(), Status: p.compliance,
	}
}

// auditState is what a signed result says of the audit of a node; nil when there is nothing to say.
func (n *node) auditState(p posture) *result.Audit {
	found := n.detected()
	if p.chain == "" && len(found) == 0 {
		return nil
	}
	a := &result.Audit{Chain: p.chain}
	for i := range found {
		if a.Detections == nil {
			a.Detections = map[string]int{}
		}
		a.Detections[found[i].Severity]++
	}
	return a
}
