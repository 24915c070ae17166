package appraisal

import (
	"fmt"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/claims"
)

// Names of the rules whose outcome a result says apart, too.
const (
	RuleAuditChain = "runtime.audit-chain"
	RuleCompliance = "runtime.compliance"
)

// Level 5: does only known software run?
var runtimeRules = []rule{
	{"runtime.list", runtimeList},
	{"runtime.boot-aggregate", runtimeBootAggregate},
	{"runtime.active", runtimeActive},
	{"runtime.files", runtimeFiles},
	{"runtime.must-match", runtimeMustMatch},
	{"runtime.violations", runtimeViolations},
	{"runtime.buffers", runtimeBuffers},
	{"runtime.asset-tag", runtimeAssetTag},
	{RuleAuditChain, runtimeAuditChain},
	{RuleCompliance, runtimeCompliance},
	{"runtime.audit-detections", runtimeDetections},
}

// runtimeList: the IMA list replays to the quoted PCR 10.
func runtimeList(in *Input) []Finding {
	if in.Policy.Spec.Runtime.IMA == "any" && in.Runtime == nil && in.RuntimeError == "" {
		return one(Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: "no IMA list, none required (policy)"})
	}
	if in.Runtime == nil {
		if in.RuntimeError == "" {
			return one(unknown("no IMA list came along").because("IMA is off, or the agent could not read the list", "add ima_policy=tcb to the command line; check /sys/kernel/security/ima"))
		}
		return one(fail(claims.Proven, "the IMA list does not belong to the quote: %s", in.RuntimeError).because(
			"the list was cut, altered or is of another boot: what ran cannot be told", "reboot the worker and attest again; if it stays, treat the worker as compromised"))
	}
	return one(pass(claims.Proven, "%d entries of the IMA list replay to PCR 10", in.Runtime.Entries))
}

// withList is the start of every rule that needs the list.
func (in *Input) withList(what string) (Finding, bool) {
	if in.Runtime != nil {
		return Finding{}, false
	}
	if in.Policy.Spec.Runtime.IMA == "any" {
		return Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: what + ": no list, none required (policy)"}, true
	}
	return unknown("%s cannot be told without the IMA list", what), true
}

// runtimeBootAggregate ties the list to this boot: its first entry is a hash over PCR 0 to 9 (or 0 to 7 in older kernels).
func runtimeBootAggregate(in *Input) []Finding {
	f, none := in.withList("the boot aggregate")
	switch {
	case none:
		return one(f)
	case !in.Runtime.Aggregate && in.Policy.Spec.Runtime.IMA == "any" && in.Runtime.Entries == 0:
		return one(pass(claims.Proven, "the IMA list is empty, none required (policy)"))
	case !in.Runtime.Aggregate:
		return one(unknown("the IMA list does not start with a boot aggregate").because("IMA is off", "add ima_policy=tcb to the command line"))
	case in.Runtime.AggregateUnknown:
		return one(unknown("the boot aggregate cannot be checked: %s", in.Runtime.AggregateError).because("the quote leaves out PCRs or the bank that it covers", "quote PCR 0 to 9 of that bank"))
	case in.Runtime.AggregateError != "":
		return one(fail(claims.Proven, "the boot aggregate does not agree with the quoted PCRs: %s", in.Runtime.AggregateError).because(
			"the list is of another boot, or the PCRs were extended after IMA started", "reboot the worker and attest again"))
	}
	return one(pass(claims.Proven, "the boot aggregate agrees with the quoted PCRs"))
}

// runtimeActive: the list holds a program that every boot runs, so programs are measured.
func runtimeActive(in *Input) []Finding {
	f, none := in.withList("whether programs are measured")
	switch {
	case none:
		return one(f)
	case in.Runtime.Proof != "":
		return one(pass(claims.Proven, "programs are measured: %s is in the list", in.Runtime.Proof))
	case in.Policy.Spec.Runtime.IMA == "any":
		return one(pass(claims.Proven, "programs are not measured; not required (policy)"))
	}
	return one(unknown("no program that every boot runs is in the list: programs are not measured").expect(
		strings.Join(in.Policy.Spec.Runtime.Proof, " or "), fmt.Sprintf("%d entries, none of these", in.Runtime.Entries)).because(
		"no IMA policy is loaded, or the root file system is one that the policy leaves out (tmpfs)", "add ima_policy=tcb to the command line, or install deploy/ima/ima-policy"))
}

