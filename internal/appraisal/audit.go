package appraisal

import (
	"fmt"

	"touchstone.dev/touchstone/internal/claims"
)

// auditFault is what a state of the audit chain means that does not pass.
type auditFault struct {
	status                 Status
	message, cause, remedy string
}

const auditRemedy = "`touchstone audit verify NODE` names the place; treat the worker as compromised unless you know who put its disk back; then `touchstone audit accept NODE`"

var auditFaults = map[claims.AuditState]auditFault{
	claims.AuditOverdue: {Fail, "audit events that the worker signed have not come to AIAS",
		"the agent cannot send them, or somebody keeps them back", "look at the agent's log on the worker: `journalctl -u trust-agent`"},
	claims.AuditForked: {Fail, "the audit events at AIAS are not those that the worker signed: its past was rewritten",
		"somebody changed the spool of the agent, or put the disk of the worker back", auditRemedy},
	claims.AuditRolledBack: {Fail, "the worker signed fewer audit events than before: the end of its chain was cut off",
		"somebody cut the spool of the agent, or put the disk of the worker back", auditRemedy},
	claims.AuditRestarted: {Fail, "the worker began a new audit chain without being enrolled anew",
		"the agent's spool was removed or damaged, or the worker was installed anew", auditRemedy},
	claims.AuditHole: {Fail, "audit events never came to AIAS, and the worker does not have them any more",
		"the spool of the agent was damaged or changed, or AIAS was put back to an older state", auditRemedy},
	claims.AuditSilent: {Fail, "no audit events come from the worker any more, not even the entry that its agent writes each minute",
		"the agent's reader hangs, the kernel's audit does not answer, or somebody keeps events away from the agent",
		"look at the agent's log on the worker: `journalctl -u trust-agent`; `touchstone audit search NODE --since 1h` shows what came last"},
	claims.AuditBooted: {Fail, "the worker tells of a boot that its TPM did not count",
		"its kernel was replaced without a reset (kexec), it was switched off while it slept, or somebody with all rights on it pretends a boot, which would end what was found on it",
		"find out how it was booted; boot it anew, from a source that you trust; then `touchstone audit accept NODE`"},
	claims.AuditReset: {Fail, "the TPM of the worker was reset beneath a system that went on: its PCRs may have been filled in anew",
		"the TPM was reset by hand, or lost its state while the machine slept (CVE-2018-6622)",
		"treat the worker as compromised unless you know why; boot it anew; then `touchstone audit accept NODE`"},
	claims.AuditStopped: {Fail, "the worker sent audit events before, and states nothing about them any more",
		"auditing was taken out of the agent's configuration, or the agent is an older one", "put `audit` into the agent's configuration; if it was taken out on purpose, `touchstone audit accept NODE`"},
}

// runtimeAuditChain: audit events reach AIAS whole and in order, auditing is on with the intended rules, and none are lost.
func runtimeAuditChain(in *Input) []Finding {
	a, p := &in.Claims.Audit, &in.Policy.Spec.Runtime.Audit
	if a.State == claims.AuditNone && !a.Stated {
		if p.Mode != "required" {
			return nil // as on workers that know nothing of auditing
		}
		return one(unknown("the worker states nothing about audit events").because(
			"auditd is not installed, or auditing is not configured in the agent", "install auditd, and put `audit` into the agent's configuration"))
	}
	if f, ok := auditFaults[a.State]; ok {
		out := one(Finding{Status: f.status, Provenance: string(claims.Proven), Message: f.message}.expect(a.Expected, a.Observed).because(f.cause, f.remedy))
		return append(out, in.auditing()...)
	}
	var f Finding
	switch a.State {
	case claims.AuditEqual:
		f = pass(claims.Proven, "AIAS has the audit events that the worker signed").expect("", a.Observed)
	case claims.AuditBehind:
		f = pass(claims.Proven, "audit events that the worker signed are on their way").expect(a.Expected, a.Observed)
	case claims.AuditShown:
		f = pass(claims.Proven, "the worker signed an audit chain; only its AIAS knows the events").expect("", a.Observed)
	default:
		f = unknown("audit chain in state %q, which this rule does not know", a.State)
	}
	return append(one(f), in.auditing()...)
}

// auditing judges what the agent said about the kernel's audit system.
func (in *Input) auditing() []Finding {
	a, p := &in.Claims.Audit, &in.Policy.Spec.Runtime.Audit
	if !a.Stated {
		return nil
	}
	var out []Finding
	switch {
	case a.Problem != "":
		out = append(out, fail(claims.Claimed, "auditing cannot be watched: %s", a.Problem).because("auditd or its rules are not as the agent needs them", "look at the agent's log on the worker"))
	case a.Enabled == 0:
		out = append(out, fail(claims.Claimed, "auditing is off").expect("enabled 1 or 2", "enabled 0").because(
			"somebody switched it off (auditctl -e 0), or the kernel was booted with audit=0", "find out who; auditctl -e 2 forbids it until the next boot"))
	case a.PID == 0:
		out = append(out, fail(claims.Claimed, "no audit daemon is running").expect("auditd", "none").because("auditd was stopped or crashed", "start auditd; find out who stopped it"))
	}
	if a.Drift != "" && p.Rules != "any" {
		f := fail(claims.Claimed, "the loaded audit rules are not the intended ones").expect("the intended rules", a.Drift).because(
			"somebody changed them (auditctl), or some of them cannot be loaded on this kernel", "`trust-agent audit rules check` on the worker names them, `trust-agent audit rules install` loads them")
		if p.Rules == "warn" {
			f.Status = Warn
		}
		out = append(out, f)
	}
	if n := a.NewLost + a.Gaps; n > 0 && p.Lost != "any" {
		f := fail(claims.Claimed, "audit events were lost lately: %d records by the kernel, %d gaps in the chain", a.NewLost, a.Gaps).expect("none", fmt.Sprintf("%d lost since boot", a.Lost)).because(
			"more happened than could be written: a storm, on purpose or not", "`touchstone audit search NODE --kind gap` names them; narrow the rules, or make the backlog larger")
		if p.Lost == "warn" {
			f.Status = Warn
		}
		out = append(out, f)
	}
	return out
}
