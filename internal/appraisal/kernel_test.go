package appraisal

import (
	"fmt"
	"strings"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/reference"
)

// uki boots a known unified kernel image with a command line instead of shim, GRUB and kernel.
func uki(w *world, cmdline string) {
	for _, pcr := range []uint32{8, 9, 14} {
		w.drop(pcr, nil)
	}
	w.drop(4, make([]byte, 32)[:16]) // images in memory
	w.log.Entries = w.log.Entries[:23]
	w.image("unified")
	w.sources = append(w.sources, reference.Source{Kind: reference.KindPackage, Name: "uki", Images: []reference.Image{{Path: "/boot/linux.efi", Role: "uki", Kernel: "6.1.0-56-cloud-amd64",
		Authenticode: map[string]string{"sha256": fmt.Sprintf("%x", sum("unified"))}, SHA256: fmt.Sprintf("%x", sum("unified file"))}}})
	w.section(".linux", "kernel")
	w.section(".cmdline", cmdline)
	w.section(".initrd", "initrd")
	w.facts[evidence.FactCommandLine] = []byte(cmdline + "\n")
}

// section lets systemd-stub measure one: name, then content.
func (w *world) section(name, content string) {
	w.log.AddOver(11, eventlog.IPLType, wide(name+"\x00"), []byte(name+"\x00")).AddOver(11, eventlog.IPLType, wide(name+"\x00"), []byte(content))
}

// tag lets the kernel's EFI stub measure something into PCR 9.
func (w *world) tag(id byte, over []byte) {
	w.log.AddOver(9, eventlog.EventTag, []byte{id, 0x22, 0x3b, 0x8f, 1, 0, 0, 0, 'x'}, over)
}

const tagInitrd, tagLoadOptions = 0xec, 0xed