// runtimeFiles: each measured file is known.
func runtimeFiles(in *Input) []Finding {
	f, none := in.withList("what ran")
	if none {
		return one(f)
	}
	r := in.Runtime
	if in.Policy.Spec.Runtime.Files == "any" {
		return one(pass(claims.Proven, "%d known and %d unknown files (the policy does not compare them)", r.Known, r.Unknown.Count))
	}
	var out []Finding
	for _, s := range r.Unknown.First {
		out = append(out, fail(claims.Proven, "unknown file %s was run or read", s.Path).inList(s).expect("a file of an imported package or list", s.Digest).because(
			or(s.Note, "software that is not in the references: an update not imported yet, a local program, or an intruder's"),
			"if it is yours, import its package or digest (touchstone reference import); else take the worker out, keep its Evidence, and rebuild it"))
	}
	out = append(out, r.Unknown.rest("unknown files")...)
	for _, s := range r.Problems.First {
		out = append(out, fail(claims.Proven, "entry of the IMA list cannot be judged: %s", s.Note).inList(s).because(
			"an IMA template that is not known here, or a damaged entry", "use ima_template=ima-ng or ima-sig"))
	}
	out = append(out, r.Problems.rest("entries that cannot be judged")...)
	if len(out) == 0 {
		out = one(pass(claims.Proven, "%d known files, %d allowed by path", r.Known, r.Allowed))
	}
	return out
}

// runtimeMustMatch: files at named paths come from the named source.
func runtimeMustMatch(in *Input) []Finding {
	f, none := in.withList("files that must match")
	if none {
		return one(f)
	}
	var out []Finding
	for _, s := range in.Runtime.Mismatches.First {
		out = append(out, fail(claims.Proven, "%s %s", s.Path, s.Note).inList(s).expect("the file of the named source", s.Digest).because(
			"a known file was put in the place of another", "reinstall the package that owns "+s.Path))
	}
	out = append(out, in.Runtime.Mismatches.rest("files out of place")...)
	if len(out) == 0 {
		out = one(pass(claims.Proven, "%d rules on paths, none broken", len(in.Policy.Spec.Runtime.MustMatch)))
	}
	return out
}

// runtimeViolations: a violation says that a file changed while it was measured, so its measurement means nothing.
func runtimeViolations(in *Input) []Finding {
	f, none := in.withList("violations")
	if none {
		return one(f)
	}
	var out []Finding
	for _, s := range in.Runtime.Violations.First {
		f := fail(claims.Proven, "violation: %s changed while it was measured", s.Path).inList(s).expect("a measurement", "a violation entry").because(
			"a program was written to while it ran, or a log was read while it was written", "find the writer; leave such files out of the IMA policy")
		if in.Policy.Spec.Runtime.Violations == "warn" {
			f.Status = Warn
		}
		out = append(out, f)
	}
	rest := in.Runtime.Violations.rest("violations")
	if len(rest) > 0 && in.Policy.Spec.Runtime.Violations == "warn" {
		rest[0].Status = Warn
	}
	if out = append(out, rest...); len(out) == 0 {
		out = one(pass(claims.Proven, "no violations"))
	}
	return out
}

// runtimeBuffers: measured buffers are shown; a kexec command line says that another kernel was loaded behind the firmware's back.
func runtimeBuffers(in *Input) []Finding {
	f, none := in.withList("measured buffers")
	if none {
		return one(f)
	}
	var out []Finding
	for _, s := range in.Runtime.Kexec.First {
		out = append(out, fail(claims.Proven, "a kernel was loaded for kexec").inList(s).expect("no kexec", s.Digest).because(
			"kdump or a reboot by kexec: the next kernel starts unmeasured", "forbid kexec (kernel.kexec_load_disabled=1), or except this rule"))
	}
	out = append(out, in.Runtime.Kexec.rest("kernels loaded for kexec")...)
	for _, s := range in.Runtime.Buffers.First {
		out = append(out, warn(claims.Proven, "buffer %s was measured", s.Path).inList(s))
	}
	if len(out) == 0 {
		out = one(pass(claims.Proven, "no measured buffers"))
	}
	return out
}

