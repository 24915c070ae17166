package appraisal

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/reference"
)

// Input is everything that a rule may look at.
type Input struct {
	Claims *claims.Claims
	// Runtime is what the IMA list showed so far in this boot; nil when there is none or it could not be verified: RuntimeError then says
	// why, or is empty when the worker sent none and PCR 10 is untouched.
	Runtime      *Runtime
	RuntimeError string
	Policy       *policy.Policy
	References   *reference.Set
	Now          time.Time
}

// rule is one named check of one level. It returns at least one finding, and leaves Finding.Rule to its caller.
type rule struct {
	name  string
	check func(*Input) []Finding
}

// levels are the rules, level 1 first. The order is the order of the findings.
var levels = [5][]rule{firmwareRules, secureBootRules, bootLoaderRules, kernelRules, runtimeRules}

// RuleNames returns the names of all rules, which are the ones that an exception may name.
func RuleNames() []string {
	names := []string{RuleEvidence}
	for _, l := range levels {
		for _, r := range l {
			names = append(names, r.name)
		}
	}
	return names
}

// RuleEvidence is the name of the finding that stands on every level when the Evidence is not authentic.
const RuleEvidence = "evidence"

// Appraise judges the claims on all five levels.
func Appraise(in *Input) Verdict {
	v := Verdict{Levels: make([]Level, 5)}
	for i := range levels {
		v.Levels[i] = in.level(i)
	}
	v.settle()
	return v
}

// AppraiseBoot judges levels 1 to 4 as far as they do not depend on the IMA list, and AppraiseRuntime the rest: level 5 and the modules of
// level 4. Both together are Appraise. Boot findings depend only on log, quoted values and facts, so they can be kept.
func AppraiseBoot(in *Input) []Level {
	out := make([]Level, 4)
	for i := range out {
		out[i] = in.level(i, RuleModules)
	}
	return out
}

// AppraiseRuntime completes boot levels that AppraiseBoot made; boot is not changed.
func AppraiseRuntime(in *Input, boot []Level) Verdict {
	v := Verdict{Levels: make([]Level, 0, 5)}
	v.Levels = append(v.Levels, boot...)
	k := &v.Levels[3]
	k.Findings = append(slices.Clip(k.Findings), in.apply(rule{RuleModules, kernelModules})...)
	v.Levels = append(v.Levels, in.level(4))
	v.settle()
	return v
}

// Refused is the verdict on Evidence that is not authentic: nothing is known on any level, so all fail.
func Refused(findings ...Finding) Verdict {
	v := Verdict{Levels: make([]Level, 5)}
	for i := range v.Levels {
		v.Levels[i] = Level{Level: i + 1, Name: LevelNames[i], Findings: slices.Clone(findings)}
	}
	v.settle()
	return v
}

func (in *Input) level(i int, except ...string) Level {
	l := Level{Level: i + 1, Name: LevelNames[i]}
	for _, r := range levels[i] {
		if !slices.Contains(except, r.name) {
			l.Findings = append(l.Findings, in.apply(r)...)
		}
	}
	return l
}

// maxFindings is how many findings of one rule are kept: a hostile log makes thousands.
const maxFindings = 64

// bounded keeps the worst findings and says what the others came to.
func bounded(fs []Finding) []Finding {
	if len(fs) <= maxFindings {
		return fs
	}
	slices.SortStableFunc(fs, func(a, b Finding) int { return cmp.Compare(severity(b.Status), severity(a.Status)) })
	rest := fs[maxFindings:]
	f := Finding{Status: worst(rest), Provenance: rest[0].Provenance, Message: fmt.Sprintf("%d more findings of this rule", len(rest))}
	return append(slices.Clone(fs[:maxFindings]), f.expect("fewer", fmt.Sprint(len(fs))).because("as of those before", "see those before"))
}

// maxText bounds each text of a finding, in bytes: a hostile log holds texts of 1 MiB.
const maxText = 16 << 10

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "..."
}