var kernelCases = []ruleCase{
	{"kernel.log", "good", nil, Pass, "8,9", claims.Proven},
	{"kernel.log", "not what the TPM holds", differs(8), Fail, "PCR 8", claims.Proven},
	{"kernel.log", "command renamed to a command line", func(w *world) {
		w.log.AddOver(8, eventlog.IPLType, []byte("kernel_cmdline: initrd /evil "+goodWords+"\x00"), []byte("initrd /evil "+goodWords))
	}, Fail, "not of the command before it", claims.Proven},
	{"kernel.log", "file behind the kernel's stub", func(w *world) {
		w.tag(tagInitrd, []byte("x"))
		w.file("/initrd.img", "evil")
	}, Fail, "EFI stub had started", claims.Proven},

	{"kernel.image", "good", nil, Pass, "vmlinuz-6.1.0-56", claims.Proven},
	{"kernel.image", "package not imported", func(w *world) { w.without(linux) }, Fail, "unknown kernel", claims.Proven},
	{"kernel.image", "another kernel after the good one", func(w *world) {
		w.command("linux /old x")
		w.image("old kernel")
	}, Fail, "unknown kernel", claims.Proven},
	{"kernel.image", "chainloaded loader is no kernel", func(w *world) {
		w.command("chainloader /evil.efi")
		w.image("evil")
	}, Pass, "vmlinuz", claims.Proven},
	{"kernel.image", "signed is enough", func(w *world) {
		w.without(linux)
		w.spec.Kernel.Images = "signed"
	}, Pass, "Secure Boot let it in", claims.Proven},
	{"kernel.image", "unified kernel image", func(w *world) { uki(w, goodWords) }, Pass, "linux.efi", claims.Proven},
	{"kernel.image", "none", func(w *world) { w.log.Entries = w.log.Entries[:22] }, Unknown, "no image", claims.NotKnown},
	{"kernel.image", "not quoted", unquoted(4), Unknown, "not quoted", claims.NotKnown},

	{"kernel.file", "good", nil, Pass, "vmlinuz-6.1.0-56", claims.Proven},
	{"kernel.file", "signed again: PCR 4 is the same", func(w *world) { measure(w.event(9, "/vmlinuz"), "the same kernel with another signature") }, Fail, "not the one of an imported package", claims.Proven},
	{"kernel.file", "a boot loader's file", func(w *world) {
		e := w.event(9, "/vmlinuz")
		measure(e, "x")
		w.source(grubName).Images[0].SHA256 = fmt.Sprintf("%x", sum("x"))
	}, Fail, "not the one of an imported package", claims.Proven},
	{"kernel.file", "signed is enough", func(w *world) {
		measure(w.event(9, "/vmlinuz"), "the same kernel with another signature")
		w.spec.Kernel.Images = "signed"
	}, Pass, "does not compare", claims.Proven},
	{"kernel.file", "another bank", in384, Unknown, "sha384", claims.NotKnown},
	{"kernel.file", "not by GRUB", func(w *world) { uki(w, goodWords) }, Pass, "not loaded by GRUB", ""},
	{"kernel.file", "not quoted", unquoted(9), Unknown, "not quoted", claims.NotKnown},

	{"kernel.lockdown", "good", nil, Pass, "integrity", claims.Claimed},
	{"kernel.lockdown", "none", func(w *world) { w.fact(evidence.FactLockdown, "[none] integrity confidentiality\n") }, Fail, "none", claims.Claimed},
	{"kernel.lockdown", "less than wanted", func(w *world) { w.spec.Kernel.Lockdown = "confidentiality" }, Fail, "integrity", claims.Claimed},
	{"kernel.lockdown", "more than wanted", func(w *world) { w.fact(evidence.FactLockdown, "none integrity [confidentiality]\n") }, Pass, "confidentiality", claims.Claimed},
	{"kernel.lockdown", "a mode that nobody knows", func(w *world) { w.fact(evidence.FactLockdown, "[total]") }, Fail, "total", claims.Claimed},
	{"kernel.lockdown", "not said", func(w *world) { w.taken(evidence.FactLockdown) }, Unknown, "did not say", claims.NotKnown},
	{"kernel.lockdown", "any", func(w *world) {
		w.taken(evidence.FactLockdown)
		w.spec.Kernel.Lockdown = "any"
	}, Pass, "not judged", claims.Claimed},

	{"kernel.module-signatures", "measured", nil, Pass, "module.sig_enforce=1", claims.Proven},
	{"kernel.module-signatures", "kernel says no", func(w *world) { w.fact(evidence.FactSigEnforce, "N\n") }, Fail, "sig_enforce = N", claims.Claimed},
	{"kernel.module-signatures", "only said", func(w *world) { w.cmdline("ima_policy=tcb") }, Pass, "as it says", claims.Claimed},
	{"kernel.module-signatures", "for init, not for the kernel", func(w *world) {
		w.cmdline("quiet -- " + goodWords)
		w.taken(evidence.FactSigEnforce)
	}, Unknown, "cannot be told", claims.NotKnown},
	{"kernel.module-signatures", "neither measured nor said", func(w *world) {
		w.cmdline("ima_policy=tcb")
		w.taken(evidence.FactSigEnforce)
	}, Unknown, "cannot be told", claims.NotKnown},
	{"kernel.module-signatures", "any", func(w *world) {
		w.fact(evidence.FactSigEnforce, "N")
		w.spec.Kernel.ModuleSignatures = "any"
	}, Pass, "not judged", claims.NotKnown},

	{"kernel.taint", "none", nil, Pass, "taint 0", claims.Claimed},
	{"kernel.taint", "unsigned module", func(w *world) { w.fact(evidence.FactTainted, "8192") }, Fail, "E", claims.Claimed},
	{"kernel.taint", "harmless", func(w *world) { w.fact(evidence.FactTainted, "512") }, Pass, "taint 512", claims.Claimed},
	{"kernel.taint", "accepted", func(w *world) {
		w.fact(evidence.FactTainted, "8192")
		w.spec.Kernel.ForbiddenTaints = "P"
	}, Pass, "taint 8192", claims.Claimed},
	{"kernel.taint", "not said", func(w *world) { w.taken(evidence.FactTainted) }, Unknown, "did not say", claims.NotKnown},
	{"kernel.taint", "any", func(w *world) {
		w.taken(evidence.FactTainted)
		w.spec.Kernel.ForbiddenTaints = "-"
	}, Pass, "not judged", claims.NotKnown},
}

