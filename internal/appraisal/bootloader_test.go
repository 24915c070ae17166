package appraisal

import (
	"encoding/hex"
	"fmt"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/uefi"
	"touchstone.dev/touchstone/internal/uefi/uefitest"
)

const (
	shim     = "shim-signed"
	grubName = "grub-efi-amd64-signed"
	mokFact  = evidence.FactEFIPrefix + "MokListRT-" + uefi.ShimLock
)

// enrolMOK enrols a machine owner key: shim measures the list, and mirrors it where told.
func enrolMOK(told bool) func(*world) {
	return func(w *world) {
		content := append(uefi.EncodeX509List(uefi.ShimLock, w.source(shim).VendorKeys[0].DER), uefi.EncodeX509List(uefitest.Owner, evil)...)
		measure(w.event(14, "MokList\x00"), string(content))
		if told {
			w.facts[mokFact] = append([]byte{6, 0, 0, 0}, content...)
		}
	}
}

// sbat lets shim apply another SBAT level.
func sbat(level string) func(*world) {
	return func(w *world) {
		say(w.event(7, string(wide("SbatLevel"))), w.variable(uefi.ShimLock, "SbatLevel", []byte(level)))
	}
}

func sbatMode(mode string) func(*world) { return func(w *world) { w.spec.BootLoader.SBAT = mode } }

// all makes several changes.
func all(changes ...func(*world)) func(*world) {
	return func(w *world) {
		for _, c := range changes {
			c(w)
		}
	}
}

// in384 reads the world in another bank, for which every event has its digests.
func in384(w *world) {
	w.bank = tpm.AlgSHA384
	b := eventlogtest.New(tpm.AlgSHA384)
	refs, err := reference.Compile(w.sources)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range w.log.Entries {
		if e.Type == eventlog.EFIBootServicesApplication {
			if ref, ok := refs.Image(tpm.AlgSHA256, e.Digests[tpm.AlgSHA256]); ok {
				d, _ := hex.DecodeString(ref.Authenticode["sha384"])
				e.Digests = map[tpm.Alg][]byte{tpm.AlgSHA384: d}
			}
		}
		b.Entries = append(b.Entries, e)
	}
	w.log = b
}

// imageOf is the digest of an image of the references.
func imageOf(w *world, source string) string {
	return w.source(source).Images[0].Authenticode["sha256"]
}