// apply runs a rule and the policy's exceptions for it.
func (in *Input) apply(r rule) []Finding {
	out := bounded(r.check(in))
	for i := range out {
		f := &out[i]
		f.Rule = r.name
		f.Message, f.Expected, f.Observed = cut(f.Message), cut(f.Expected), cut(f.Observed)
		if f.Status == "" {
			f.Status = Unknown
		}
		if f.Status != Unknown && f.Status != Fail {
			continue
		}
		if e, ok := in.Policy.Softens(r.name, string(f.Status), in.Now); ok {
			f.Status = Warn
			f.Message += " (excepted by the policy"
			if e.Reason != "" {
				f.Message += ": " + e.Reason
			}
			f.Message += ")"
		}
	}
	return out
}

// settle computes the status of each level and of the whole.
func (v *Verdict) settle() {
	v.Trusted = true
	for i := range v.Levels {
		l := &v.Levels[i]
		l.Status = worst(l.Findings)
		v.Trusted = v.Trusted && (l.Status == Pass || l.Status == Warn)
	}
}

var worstFirst = []Status{Fail, Unknown, Warn, Pass}

func severity(s Status) int { return -slices.Index(worstFirst, s) }

func worst(fs []Finding) Status {
	for _, s := range worstFirst {
		if slices.ContainsFunc(fs, func(f Finding) bool { return f.Status == s }) {
			return s
		}
	}
	return Unknown // a level without findings says nothing
}

// Short forms for rules.

func pass(p claims.Provenance, format string, a ...any) Finding {
	return Finding{Status: Pass, Provenance: string(p), Message: fmt.Sprintf(format, a...)}
}

func fail(p claims.Provenance, format string, a ...any) Finding {
	return Finding{Status: Fail, Provenance: string(p), Message: fmt.Sprintf(format, a...)}
}

func warn(p claims.Provenance, format string, a ...any) Finding {
	return Finding{Status: Warn, Provenance: string(p), Message: fmt.Sprintf(format, a...)}
}

func unknown(format string, a ...any) Finding {
	return Finding{Status: Unknown, Provenance: string(claims.NotKnown), Message: fmt.Sprintf(format, a...)}
}

// at adds the event of the firmware log.
func (f Finding) at(e *eventlog.Event) Finding {
	if e != nil {
		f.Event = &Event{Log: "firmware", Index: e.Index, PCR: e.PCR, Type: e.Type.String(), Description: eventlog.Describe(e)}
	}
	return f
}

func (f Finding) expect(expected, observed string) Finding {
	f.Expected, f.Observed = expected, observed
	return f
}

func (f Finding) because(cause, remedy string) Finding {
	f.Cause, f.Remedy = cause, remedy
	return f
}

func one(f Finding) []Finding { return []Finding{f} }

// unproven is the finding of a rule whose PCRs the quotes do not prove. The PCR rules of the level say why.
func (in *Input) unproven(what string, pcrs ...int) (Finding, bool) {
	c := in.Claims
	if c.Proves(pcrs...) {
		return Finding{}, false
	}
	if c.Boot == nil {
		return unknown("%s: there is no firmware log (%s)", what, c.BootError), true
	}
	var bad, missing []int
	for _, i := range pcrs {
		switch c.PCRs[i] {
		case claims.Holds:
		case claims.NotQuoted:
			missing = append(missing, i)
		default:
			bad = append(bad, i)
		}
	}
	if len(bad) == 0 {
		return unknown("%s: PCR %s not quoted", what, joinInts(missing)).because("the policy does not ask for them", "add them to attestation.pcrs of the policy"), true
	}
	return unknown("%s: PCR %s of the log is not what the TPM quoted", what, joinInts(bad)), true
}