var initrdCases = []ruleCase{
	{"kernel.initrd", "good", nil, Pass, "/initrd.img", claims.Proven},
	{"kernel.initrd", "tampered with", func(w *world) { measure(w.event(9, "/initrd.img"), "evil") }, Fail, "unknown initrd", claims.Proven},
	{"kernel.initrd", "second initrd", func(w *world) {
		w.command("initrd /evil.img")
		w.file("/evil.img", "evil")
	}, Fail, "evil.img", claims.Proven},
	{"kernel.initrd", "file names changed in the log", func(w *world) {
		good := *w.event(9, "/initrd.img")
		measure(w.event(9, "/initrd.img"), "evil")
		good.Data = []byte("/other\x00")
		w.log.Entries = append(w.log.Entries, good)
	}, Unknown, "names file", claims.NotKnown},
	{"kernel.initrd", "file read afterwards by a command", func(w *world) {
		good := *w.event(9, "/initrd.img")
		measure(w.event(9, "/initrd.img"), "evil")
		w.command("cat /good.img")
		w.log.Entries = append(w.log.Entries, good)
	}, Unknown, "GRUB ran cat", claims.NotKnown},
	{"kernel.initrd", "files read afterwards by set", func(w *world) {
		kernel, good := *w.event(9, "/vmlinuz"), *w.event(9, "/initrd.img")
		measure(w.event(9, "/initrd.img"), "evil")
		w.command("set locale_dir=/a")
		w.command("set lang=k")
		w.command("set lang=i")
		w.log.Entries = append(w.log.Entries, kernel, good)
	}, Unknown, "GRUB ran set locale_dir", claims.NotKnown},
	{"kernel.initrd", "a linux command that fails afterwards", func(w *world) { w.command("linux /missing x") }, Unknown, "before its last linux", claims.NotKnown},
	{"kernel.initrd", "known file of another purpose", func(w *world) {
		measure(w.event(9, "/initrd.img"), "busybox")
		w.know("busybox", "/bin/busybox", "busybox")
	}, Fail, "unknown initrd", claims.Proven},
	{"kernel.initrd", "none", func(w *world) {
		w.drop(8, []byte("initrd"))
		w.drop(9, []byte("initrd"))
	}, Pass, "without initrd", claims.Proven},
	{"kernel.initrd", "the stub takes GRUB's", func(w *world) {
		measure(w.event(9, "/initrd.img"), "initrd")
		w.know("own", "/boot/initrd.img", "initrd")
		w.tag(tagInitrd, []byte("initrd"))
	}, Pass, "/boot/initrd.img", claims.Proven},
	{"kernel.initrd", "the stub takes another", func(w *world) { w.tag(tagInitrd, []byte("evil")) }, Unknown, "EFI stub", claims.NotKnown},
	{"kernel.initrd", "any", func(w *world) {
		measure(w.event(9, "/initrd.img"), "evil")
		w.spec.Kernel.Initrd = "any"
	}, Pass, "does not compare", claims.Proven},
	{"kernel.initrd", "unified kernel image", func(w *world) { uki(w, goodWords) }, Pass, "linux.efi", claims.Proven},
	{"kernel.initrd", "unified kernel image with extensions that are not quoted", func(w *world) {
		uki(w, goodWords)
		unquoted(13)(w)
	}, Unknown, "", claims.NotKnown},
	{"kernel.initrd", "unknown image", func(w *world) {
		uki(w, goodWords)
		w.without("uki")
	}, Unknown, "no initrd was measured", claims.NotKnown},
	{"kernel.initrd", "unknown image, any", func(w *world) {
		uki(w, goodWords)
		w.without("uki")
		w.spec.Kernel.Initrd = "any"
	}, Pass, "not judged", claims.NotKnown},
	{"kernel.initrd", "not quoted", unquoted(9), Unknown, "not quoted", claims.NotKnown},
}

// line boots with another command line.
func line(words string) func(*world) { return func(w *world) { w.cmdline(words) } }