// kernelModules: every module loaded or tried is a file of an imported package of the booted kernel, and every module that the worker says is
// loaded was measured.
func kernelModules(in *Input) []Finding {
	if in.Policy.Spec.Kernel.Modules == "any" {
		return one(Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: "modules not judged (policy)"})
	}
	if in.Runtime == nil {
		return one(unknown("loaded modules cannot be told without the IMA list"))
	}
	f := &in.Claims.Facts
	kernels := in.kernelReleases()
	var out []Finding
	measured, loaded := make(map[string]bool, len(in.Runtime.Modules)), make(map[string]bool, len(f.Modules))
	for _, n := range f.Modules {
		loaded[n] = true
	}
	for i := range in.Runtime.Modules {
		m := &in.Runtime.Modules[i]
		measured[m.Name] = true
		if bad, ok := judgeModule(m, kernels, loaded[m.Name]); ok {
			out = append(out, bad)
		}
	}
	if in.Runtime.MoreModules > 0 {
		out = append(out, fail(claims.Proven, "%d more modules than can be judged", in.Runtime.MoreModules).expect(fmt.Sprintf("at most %d", MaxModules), fmt.Sprint(MaxModules+in.Runtime.MoreModules)).because(
			"something loads modules without end", "look at the first ones; reboot the worker"))
	}
	out = append(out, unmeasured(f, measured)...)
	if len(out) == 0 {
		var names []string
		for i := range in.Runtime.Modules {
			m := &in.Runtime.Modules[i]
			names = append(names, fmt.Sprintf("%s (%s, signed by %s)", m.Name, m.Source, or(m.Signer, "nobody known")))
		}
		out = one(pass(claims.Proven, "%d modules, each known and of the booted kernel", len(names)).expect("", list(names)))
	}
	return out
}

func judgeModule(m *Module, kernels []string, loaded bool) (Finding, bool) {
	s := Sample{Index: m.Index, Path: m.Path}
	// IMA measures a module before its signature is checked, so an entry may be a mere attempt. The name of an unknown one is guessed from its
	// path: that the worker lists no module of that name says little.
	state := "loaded, as the worker says"
	if !loaded {
		state = "an attempt, if the worker's own list of loaded modules can be believed"
	}
	switch {
	case !m.Known:
		return fail(claims.Proven, "unknown kernel module %s (%s)", m.Path, state).inList(s).expect("a module of an imported package", m.Digest).because(
			"a module that was built here, is unsigned, or was altered", "if it is yours, import its digest; else find who loaded it"), true
	case m.Kernel != "" && len(kernels) > 0 && !slices.Contains(kernels, m.Kernel):
		return fail(claims.Proven, "module %s is built for kernel %s (%s)", m.Path, m.Kernel, state).inList(s).expect("kernel "+strings.Join(kernels, ", "), m.Kernel+" of "+m.Source).because(
			"modules of another kernel", "reinstall the package of the booted kernel"), true
	}
	return Finding{}, false
}

// unmeasured are modules that run according to the worker, but never were in the list.
func unmeasured(f *claims.Facts, measured map[string]bool) []Finding {
	if !f.ModulesKnown {
		return one(unknown("the worker did not say which modules are loaded").because("the agent could not read /proc/modules", "check the agent's rights"))
	}
	var names []string
	for _, n := range f.Modules {
		if !measured[n] {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return nil
	}
	shown := strings.Join(names[:min(len(names), 8)], ", ")
	return one(unknown("%d modules are loaded but were not measured: %s", len(names), shown).expect("each loaded module in the IMA list", shown).because(
		"they were loaded before IMA's policy, or from a file system that the policy leaves out (tmpfs)", "add ima_policy=tcb and a root file system that IMA measures (rootfstype=ramfs for the initrd)"))
}

// rest is the finding on entries that were counted but not kept.
func (t *Tally) rest(what string) []Finding {
	if n := t.Count - uint64(len(t.First)); n > 0 {
		return one(fail(claims.Proven, "%d more %s", n, what).expect("none", fmt.Sprint(t.Count)).because("as of those before", "see those before"))
	}
	return nil
}

// inList adds the entry of the IMA list.
func (f Finding) inList(s Sample) Finding {
	f.Event = &Event{Log: "ima", Index: int(s.Index), PCR: 10, Description: s.Path}
	return f
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
