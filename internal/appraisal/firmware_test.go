package appraisal

import (
	"fmt"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/tpm"
)

// noLog takes the firmware log away.
func noLog(w *world) { w.log = nil }

// unquoted leaves PCRs out of the quote.
func unquoted(pcrs ...int) func(*world) {
	return func(w *world) { w.quoted &^= tpm.PCRs(pcrs...) }
}

// differs lets the TPM hold something else than the log tells.
func differs(pcr int) func(*world) {
	return func(w *world) { w.after = append(w.after, func(in *Input) { in.Claims.PCRs[pcr] = claims.Differs }) }
}

// profile5 is the status of a management engine that enforces Boot Guard in profile 5.
var profile5 = fmt.Sprintf("%08X\n00000000\n00000000\n00000000\n%08X\n%08X\n0:16.1.25.2049\n0:16.1.25.2049\n0:16.1.25.2049\n", 5, 1|1<<8,
	uint32(1|1<<1|1<<3|3<<6|1<<8|1<<9|1<<21|1<<30|1<<31))

var firmwareCases = []ruleCase{
	{"firmware.tpm", "good", nil, Pass, "sha256", claims.Proven},
	{"firmware.tpm", "weak bank", func(w *world) {
		w.after = append(w.after, func(in *Input) { in.Claims.Quote.Banks = []tpm.Alg{tpm.AlgSHA1} })
	}, Fail, "sha1", claims.Proven},
	{"firmware.tpm", "PCR left out", unquoted(7), Fail, "PCR 7", claims.Proven},
	{"firmware.tpm", "key as PEM", func(w *world) {
		w.after = append(w.after, func(in *Input) { in.Claims.Quote.KeyWithoutAttributes = true })
	}, Warn, "PEM", claims.NotKnown},

	{"firmware.log", "good", nil, Pass, "0,1,2,3,6", claims.Proven},
	{"firmware.log", "no log", noLog, Unknown, "no firmware log", ""},
	{"firmware.log", "no log, and other values than captured", func(w *world) {
		w.log = nil
		w.source(capture).Firmware[0].Values = map[string]map[int]string{"sha256": {0: "00"}}
	}, Unknown, "captured from", ""},
	{"firmware.log", "not what the TPM holds", differs(0), Fail, "does not replay", claims.Proven},
	{"firmware.log", "value without events", func(w *world) {
		w.after = append(w.after, func(in *Input) { in.Claims.PCRs[2] = claims.Orphan })
	}, Fail, "no events", claims.Proven},
	{"firmware.log", "PCR left out", unquoted(3), Fail, "not quoted", ""},
	{"firmware.log", "unknown type", func(w *world) { w.log.Add(0, 0x1234, nil) }, Fail, "unknown type", claims.Proven},
	{"firmware.log", "type out of place", func(w *world) { w.log.Add(3, eventlog.EFIGPT, nil) }, Fail, "does not belong", claims.Proven},
	{"firmware.log", "firmware that failed to measure", func(w *world) { w.log.Add(1, eventlog.Separator, []byte{1, 0, 0, 0}) }, Fail, "failed to measure", claims.Proven},

	{"firmware.version", "good", nil, Pass, "0000", claims.Proven},
	{"firmware.version", "another text than measured", func(w *world) { w.log.AddOver(0, eventlog.SCRTMVersion, []byte("2.0\x00"), []byte("1.0\x00")) }, Fail, "not what it measured", claims.Proven},
	{"firmware.version", "not quoted", unquoted(0), Unknown, "PCR 0 not quoted", claims.NotKnown},

	{"firmware.known", "good", nil, Pass, capture, claims.Proven},
	{"firmware.known", "another volume", func(w *world) { measure(w.firmwareVolume(), "evil firmware") }, Fail, "differs", claims.Proven},
	{"firmware.known", "one event more", func(w *world) { w.log.AddOver(0, eventlog.PostCode, []byte("ACPI DATA"), []byte("x")) }, Fail, "one more event", claims.Proven},
	{"firmware.known", "one event less", func(w *world) {
		f := &w.source(capture).Firmware[0]
		f.PCRs["sha256"][0] = append(f.PCRs["sha256"][0], reference.FirmwareEvent{Type: "EV_POST_CODE", Digest: "00"})
	}, Fail, "missing", claims.Proven},
	{"firmware.known", "another locality", func(w *world) { w.source(capture).Firmware[0].Locality = 3 }, Fail, "locality differs", claims.Proven},
	{"firmware.known", "second captured firmware", func(w *world) {
		other := *w.source(capture)
		other.Name, other.Keys = "A machine", nil
		other.Firmware = []reference.Firmware{{Name: "other", PCRs: map[string]map[int][]reference.FirmwareEvent{"sha256": {0: {}}}}}
		w.sources = append(w.sources, other)
	}, Pass, capture, claims.Proven},
	{"firmware.known", "no reference", func(w *world) { w.without(capture) }, Unknown, "no reference", claims.NotKnown},
	{"firmware.known", "no log", noLog, Unknown, "no firmware log", claims.NotKnown},
	{"firmware.known", "any", func(w *world) {
		w.spec.Firmware.Known = "any"
		w.without(capture)
	}, Pass, "does not compare", claims.Proven},

	{"firmware.option-roms", "none", nil, Pass, "0 option ROMs", claims.Proven},
	{"firmware.option-roms", "unknown driver", optionROM, Fail, "in no captured firmware", claims.Proven},
	{"firmware.option-roms", "unknown driver under another type", func(w *world) { w.log.AddOver(2, eventlog.PostCode, []byte("x"), []byte("evil ROM")) }, Fail, "in no captured", claims.Proven},
	{"firmware.option-roms", "captured driver", func(w *world) {
		optionROM(w)
		w.source(capture).Firmware[0].PCRs["sha256"][2] = []reference.FirmwareEvent{{Digest: fmt.Sprintf("%x", sum("option ROM"))}}
	}, Pass, "1 option ROMs", claims.Proven},
	{"firmware.option-roms", "any", func(w *world) {
		optionROM(w)
		w.spec.Firmware.OptionROMs = "any"
	}, Pass, "1 option ROMs", claims.Proven},
	{"firmware.option-roms", "not quoted", unquoted(2), Unknown, "PCR 2", claims.NotKnown},

	{"firmware.hardware-root", "any", nil, Pass, "locality 0", claims.Proven},
	{"firmware.hardware-root", "required, not there", func(w *world) { w.spec.Firmware.HardwareRoot = "required" }, Fail, "startup locality 3 or 4", claims.Proven},
	{"firmware.hardware-root", "required and there", func(w *world) {
		w.spec.Firmware.HardwareRoot = "required"
		w.locality(3)
	}, Pass, "startup locality 3", claims.Proven},
	{"firmware.hardware-root", "required, and only in the log", func(w *world) {
		w.spec.Firmware.HardwareRoot = "required"
		w.locality(3)
		differs(0)(w)
	}, Unknown, "not what the TPM quoted", claims.NotKnown},

	{"firmware.boot-guard", "nothing said, nothing required", nil, Pass, "nothing reported", claims.NotKnown},
	{"firmware.boot-guard", "nothing said, but required", func(w *world) { w.spec.Firmware.BootGuard = "claimed" }, Unknown, "neither", claims.NotKnown},
	{"firmware.boot-guard", "enforced", func(w *world) {
		w.spec.Firmware.BootGuard = "claimed"
		w.fact(evidence.FactMEIStatus, profile5)
	}, Pass, "profile 5", claims.Claimed},
	{"firmware.boot-guard", "processor says no", func(w *world) {
		w.spec.Firmware.BootGuard = "claimed"
		w.fact(evidence.FactMEIStatus, profile5)
		w.fact(evidence.FactMSRBootGrd, "0x0")
	}, Fail, "does not verify", claims.Claimed},
	{"firmware.boot-guard", "processor alone", func(w *world) {
		w.spec.Firmware.BootGuard = "claimed"
		w.fact(evidence.FactMSRBootGrd, "0x10000007d")
	}, Fail, "does not verify", claims.Claimed},
	{"firmware.boot-guard", "off, but any", func(w *world) { w.fact(evidence.FactMSRBootGrd, "0x0") }, Pass, "MSR 0x13A", claims.Claimed},
	{"firmware.boot-guard", "unreadable, but required", func(w *world) {
		w.spec.Firmware.BootGuard = "claimed"
		w.fact(evidence.FactMEIStatus, "zz")
	}, Unknown, "neither", claims.NotKnown},

	{"firmware.dynamic-launch", "none", nil, Pass, "no dynamic launch", ""},
	{"firmware.dynamic-launch", "no log", noLog, Pass, "no log", claims.NotKnown},

	{"firmware.endorsement", "enrolled", nil, Pass, "enrolled", claims.Proven},
	{"firmware.endorsement", "none, none required", endorsed(claims.Endorsement{}, "offered"), Pass, "none required", claims.NotKnown},
	{"firmware.endorsement", "none, but required", endorsed(claims.Endorsement{}, "required"), Unknown, "no EK certificate", claims.NotKnown},
	{"firmware.endorsement", "of a known maker", endorsed(claims.Endorsement{Offered: true, Issuer: "CN=maker"}, "required"), Pass, "CN=maker", claims.Claimed},
	{"firmware.endorsement", "of another maker", endorsed(claims.Endorsement{Offered: true, Error: "unknown authority"}, "offered"), Fail, "unknown authority", claims.Claimed},
	{"firmware.endorsement", "no roots", func(w *world) {
		w.without("CA of the software TPMs in test/boots")
		endorsed(claims.Endorsement{Offered: true, Error: "unknown authority"}, "offered")(w)
	}, Pass, "no roots", claims.NotKnown},
	{"firmware.endorsement", "no roots, but required", func(w *world) {
		w.without("CA of the software TPMs in test/boots")
		endorsed(claims.Endorsement{Offered: true, Error: "unknown authority"}, "required")(w)
	}, Fail, "unknown authority", claims.Claimed},
}

func optionROM(w *world) {
	w.log.AddOver(2, eventlog.EFIBootServicesDriver, make([]byte, 32), []byte("option ROM"))
}

func endorsed(e claims.Endorsement, mode string) func(*world) {
	return func(w *world) {
		w.spec.Firmware.Endorsement = mode
		w.after = append(w.after, func(in *Input) { in.Claims.Quote.Enrolled, in.Claims.Endorsement = false, e })
	}
}

// firmwareVolume is the first one of PCR 0.
func (w *world) firmwareVolume() *eventlogtest.Entry {
	for i := range w.log.Entries {
		if w.log.Entries[i].Type == eventlog.EFIPlatformFirmwareBlob {
			return &w.log.Entries[i]
		}
	}
	w.t.Fatal("no firmware volume")
	return nil
}

// locality starts PCR 0 at another locality.
func (w *world) locality(l byte) {
	w.log.Locality = l
	w.log.Entries = append([]eventlogtest.Entry{{PCR: 0, Type: eventlog.NoAction, Data: append([]byte("StartupLocality\x00"), l)}}, w.log.Entries...)
}
