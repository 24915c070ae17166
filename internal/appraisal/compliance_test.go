package appraisal

import (
	"time"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
	"touchstone.dev/touchstone/internal/policy"
)

// scannedBefore puts a compliance scan into the claims, in which one high rule fails.
func scannedBefore(age time.Duration, change func(*claims.Compliance, *policy.Compliance)) func(*world) {
	return func(w *world) {
		w.spec.Runtime.Compliance.Mode = "required"
		w.after = append(w.after, func(in *Input) {
			c := &claims.Compliance{ID: "x", Scan: &verdict.Scan{Profile: "worker", At: in.Now.Add(-age), Score: 50, Passed: 1, Rules: []verdict.Rule{
				{ID: "a", Severity: xccdf.SeverityHigh, Outcome: xccdf.Fail, Title: "No telnet", Fix: "apt purge telnet"},
				{ID: "b", Severity: xccdf.SeverityHigh, Outcome: xccdf.Pass},
			}}}
			if change != nil {
				change(c, &in.Policy.Spec.Runtime.Compliance)
			}
			in.Claims.Compliance = c
		})
	}
}

func budget(n int) func(*claims.Compliance, *policy.Compliance) {
	return func(_ *claims.Compliance, p *policy.Compliance) { p.MaxFailed.High = n }
}

func stated(s claims.ComplianceStated) func(*claims.Compliance, *policy.Compliance) {
	return func(c *claims.Compliance, p *policy.Compliance) {
		budget(1)(c, p)
		c.Stated = s
	}
}

var complianceCases = []ruleCase{
	{"runtime.compliance", "required", func(w *world) { w.spec.Runtime.Compliance.Mode = "required" }, Unknown, "no compliance scan", claims.NotKnown},
	{"runtime.compliance", "none, warn", func(w *world) { w.spec.Runtime.Compliance.Mode = "warn" }, Warn, "no compliance scan", claims.NotKnown},
	{"runtime.compliance", "a rule fails", scannedBefore(time.Hour, nil), Fail, "high rule a: fails", claims.Claimed},
	{"runtime.compliance", "remediation", scannedBefore(time.Hour, nil), Fail, "high rule a", claims.Claimed},
	{"runtime.compliance", "within the budget", scannedBefore(time.Hour, budget(1)), Pass, "1 passed, 1 failed", claims.Claimed},
	{"runtime.compliance", "too old", scannedBefore(37*time.Hour, budget(1)), Fail, "too old", claims.Claimed},
	{"runtime.compliance", "warn", scannedBefore(time.Hour, func(_ *claims.Compliance, p *policy.Compliance) { p.Mode = "warn" }), Warn, "high rule a", claims.Claimed},
	{"runtime.compliance", "shown only", scannedBefore(time.Hour, func(_ *claims.Compliance, p *policy.Compliance) { p.Mode = "any" }), Pass, "not judged", claims.Claimed},
	{"runtime.compliance", "error is no pass", scannedBefore(time.Hour, func(c *claims.Compliance, p *policy.Compliance) {
		budget(1)(c, p)
		c.Error = "the canary died"
	}), Unknown, "the canary died", claims.NotKnown},
	{"runtime.compliance", "another scan is signed", scannedBefore(time.Hour, stated(claims.StatedOther)), Fail, "none of those that the worker signed", claims.Proven},
	{"runtime.compliance", "no scan is signed", scannedBefore(time.Hour, stated(claims.StatedNone)), Fail, "signs that it made none", claims.Proven},
	{"runtime.compliance", "the scan is signed", scannedBefore(time.Hour, stated(claims.StatedEqual)), Pass, "1 passed, 1 failed", claims.Claimed},
	{"runtime.compliance", "waived", scannedBefore(time.Hour, func(_ *claims.Compliance, p *policy.Compliance) {
		p.Waivers = []policy.Waiver{{Rule: "a", Reason: "ticket 4711", Owner: "ops", Until: &policy.Time{Time: time.Now().AddDate(100, 0, 0)}}}
	}), Warn, "ticket 4711", claims.Claimed},
}