var bootLoaderCases = []ruleCase{
	{"boot-loader.log", "good", nil, Pass, "4,5,14", claims.Proven},
	{"boot-loader.log", "not what the TPM holds", differs(4), Fail, "PCR 4", claims.Proven},
	{"boot-loader.log", "type that is not of shim", func(w *world) { w.log.Add(14, eventlog.PostCode, []byte("x")) }, Fail, "PCR 14", claims.Proven},

	{"boot-loader.images", "good", nil, Pass, "shimx64", claims.Proven},
	{"boot-loader.images", "unknown loader in the place of shim", func(w *world) { measure(w.event(4, string(wide("BOOTX64"))), "evil") }, Fail, "unknown boot loader", claims.Proven},
	{"boot-loader.images", "chainloaded", func(w *world) {
		w.command("chainloader /evil.efi")
		w.image("evil")
	}, Fail, "unknown boot loader", claims.Proven},
	{"kernel.image", "unknown driver after GRUB loaded a kernel", func(w *world) { w.log.AddOver(4, eventlog.EFIBootServicesDriver, make([]byte, 32), []byte("evil")) }, Fail, "unknown kernel", claims.Proven},
	{"boot-loader.images", "package not imported", func(w *world) { w.without(grubName) }, Fail, "grubx64.efi", claims.Proven},
	{"boot-loader.images", "signed is enough", all(func(w *world) { w.without(grubName) }, func(w *world) { w.spec.BootLoader.Images = "signed" }), Pass, "Secure Boot let it in", claims.Proven},
	{"boot-loader.images", "signed, but Secure Boot is off", all(func(w *world) { w.without(grubName) }, func(w *world) { w.spec.BootLoader.Images = "signed" },
		func(w *world) { w.set("SecureBoot", replace([]byte{0})) }), Fail, "unknown boot loader", claims.Proven},
	{"boot-loader.images", "none measured", func(w *world) { w.log.Entries = w.log.Entries[:22] }, Unknown, "no boot loader", claims.NotKnown},
	{"boot-loader.images", "not quoted", unquoted(4), Unknown, "not quoted", claims.NotKnown},

	{"boot-loader.authorities", "good", nil, Pass, "Debian Secure Boot CA", claims.Proven},
	{"boot-loader.authorities", "not in db", func(w *world) { w.addAuthority(imageSecurity, "db", evil) }, Fail, "Evil CA", claims.Proven},
	{"boot-loader.authorities", "machine owner key", func(w *world) { w.addAuthority(uefi.ShimLock, "MokListRT", evil) }, Fail, "Evil CA", claims.Proven},
	{"boot-loader.authorities", "machine owner key, retyped", func(w *world) {
		w.addAuthority(uefi.ShimLock, "MokListRT", evil)
		w.log.Entries[len(w.log.Entries)-1].Type = eventlog.EFIVariableDriverConfig
	}, Fail, "Evil CA", claims.Proven},
	{"boot-loader.authorities", "named by the policy", func(w *world) {
		w.addAuthority(uefi.ShimLock, "MokListRT", evil)
		w.spec.BootLoader.MachineOwnerKeys = []string{fmt.Sprintf("%X", sum(string(evil)))}
	}, Pass, "named by the policy", claims.Proven},
	{"boot-loader.authorities", "db alone", func(w *world) { w.spec.BootLoader.Authorities = []string{"db"} }, Fail, "Debian Secure Boot CA", claims.Proven},
	{"boot-loader.authorities", "one certificate of db", func(w *world) {
		w.spec.BootLoader.Authorities = []string{"vendor", fmt.Sprintf("%x", sum(string(evil)))}
	}, Fail, "Microsoft", claims.Proven},
	{"boot-loader.authorities", "none", func(w *world) { w.log.Entries = w.log.Entries[:21] }, Unknown, "did not check", claims.NotKnown},
	{"boot-loader.authorities", "not quoted", unquoted(7), Unknown, "not quoted", claims.NotKnown},

	{"boot-loader.revocations", "good", nil, Pass, "no image", claims.Proven},
	{"boot-loader.revocations", "imported list, by its name", func(w *world) { revoke(imageOf(w, shim), "shimx64.efi of 2025")(w) }, Fail, "shimx64.efi of 2025", claims.Proven},
	{"boot-loader.revocations", "the machine's own dbx", func(w *world) {
		d, _ := hex.DecodeString(imageOf(w, grubName))
		w.set("dbx", func(old []byte) []byte { return append(old, uefitest.List(uefitest.SHA256, d)...) })
	}, Fail, "the machine's dbx", claims.Proven},
	{"boot-loader.revocations", "authority", func(w *world) { revoke(w.source(shim).VendorKeys[0].SHA256, "")(w) }, Fail, "Debian Secure Boot CA", claims.Proven},
	{"boot-loader.revocations", "another bank", func(w *world) {
		revoke(imageOf(w, shim), "shimx64.efi of 2025")(w)
		in384(w)
	}, Fail, "shimx64.efi of 2025", claims.Proven},
	{"boot-loader.revocations", "another bank, good", in384, Pass, "no image", claims.Proven},
	{"boot-loader.revocations", "another bank, unknown image", func(w *world) {
		in384(w)
		w.image("not imported")
	}, Unknown, "cannot be told in bank sha384", claims.NotKnown},
	{"boot-loader.revocations", "not quoted", unquoted(4), Unknown, "not quoted", claims.NotKnown},

	{"boot-loader.sbat", "any", nil, Pass, "sbat,1,2025021800", claims.Proven},
	{"boot-loader.sbat", "none, any", func(w *world) { w.drop(7, wide("SbatLevel")) }, Pass, "no SBAT level", claims.Proven},
	{"boot-loader.sbat", "none, but wanted", all(sbatMode("reference"), func(w *world) { w.drop(7, wide("SbatLevel")) }), Unknown, "no SBAT level", claims.NotKnown},
	{"boot-loader.sbat", "as the policy wants", sbatMode("sbat,1,2025021800\nshim,4\ngrub,5\n"), Pass, "", claims.Proven},
	{"boot-loader.sbat", "older than the policy wants", sbatMode("sbat,1,2026010100\nshim,4\ngrub,6\n"), Fail, "the policy", claims.Proven},
	{"boot-loader.sbat", "older than imported", all(sbatMode("reference"), func(w *world) {
		w.sources = append(w.sources, reference.Source{Kind: reference.KindSBAT, Name: "revocations", SBAT: "sbat,1,2026010100\nshim,5\n"})
	}), Fail, "revocations", claims.Proven},
	{"boot-loader.sbat", "nothing imported", sbatMode("reference"), Unknown, "no reference", claims.NotKnown},
	{"boot-loader.sbat", "unreadable", all(sbatMode("reference"), sbat("\x01\x02")), Fail, "cannot be read", claims.Proven},
	{"boot-loader.sbat", "unreadable policy", sbatMode("newest"), Unknown, "policy", claims.NotKnown},
	{"boot-loader.sbat", "not quoted", unquoted(7), Unknown, "not quoted", claims.NotKnown},

	{"boot-loader.mok", "shim's own key", nil, Pass, "Debian Secure Boot CA", claims.Proven},
	{"boot-loader.mok", "key enrolled, told", enrolMOK(true), Fail, "Evil CA", claims.Proven},
	{"boot-loader.mok", "key enrolled, not told", enrolMOK(false), Unknown, "did not come along", claims.NotKnown},
	{"boot-loader.mok", "key enrolled, another list told", func(w *world) {
		enrolMOK(false)(w)
		w.facts[mokFact] = read(w.t, "corpus/good/efivars/MokListRT-"+uefi.ShimLock)
	}, Unknown, "did not come along", claims.NotKnown},
	{"boot-loader.mok", "key named by the policy", all(enrolMOK(true), func(w *world) {
		w.spec.BootLoader.MachineOwnerKeys = []string{fmt.Sprintf("%x", sum(string(evil)))}
	}), Pass, "2 machine owner keys", claims.Proven},
	{"boot-loader.mok", "list unreadable", func(w *world) {
		measure(w.event(14, "MokList\x00"), "garbage")
		w.fact(mokFact, "\x06\x00\x00\x00garbage")
	}, Fail, "cannot be read", claims.Proven},
	{"boot-loader.mok", "MokSBState measured", func(w *world) { w.log.AddOver(14, eventlog.IPLType, []byte("MokSBState\x00"), []byte{1}) }, Fail, "MokSBState", claims.Proven},
	{"boot-loader.mok", "MokListX without its content", func(w *world) { w.facts[evidence.FactEFIPrefix+"MokListXRT-"+uefi.ShimLock] = nil }, Pass, "MokListX", claims.NotKnown},
	{"boot-loader.mok", "no shim", func(w *world) { w.drop(14, []byte("Mok")) }, Pass, "no machine owner key list", claims.Proven},
	{"boot-loader.mok", "not quoted", unquoted(14), Unknown, "not quoted", claims.NotKnown},

	{"boot-loader.shim-validation", "good", nil, Pass, "on", claims.Proven},
	{"boot-loader.shim-validation", "off", func(w *world) {
		w.log.Add(7, eventlog.EFIVariableAuthority, w.variable(uefi.ShimLock, "MokSBState", []byte{1}))
	}, Fail, "MokSBState = 01", claims.Proven},
	{"boot-loader.shim-validation", "off, retyped", func(w *world) {
		w.log.Add(7, eventlog.EFIVariableDriverConfig, w.variable(uefi.ShimLock, "MokSBState", []byte{1}))
	}, Fail, "MokSBState", claims.Proven},
	{"boot-loader.shim-validation", "db ignored", func(w *world) {
		w.log.Add(7, eventlog.EFIVariableAuthority, w.variable(uefi.ShimLock, "MokDBState", []byte{1}))
	}, Fail, "MokDBState", claims.Proven},
	{"boot-loader.shim-validation", "not quoted", unquoted(7), Unknown, "not quoted", claims.NotKnown},

	{"boot-loader.grub", "good", nil, Pass, "grub.cfg", claims.Proven},
	{"boot-loader.grub", "not used", func(w *world) {
		w.drop(8, nil)
		w.drop(9, nil)
	}, Pass, "not used", ""},
	{"boot-loader.grub", "another kernel first", func(w *world) { w.command("linux /second x") }, Warn, "another kernel first", claims.Proven},
	{"boot-loader.grub", "not quoted", unquoted(9), Unknown, "not quoted", claims.NotKnown},

	{"boot-loader.stub", "not used", nil, Pass, "not used", ""},
	{"boot-loader.stub", "sections", func(w *world) { uki(w, goodWords) }, Pass, "sections", claims.Proven},
	{"boot-loader.stub", "credential beside the image", func(w *world) {
		uki(w, goodWords)
		w.log.AddOver(12, eventlog.IPLType, wide("Credentials initrd\x00"), wide("Credentials initrd"))
	}, Fail, "Credentials initrd", claims.Proven},
	{"boot-loader.stub", "extension beside the image", func(w *world) {
		uki(w, goodWords)
		w.log.AddOver(13, eventlog.IPLType, wide("System extension initrd\x00"), wide("System extension initrd"))
	}, Fail, "System extension", claims.Proven},
	{"boot-loader.stub", "PCR of extensions not quoted", func(w *world) {
		uki(w, goodWords)
		unquoted(13)(w)
	}, Unknown, "PCR 13", claims.NotKnown},
}