// checkPCRs is the rule that the log replays to the quoted values of some PCRs and fits together there.
func (in *Input) checkPCRs(pcrs ...int) []Finding {
	c := in.Claims
	var out []Finding
	for _, i := range pcrs {
		if f, bad := in.pcrFinding(i); bad {
			out = append(out, f)
		}
	}
	if c.Boot == nil {
		return append(out, unknown("no firmware log: %s", c.BootError).because(
			"the kernel was not started through its EFI stub (GRUB does so when Secure Boot is off), or the log was not sent",
			"turn Secure Boot on; check that /sys/kernel/security/tpm0/binary_bios_measurements exists"))
	}
	for _, p := range c.Boot.Problems {
		if slices.Contains(pcrs, p.PCR) {
			out = append(out, fail(c.Provenance(p.PCR), "%s", p.Message).at(p.Event).because(
				"the log was altered, or the firmware writes events that are not in the specification",
				"compare with the log of another machine of this model; a firmware fault can be excepted by rule name"))
		}
	}
	if len(out) > 0 {
		return out
	}
	held := slices.DeleteFunc(pcrs, func(i int) bool { return c.PCRs[i] != claims.Holds })
	if len(held) == 0 {
		return one(Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: "no PCR of this level is quoted, and the policy needs none"})
	}
	return one(pass(claims.Proven, "PCR %s replay to the quoted values", joinInts(held)))
}

func (in *Input) pcrFinding(i int) (Finding, bool) {
	c := in.Claims
	needed := slices.Contains(in.Policy.Spec.Attestation.PCRs, i)
	quoted := ""
	if c.Values != nil && c.Values.Values[i] != nil {
		quoted = fmt.Sprintf("%x", c.Values.Values[i])
	}
	switch c.PCRs[i] {
	case claims.Holds:
		return Finding{}, false
	case claims.NotQuoted:
		if !needed {
			return Finding{}, false
		}
		return fail(claims.NotKnown, "PCR %d was not quoted, but the policy needs it", i).because(
			"the quote selects too few PCRs", "quote PCRs "+joinInts(in.Policy.Spec.Attestation.PCRs)), true
	case claims.Orphan:
		return fail(claims.Proven, "PCR %d has a value, but the log has no events for it", i).expect("reset value", quoted).because(
			"events were taken out of the log, or something extends the PCR without logging it", "find out what extends the PCR; a reboot starts anew"), true
	case claims.NoLog:
		return in.noLogPCR(i, quoted)
	}
	m := c.Diff[i]
	return fail(claims.Proven, "PCR %d: the log does not replay to the quoted value", i).expect(fmt.Sprintf("%x", m.Replayed), fmt.Sprintf("%x", m.Quoted)).because(
		"events of this PCR were altered, removed or added in the log, or the log is of another boot", "reboot the worker and attest again; if it stays, treat the worker as compromised"), true
}

// noLogPCR compares a quoted PCR with the boot that the firmware was captured from, when there is no log: no pass, but it tells where the
// difference lies.
func (in *Input) noLogPCR(i int, quoted string) (Finding, bool) {
	for _, fw := range in.References.Firmware() {
		want := fw.Values[in.Claims.Bank.String()][i]
		if want == quoted {
			return Finding{}, false
		}
		if want != "" {
			return unknown("PCR %d is not the one of the boot that %q was captured from, and no log tells why", i, fw.Name).expect(want, quoted).because(
				pcrCauses[i], "bring the worker to boot with a log, which names the event"), true
		}
	}
	return Finding{}, false
}

// pcrCauses says what usually lies behind another value of a PCR.
var pcrCauses = map[int]string{
	0: "other firmware", 1: "another configuration of the firmware", 2: "another device with an option ROM", 3: "another configuration of devices", 4: "another boot loader or kernel, or Secure Boot off",
	5: "another partition table or boot entry", 6: "another platform", 7: "Secure Boot off, other keys, another authority, or shim's checks switched off",
	8: "another kernel command line or grub.cfg", 9: "another kernel, initrd or grub.cfg", 14: "a machine owner key, or shim's checks switched off",
}

// list joins what a finding shows; a hostile log cannot make it longer than maxList items.
func list(items []string) string {
	const maxList = 64
	if n := len(items) - maxList; n > 0 {
		return strings.Join(items[:maxList], "; ") + fmt.Sprintf("; and %d more", n)
	}
	return strings.Join(items, "; ")
}

func joinInts(v []int) string {
	s := make([]string, len(v))
	for i, x := range v {
		s[i] = fmt.Sprint(x)
	}
	return strings.Join(s, ",")
}
