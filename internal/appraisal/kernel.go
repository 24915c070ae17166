package appraisal

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/tpm"
)

// Level 4: are kernel, command line, initrd and every loaded driver signed or known? Is lockdown on?
var kernelRules = []rule{
	{"kernel.log", kernelLog},
	{"kernel.image", kernelImage},
	{"kernel.file", kernelFile},
	{"kernel.command-line", kernelCommandLine},
	{"kernel.initrd", kernelInitrd},
	{"kernel.lockdown", kernelLockdown},
	{"kernel.module-signatures", kernelModuleSignatures},
	{"kernel.taint", kernelTaint},
	{RuleModules, kernelModules},
}

// RuleModules is the only rule of levels 1 to 4 that looks at the IMA list.
const RuleModules = "kernel.modules"

func kernelLog(in *Input) []Finding { return in.checkPCRs(8, 9, 11, 12, 13) }

// kernelImage: the kernel that PCR 4 holds is known, or (images: signed) let in by a trusted authority.
func kernelImage(in *Input) []Finding {
	if f, bad := in.unproven("the kernel cannot be told", 4, 8); bad {
		return one(f)
	}
	var out []Finding
	seen := make(map[string]bool)
	for _, im := range in.images() {
		if !im.kernel || seen[string(im.Digest)] {
			continue
		}
		seen[string(im.Digest)] = true // shim and the firmware each measure it
		f := in.judgeImage(im, "kernel", in.Policy.Spec.Kernel.Images)
		if f.Status == Fail {
			f.Cause = "the kernel was updated or put back to an older one whose package is not imported, or it was replaced"
			f.Remedy = "if the package is genuine: touchstone reference import linux-image-....deb; else boot the approved kernel"
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		return one(unknown("no image of PCR 4 is known to be a kernel").because(
			"a unified kernel image that is not imported, or a boot loader that measures no kernel", "touchstone reference import the package or image that was booted"))
	}
	return out
}

// kernelRelease returns the release of the kernels that were booted as far as the references know them.
func (in *Input) kernelReleases() []string {
	var out []string
	if !in.Claims.Proves(4) {
		return nil
	}
	for _, im := range in.images() {
		if im.kernel && im.ref != nil && im.ref.Kernel != "" && !slices.Contains(out, im.ref.Kernel) {
			out = append(out, im.ref.Kernel)
		}
	}
	return out
}

// kernelFile: the file that GRUB loaded as kernel is the one of the package, signature included: the Authenticode digest of PCR 4 leaves the
// signature out.
func kernelFile(in *Input) []Finding {
	load, f, ok := in.grubLoad()
	if !ok {
		return one(f)
	}
	if load == nil {
		return one(Finding{Status: Pass, Provenance: string(in.Claims.Provenance(8, 9)), Message: "the kernel was not loaded by GRUB"})
	}
	if in.Policy.Spec.Kernel.Images == "signed" {
		return one(pass(claims.Proven, "GRUB loaded %s (the policy does not compare the file)", load.Kernel.Name).at(load.Kernel.Event))
	}
	if ref, ok := in.References.ImageFile(load.Kernel.Digest); ok && ref.Role == "kernel" && in.Claims.Bank == tpm.AlgSHA256 {
		return one(pass(claims.Proven, "GRUB loaded %s of %s as kernel", ref.Path, ref.Source).at(load.Kernel.Event))
	}
	if in.Claims.Bank != tpm.AlgSHA256 {
		return one(unknown("the kernel's file cannot be told in bank %v", in.Claims.Bank).because("references hold SHA-256 of files", "activate the SHA-256 bank"))
	}
	return one(fail(claims.Proven, "the kernel's file is not the one of an imported package").at(load.Kernel.Event).expect("a vmlinuz of an imported package", hex.EncodeToString(load.Kernel.Digest)).because(
		"another kernel, or the same kernel signed again with another key", "reinstall the kernel's package, or import the one that is in use"))
}

// grubLoad returns what GRUB loaded; nil when GRUB loaded no kernel. ok is false when that cannot be told, and the finding says why.
func (in *Input) grubLoad() (load *claims.GRUBLoad, f Finding, ok bool) {
	if f, bad := in.unproven("what GRUB loaded cannot be told", 8, 9); bad {
		return nil, f, false
	}
	load = in.Claims.Boot.GRUBLoad()
	if load != nil && load.Problem != "" {
		return nil, unknown("%s", load.Problem).at(load.Command.Event).because("grub.cfg loads files in an unusual order, or the log was altered",
			"let grub.cfg load the kernel, then the initrd, then boot, with nothing between"), false
	}
	return load, Finding{}, true
}

// kernelInitrd: each initrd that GRUB loaded is known by the SHA-256 of its file.
func kernelInitrd(in *Input) []Finding {
	load, f, ok := in.grubLoad()
	if !ok {
		return one(f)
	}
	if load == nil {
		return one(in.ukiInitrd())
	}
	if in.Policy.Spec.Kernel.Initrd == "any" {
		return one(pass(claims.Proven, "%d initrd files (the policy does not compare them)", len(load.Initrds)))
	}
	var out []Finding
	for i := range load.Initrds {
		rd := &load.Initrds[i]
		// Any known file would do as initrd otherwise: one that was read for another purpose could stand for the real one.
		if ref, ok := in.References.File(in.Claims.Bank, rd.Digest); ok && isInitrd(ref.Path) {
			out = append(out, pass(claims.Proven, "initrd %s is %s of %s", rd.Name, ref.Path, ref.Source).at(rd.Event))
			continue
		}
		out = append(out, fail(claims.Proven, "unknown initrd %s", rd.Name).at(rd.Event).expect("an imported initrd", hex.EncodeToString(rd.Digest)).because(
			"the initrd was rebuilt (an update of the kernel or of a tool in it), or tampered with",
			"check it, then import its digest under a name with initrd or initramfs: sha256sum /boot/initrd.img-... > initrd.sha256; touchstone reference import initrd.sha256"))
	}
	out = append(out, in.stubInitrds(load)...)
	if len(out) == 0 {
		out = one(pass(claims.Proven, "the kernel was started without initrd"))
	}
	return out
}

// stubInitrds: the kernel's EFI stub may take another initrd than GRUB's (initrd= on the command line); it measures what it takes. Of several files GRUB
// makes one, whose digest nothing tells.
func (in *Input) stubInitrds(load *claims.GRUBLoad) []Finding {
	var out []Finding
	for i := range in.Claims.Boot.StubTags {
		t := &in.Claims.Boot.StubTags[i]
		if t.Name != claims.StubInitrd || slices.ContainsFunc(load.Initrds, func(rd claims.Named) bool { return bytes.Equal(rd.Digest, t.Digest) }) {
			continue
		}
		out = append(out, unknown("the kernel's EFI stub took an initrd that is no file that GRUB loaded").at(t.Event).expect("the digest of GRUB's initrd", hex.EncodeToString(t.Digest)).because(
			"initrd= on the command line, or GRUB joined several files", "let grub.cfg load one initrd, and leave initrd= out of the command line"))
	}
	return out
}

func isInitrd(path string) bool {
	name := path[strings.LastIndexByte(path, '/')+1:]
	return strings.Contains(name, "initrd") || strings.Contains(name, "initramfs")
}

// ukiInitrd: the initrd of a unified kernel image is part of the image, unless the kernel's EFI stub measured another.
func (in *Input) ukiInitrd() Finding {
	for _, im := range in.images() {
		if im.ref != nil && im.ref.Role == "uki" && in.Claims.Proves(4, 11, 12, 13) && len(in.Claims.Boot.StubExtra) == 0 {
			return pass(claims.Proven, "the initrd is part of the unified kernel image %s", im.ref.Path)
		}
	}
	if in.Policy.Spec.Kernel.Initrd == "any" {
		return pass(claims.NotKnown, "initrd not judged (policy)")
	}
	return unknown("no initrd was measured as a file, and no known unified kernel image holds one").because(
		"the boot loader does not measure the initrd", "boot by GRUB or by an imported unified kernel image")
}

// kernelLockdown: the kernel's own word. With Secure Boot on, Debian's kernels turn integrity on; nothing measures it.
func kernelLockdown(in *Input) []Finding {
	want, got := in.Policy.Spec.Kernel.Lockdown, in.Claims.Facts.Lockdown
	rank := map[string]int{"any": 0, "none": 0, "integrity": 1, "confidentiality": 2}
	switch {
	case want == "any":
		return one(Finding{Status: Pass, Provenance: string(claims.Claimed), Message: "lockdown not judged (policy): " + got})
	case got == "":
		return one(unknown("the worker did not say its lockdown mode").because("the agent could not read /sys/kernel/security/lockdown", "mount securityfs; check the agent's rights"))
	case rank[got] < rank[want]:
		return one(fail(claims.Claimed, "kernel lockdown is %s", got).expect("at least "+want, got).because(
			"Secure Boot is off, or the kernel was built or started without lockdown", "turn Secure Boot on, or add lockdown="+want+" to the command line"))
	}
	return one(pass(claims.Claimed, "kernel lockdown: %s", got))
}

// kernelModuleSignatures: module.sig_enforce=1 on the measured command line, or the kernel's own word.
func kernelModuleSignatures(in *Input) []Finding {
	if in.Policy.Spec.Kernel.ModuleSignatures == "any" {
		return one(Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: "module signatures not judged (policy)"})
	}
	if said := in.Claims.Facts.SigEnforce; said != nil && !*said {
		return one(fail(claims.Claimed, "the kernel loads unsigned modules").expect("sig_enforce = Y", "sig_enforce = N").because(
			"module.sig_enforce=1 is missing on the command line", "add module.sig_enforce=1 to the command line"))
	}
	if lines, prov, _, ok := in.commandLines(); ok && !slices.ContainsFunc(lines, func(l claims.Text) bool { return !slices.Contains(claims.Parameters(l.Text), "module.sig_enforce=1") }) {
		return one(pass(prov, "the kernel refuses unsigned modules (module.sig_enforce=1)"))
	}
	if said := in.Claims.Facts.SigEnforce; said != nil {
		return one(pass(claims.Claimed, "the kernel refuses unsigned modules, as it says"))
	}
	return one(unknown("whether the kernel refuses unsigned modules cannot be told").because("module.sig_enforce=1 is not on the command line, and the worker did not say", "add module.sig_enforce=1 to the command line"))
}

