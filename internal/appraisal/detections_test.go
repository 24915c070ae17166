package appraisal

import (
	"time"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/policy"
)

// found puts a detection into the claims, and a policy for it.
func found(severity, effect string, p policy.Detections) func(*world) {
	return func(w *world) {
		w.after = append(w.after, func(in *Input) {
			in.Claims.Detections = claims.Detections{{
				ID: "0a1b2c3d", Rule: "mining", Severity: severity, Effect: effect, What: "Crypto-mining", Who: "by /dev/shm/x (pid 9)", Techniques: []string{"T1496"},
				Count: 3, First: time.Unix(1795000000, 0), Last: time.Unix(1795000060, 0), Event: "1795000060.000:7", Until: "an operator clears it",
			}}
			in.Policy.Spec.Runtime.Detections = p
		})
	}
}

var asRules = policy.Detections{Critical: "rule", High: "rule", Medium: "rule", Low: "rule", Informational: "rule"}

func with(change func(*policy.Detections)) policy.Detections {
	d := asRules
	change(&d)
	return d
}

var detectionCases = []ruleCase{
	{"runtime.audit-detections", "as the rule says: fail", found("critical", "fail", asRules), Fail, "Crypto-mining; by /dev/shm/x", claims.Claimed},
	{"runtime.audit-detections", "times, event and ID", found("critical", "fail", asRules), Fail, "detection 0a1b2c3d of rule mining (critical): 3 times", claims.Claimed},
	{"runtime.audit-detections", "as the rule says: warn", found("medium", "warn", asRules), Warn, "Crypto-mining", claims.Claimed},
	{"runtime.audit-detections", "as the rule says: nothing", found("low", "none", asRules), Pass, "not judged (policy): 1", claims.Claimed},
	{"runtime.audit-detections", "severity fails", found("medium", "warn", with(func(d *policy.Detections) { d.Medium = "fail" })), Fail, "Crypto-mining", claims.Claimed},
	{"runtime.audit-detections", "severity is ignored", found("critical", "fail", with(func(d *policy.Detections) { d.Critical = "ignore" })), Pass, "not judged", claims.Claimed},
	{"runtime.audit-detections", "the rule before its severity", found("critical", "fail", with(func(d *policy.Detections) {
		d.Critical, d.Rules = "ignore", []policy.DetectionRule{{Rule: "mining", Effect: "warn"}}
	})), Warn, "Crypto-mining", claims.Claimed},
	{"runtime.audit-detections", "an effect that nobody knows", found("critical", "odd", asRules), Fail, "Crypto-mining", claims.Claimed},
}
