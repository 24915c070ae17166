package appraisal

import "touchstone.dev/touchstone/internal/claims"

// audited puts what is known of auditing into the claims.
func audited(change func(*claims.Audit)) func(*world) {
	a := claims.Audit{State: claims.AuditEqual, Stated: true, Enabled: 1, PID: 7, Expected: "what AIAS has", Observed: "what was signed"}
	if change != nil {
		change(&a)
	}
	return func(w *world) { w.after = append(w.after, func(in *Input) { in.Claims.Audit = a }) }
}

func inState(s claims.AuditState) func(*world) {
	return audited(func(a *claims.Audit) { a.State = s })
}

var auditCases = []ruleCase{
	{"runtime.audit-chain", "required", func(w *world) { w.spec.Runtime.Audit.Mode = "required" }, Unknown, "states nothing", claims.NotKnown},
	{"runtime.audit-chain", "equal", audited(nil), Pass, "that the worker signed", claims.Proven},
	{"runtime.audit-chain", "behind", inState(claims.AuditBehind), Pass, "on their way", claims.Proven},
	{"runtime.audit-chain", "shown", inState(claims.AuditShown), Pass, "what was signed", claims.Proven},
	{"runtime.audit-chain", "overdue", inState(claims.AuditOverdue), Fail, "have not come", claims.Proven},
	{"runtime.audit-chain", "forked", inState(claims.AuditForked), Fail, "rewritten", claims.Proven},
	{"runtime.audit-chain", "rolled back", inState(claims.AuditRolledBack), Fail, "cut off", claims.Proven},
	{"runtime.audit-chain", "restarted", inState(claims.AuditRestarted), Fail, "new audit chain", claims.Proven},
	{"runtime.audit-chain", "hole", inState(claims.AuditHole), Fail, "never came", claims.Proven},
	{"runtime.audit-chain", "silent", inState(claims.AuditSilent), Fail, "no audit events come", claims.Proven},
	{"runtime.audit-chain", "booted", inState(claims.AuditBooted), Fail, "did not count", claims.Proven},
	{"runtime.audit-chain", "reset", inState(claims.AuditReset), Fail, "beneath a system", claims.Proven},
	{"runtime.audit-chain", "stopped", audited(func(a *claims.Audit) { *a = claims.Audit{State: claims.AuditStopped} }), Fail, "any more", claims.Proven},
	{"runtime.audit-chain", "state that nobody knows", inState("odd"), Unknown, "odd", claims.NotKnown},
	{"runtime.audit-chain", "off", audited(func(a *claims.Audit) { a.Enabled = 0 }), Fail, "auditing is off", claims.Claimed},
	{"runtime.audit-chain", "no daemon", audited(func(a *claims.Audit) { a.PID = 0 }), Fail, "no audit daemon", claims.Claimed},
	{"runtime.audit-chain", "not watched", audited(func(a *claims.Audit) { a.Problem = "no netlink" }), Fail, "no netlink", claims.Claimed},
	{"runtime.audit-chain", "rules", audited(func(a *claims.Audit) { a.Drift = "1 rule is gone" }), Fail, "1 rule is gone", claims.Claimed},
	{"runtime.audit-chain", "rules warn", all(audited(func(a *claims.Audit) { a.Drift = "1 rule is gone" }), func(w *world) { w.spec.Runtime.Audit.Rules = "warn" }), Warn, "not the intended", claims.Claimed},
	{"runtime.audit-chain", "lost", audited(func(a *claims.Audit) { a.NewLost, a.Lost = 5, 9 }), Warn, "5 records", claims.Claimed},
	{"runtime.audit-chain", "lost fail", all(audited(func(a *claims.Audit) { a.Gaps = 2 }), func(w *world) { w.spec.Runtime.Audit.Lost = "fail" }), Fail, "2 gaps", claims.Claimed},
}