// kernelTaint: none of the forbidden taints. The kernel's own word.
func kernelTaint(in *Input) []Finding {
	t := in.Claims.Facts.Taint
	if t == nil {
		if in.Policy.Spec.Kernel.ForbiddenTaints == "-" {
			return one(Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: "taint not judged (policy)"})
		}
		return one(unknown("the worker did not say whether its kernel is tainted").because("the agent could not read /proc/sys/kernel/tainted", "check the agent's rights"))
	}
	var set, bad []string
	for i, l := range policy.TaintLetters {
		if *t&(1<<i) != 0 {
			set = append(set, string(l))
			if strings.ContainsRune(in.Policy.Spec.Kernel.ForbiddenTaints, l) {
				bad = append(bad, string(l))
			}
		}
	}
	if len(bad) > 0 {
		return one(fail(claims.Claimed, "the kernel is tainted: %s", strings.Join(bad, ", ")).expect("none of "+in.Policy.Spec.Kernel.ForbiddenTaints, fmt.Sprintf("%d (%s)", *t, strings.Join(set, ""))).because(
			"a module that is unsigned (E), out of tree (O), proprietary (P) or forced (F, R), or a live patch (K)", "find the module in /proc/modules, remove it, reboot"))
	}
	return one(pass(claims.Claimed, "kernel taint %d, none that costs trust", *t))
}