var commandLineCases = []ruleCase{
	{"kernel.command-line", "good", nil, Pass, "ima_policy=tcb", claims.Proven},
	{"kernel.command-line", "lacks a word", line("ima_policy=tcb quiet"), Fail, "lacks module.sig_enforce=1", claims.Proven},
	{"kernel.command-line", "word behind --", line("quiet -- " + goodWords), Fail, "lacks ima_policy", claims.Proven},
	{"kernel.command-line", "word in pieces of quotes", line(`ima_policy=tcb module.sig_"enforce"=1`), Fail, "lacks module.sig_enforce", claims.Proven},
	{"kernel.command-line", "forbidden word", line(goodWords + " init=/bin/sh"), Fail, "init=/bin/sh", claims.Proven},
	{"kernel.command-line", "forbidden word behind a blank of the kernel", line(goodWords + " quiet\u00a0init=/bin/sh"), Fail, "init=/bin/sh", claims.Proven},
	{"kernel.command-line", "forbidden word with a dash", line(goodWords + " ima-appraise=off"), Fail, "ima-appraise=off", claims.Proven},
	{"kernel.command-line", "forbidden word in quotes", line(goodWords + ` "init=/bin/sh"`), Fail, "init=/bin/sh", claims.Proven},
	{"kernel.command-line", "not among the allowed", func(w *world) {
		w.spec.Kernel.CommandLine.Allowed = []string{"ima_policy=tcb", "module.sig_enforce=1"}
		w.cmdline(goodWords + " debug")
	}, Fail, "debug, which is not allowed", claims.Proven},
	{"kernel.command-line", "all allowed", func(w *world) {
		w.spec.Kernel.CommandLine.Allowed = []string{"ima_policy=tcb", "module.sig_enforce=*"}
		w.cmdline(goodWords)
	}, Pass, goodWords, claims.Proven},
	{"kernel.command-line", "hidden as a command", func(w *world) {
		w.cmdline(goodWords + " init=/bin/sh")
		e := w.event(8, "kernel_cmdline: ")
		e.Data = []byte("grub_cmd: " + strings.TrimPrefix(string(e.Data), "kernel_cmdline: "))
	}, Fail, "init=/bin/sh", claims.Proven},
	{"kernel.command-line", "command hidden as a command line", func(w *world) {
		e := w.event(8, "grub_cmd: linux")
		e.Data = []byte("kernel_cmdline: linux /vmlinuz init=/bin/sh\x00")
		e.Over, e.Digests = []byte("linux /vmlinuz init=/bin/sh"), nil
	}, Fail, "init=/bin/sh", claims.Proven},
	{"kernel.command-line", "a first attempt counts", func(w *world) {
		w.command("linux /vmlinuz init=/bin/sh")
	}, Fail, "init=/bin/sh", claims.Proven},
	{"kernel.command-line", "kexec", func(w *world) { w.fact(evidence.FactCommandLine, goodWords+" from=kexec") }, Fail, "from=kexec", claims.Claimed},
	{"kernel.command-line", "worker does not say its own", func(w *world) { w.taken(evidence.FactCommandLine) }, Pass, "ima_policy", claims.Proven},
	{"kernel.command-line", "unified kernel image", func(w *world) { uki(w, goodWords) }, Pass, goodWords, claims.Proven},
	{"kernel.command-line", "unified kernel image, another said", func(w *world) {
		uki(w, goodWords)
		w.fact(evidence.FactCommandLine, goodWords+" x")
	}, Unknown, "only from what the worker says", claims.NotKnown},
	{"kernel.command-line", "unified kernel image, a section added after the boot", func(w *world) {
		uki(w, "init=/bin/sh")
		w.section(".cmdline", goodWords)
		w.fact(evidence.FactCommandLine, goodWords)
	}, Unknown, "only from what the worker says", claims.NotKnown},
	{"kernel.command-line", "unified kernel image, PCR of additions not quoted", func(w *world) {
		uki(w, goodWords)
		unquoted(12)(w)
	}, Unknown, "", claims.NotKnown},
	{"kernel.command-line", "load options of the stub", func(w *world) {
		uki(w, "other")
		w.fact(evidence.FactCommandLine, goodWords)
		w.tag(tagLoadOptions, append(wide(goodWords), 0, 0))
	}, Pass, goodWords, claims.Proven},
	{"kernel.command-line", "neither measured nor said", func(w *world) {
		uki(w, goodWords)
		w.taken(evidence.FactCommandLine)
	}, Unknown, "did not say", claims.NotKnown},
	{"kernel.command-line", "not quoted", unquoted(8), Unknown, "not quoted", claims.NotKnown},
}
