package appraisal

import (
	"encoding/hex"
	"fmt"
	"strings"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/intel"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/tpm"
)

// Level 1: is the firmware genuine, and verified by the hardware before Secure Boot starts?
var firmwareRules = []rule{
	{"firmware.tpm", firmwareTPM},
	{"firmware.log", firmwareLog},
	{"firmware.version", firmwareVersion},
	{"firmware.known", firmwareKnown},
	{"firmware.option-roms", firmwareOptionROMs},
	{"firmware.hardware-root", firmwareHardwareRoot},
	{"firmware.boot-guard", firmwareBootGuard},
	{"firmware.dynamic-launch", firmwareDynamicLaunch},
	{"firmware.endorsement", firmwareEndorsement},
}

// firmwareTPM shows what the TPM says of itself, and that a bank that counts is quoted.
func firmwareTPM(in *Input) []Finding {
	q := &in.Claims.Quote
	var banks []string
	for _, b := range q.Banks {
		for _, want := range in.Policy.Spec.Attestation.Banks {
			if b.String() == want {
				banks = append(banks, want)
			}
		}
	}
	if len(banks) == 0 {
		return one(fail(claims.Proven, "no bank that counts is quoted").expect(strings.Join(in.Policy.Spec.Attestation.Banks, " or "), algNames(q.Banks)).because(
			"the TPM has only weak banks active", "activate the SHA-256 bank in the firmware's set-up"))
	}
	var missing []int
	for _, i := range in.Policy.Spec.Attestation.PCRs {
		if in.Claims.PCRs[i] == claims.NotQuoted {
			missing = append(missing, i)
		}
	}
	if len(missing) > 0 {
		return one(fail(claims.Proven, "PCR %s not quoted, but the policy needs them", joinInts(missing)).expect("PCRs "+joinInts(in.Policy.Spec.Attestation.PCRs), "PCRs "+q.PCRs.String()).because(
			"the quote selects too few PCRs", "quote all PCRs that the policy names"))
	}
	out := one(pass(claims.Proven, "TPM quote over bank %s", strings.Join(banks, ", ")))
	if q.KeyWithoutAttributes {
		out = append(out, warn(claims.NotKnown, "the attestation key came as PEM: whether it is restricted to what the TPM itself measured cannot be checked").because(
			"PEM holds no attributes", "pack the TPM2B_PUBLIC of the key, or enrol the worker"))
	}
	return out
}

// firmwareLog: the log replays PCR 0, 1, 2, 3 and 6 (PC Client PFP 3.3.4), and problems that concern the whole log.
func firmwareLog(in *Input) []Finding { return in.checkPCRs(0, 1, 2, 3, 6) }

// firmwareVersion: the S-CRTM version is the one that was measured. It has a rule of its own because some firmware logs another text than it
// measures; its digest counts in firmware.known either way.
func firmwareVersion(in *Input) []Finding {
	if f, bad := in.unproven("firmware version cannot be told", 0); bad {
		return one(f)
	}
	if e := in.Claims.Boot.VersionUncovered; e != nil {
		return one(fail(claims.Proven, "the version that the firmware logs is not what it measured").at(e).expect("data that hash to the digest", hex.EncodeToString(e.Digest(in.Claims.Bank))).because(
			"the log was altered, or a firmware that measures its version in another form than it logs it", "compare with another machine of this model; if all do so, except this rule"))
	}
	return one(pass(claims.Proven, "S-CRTM version %q", in.Claims.Boot.SCRTMVersion))
}

// firmwareKnown: the events of PCR 0 equal those of a captured firmware, in order.
func firmwareKnown(in *Input) []Finding {
	if f, bad := in.unproven("firmware cannot be told", 0); bad {
		return one(f)
	}
	b := in.Claims.Boot
	what := describeFirmware(b)
	if in.Policy.Spec.Firmware.Known == "any" {
		return one(pass(claims.Proven, "firmware %s (the policy does not compare it)", what).expect("", volumes(b)))
	}
	refs := in.References.Firmware()
	var closest *Finding
	for i := range refs {
		events, ok := refs[i].PCRs[b.Bank.String()][0]
		if !ok {
			continue
		}
		diff := comparePCR(b, 0, events)
		if diff == nil && refs[i].Locality == max(b.Log.Locality, 0) {
			return one(pass(claims.Proven, "firmware %s equals reference %q", what, refs[i].Name).expect("", volumes(b)))
		}
		if diff == nil {
			f := fail(claims.Proven, "startup locality differs from reference %q", refs[i].Name).expect(fmt.Sprint(refs[i].Locality), fmt.Sprint(max(b.Log.Locality, 0)))
			diff = &f
		}
		if closest == nil {
			diff.Message = fmt.Sprintf("firmware %s is not reference %q: %s", what, refs[i].Name, diff.Message)
			closest = diff
		}
	}
	if closest == nil {
		return one(unknown("firmware %s: no reference for bank %v", what, b.Bank).because("no firmware was captured yet",
			"check this worker's firmware by other means, then: touchstone reference capture NODE --what firmware"))
	}
	return one(closest.because("the firmware was updated, its configuration of code changed, or it was tampered with",
		"if the update was intended, capture the new firmware: touchstone reference capture NODE --what firmware"))
}

// comparePCR holds the events of a PCR against reference events and returns the first difference.
func comparePCR(b *claims.Boot, pcr int, want []reference.FirmwareEvent) *Finding {
	n := 0
	for i := range b.Log.Events {
		e := &b.Log.Events[i]
		if e.PCR != pcr || !e.Extends() {
			continue
		}
		got := hex.EncodeToString(e.Digest(b.Bank))
		if n >= len(want) {
			f := fail(claims.Proven, "one more event than the reference").at(e).expect("end of PCR", got)
			return &f
		}
		if got != want[n].Digest {
			f := fail(claims.Proven, "event %d differs", e.Index).at(e).expect(want[n].Digest, got)
			return &f
		}
		n++
	}
	if n < len(want) {
		f := fail(claims.Proven, "an event of the reference is missing").expect(want[n].Type+" "+want[n].What+" "+want[n].Digest, "end of PCR")
		return &f
	}
	return nil
}

// volumes lists what the firmware measured of itself.
func volumes(b *claims.Boot) string {
	s := make([]string, 0, len(b.Volumes))
	for _, v := range b.Volumes {
		s = append(s, fmt.Sprintf("%s %x", v.Text, v.Event.Digest(b.Bank)))
	}
	return list(s)
}

func describeFirmware(b *claims.Boot) string {
	v := b.SCRTMVersion
	if strings.Trim(v, "0 ") == "" {
		v = "without version"
	}
	return fmt.Sprintf("%s (%d measured volumes)", v, len(b.Volumes))
}

// firmwareOptionROMs: each driver that the firmware took from a device (PCR 2) is in a captured firmware.
func firmwareOptionROMs(in *Input) []Finding {
	if f, bad := in.unproven("option ROMs cannot be told", 2); bad {
		return one(f)
	}
	b := in.Claims.Boot
	var out []Finding
	var seen []string
	for i := range b.Log.Events {
		e := &b.Log.Events[i]
		if e.PCR != 2 || !e.Extends() || e.Type == eventlog.Separator {
			continue
		}
		seen = append(seen, fmt.Sprintf("%s %x", eventlog.Describe(e), e.Digest(b.Bank)))
		if in.Policy.Spec.Firmware.OptionROMs == "any" || in.knownFirmwareEvent(b, e) {
			continue
		}
		out = append(out, fail(claims.Proven, "option ROM or driver is in no captured firmware").at(e).expect("a driver of a captured firmware", hex.EncodeToString(e.Digest(b.Bank))).because(
			"a device was added or its firmware was updated, or a device brings hostile code", "if the device is yours: touchstone reference capture NODE --what firmware"))
	}
	if len(out) == 0 {
		out = one(pass(claims.Proven, "%d option ROMs and drivers from devices, all accepted", len(seen)).expect("", list(seen)))
	}
	return out
}

func (in *Input) knownFirmwareEvent(b *claims.Boot, e *eventlog.Event) bool {
	d := hex.EncodeToString(e.Digest(b.Bank))
	for _, fw := range in.References.Firmware() {
		for _, known := range fw.PCRs[b.Bank.String()][e.PCR] {
			if known.Digest == d {
				return true
			}
		}
	}
	return false
}

// firmwareHardwareRoot: the startup locality is the low byte of PCR 0's first value, so a replay proves it: 3 after an authenticated code
// module, 4 after an H-CRTM (PC Client PFP 10.4.5.3).
func firmwareHardwareRoot(in *Input) []Finding {
	if f, bad := in.unproven("the start of the measurements cannot be told", 0); bad {
		return one(f)
	}
	switch l := in.Claims.Boot.Log.Locality; {
	case l == 3 || l == 4:
		return one(pass(claims.Proven, "measurements start in hardware: startup locality %d", l))
	case in.Policy.Spec.Firmware.HardwareRoot == "required":
		return one(fail(claims.Proven, "measurements start in the firmware itself").expect("startup locality 3 or 4", fmt.Sprintf("locality %d", max(l, 0))).because(
			"Boot Guard or TXT does not measure on this machine", "turn on Boot Guard (measured) with the vendor, or allow it: firmware.hardwareRoot: any"))
	default:
		return one(pass(claims.Proven, "measurements start in the firmware itself (startup locality %d)", max(l, 0)))
	}
}

// firmwareBootGuard: what the management engine and the processor say. Nothing signs it, so it is claimed.
func firmwareBootGuard(in *Input) []Finding {
	f := &in.Claims.Facts
	required := in.Policy.Spec.Firmware.BootGuard == "claimed"
	if f.MEI == nil && f.BootGuard == nil {
		if required {
			return one(unknown("Boot Guard: the worker reports neither management engine status nor MSR 0x13A").because(
				"the machine has no Intel management engine, or the agent may not read it", "load the mei_me and msr modules, or set firmware.bootGuard: any"))
		}
		return one(Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: "Boot Guard: nothing reported, nothing required"})
	}
	var said []string
	if f.MEI != nil {
		said = append(said, "management engine: "+f.MEI.String())
	}
	if f.BootGuard != nil {
		said = append(said, "processor: "+f.BootGuard.String())
	}
	text := strings.Join(said, "; ")
	if required && !bootGuardEnforced(f) {
		return one(fail(claims.Claimed, "Boot Guard does not verify the firmware").expect("verified boot, enforced, fuses locked", text).because(
			"Boot Guard is off or the machine is in manufacturing mode", "only the vendor can fuse it; or set firmware.bootGuard: any"))
	}
	return one(pass(claims.Claimed, "Boot Guard: %s", text))
}

func bootGuardEnforced(f *claims.Facts) bool {
	mei := f.MEI != nil && f.MEI.BootGuard() == intel.Yes
	return mei && (f.BootGuard == nil || f.BootGuard.BootGuard() != intel.No)
}

// firmwareDynamicLaunch shows a dynamic launch (Intel TXT): PCR 17 and 18, proven where they are quoted.
func firmwareDynamicLaunch(in *Input) []Finding {
	b := in.Claims.Boot
	if b == nil {
		return one(Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: "dynamic launch (TXT): no log tells of one"})
	}
	launch := intel.FromLog(b.Log.Events)
	if launch.DynamicLaunch() != intel.Yes {
		return one(Finding{Status: Pass, Provenance: string(in.Claims.Provenance(17, 18)), Message: "no dynamic launch (TXT)"})
	}
	prov := claims.Claimed
	if in.Claims.Proves(17, 18) {
		prov = claims.Proven
	}
	return one(pass(prov, "dynamic launch (TXT): %s", launch))
}

// firmwareEndorsement: an EK certificate that came along chains to an imported root. That it belongs to the attestation key is the
// enrolment's proof, not the Evidence's.
func firmwareEndorsement(in *Input) []Finding {
	e := &in.Claims.Endorsement
	q := &in.Claims.Quote
	switch {
	case q.Enrolled:
		return one(pass(claims.Proven, "attestation key enrolled: it lives in the TPM of the enrolment"))
	case !e.Offered && in.Policy.Spec.Firmware.Endorsement == "required":
		return one(unknown("no EK certificate came along").because("the TPM has none, or it was not packed", "pack it (--ek-cert), or enrol the worker"))
	case !e.Offered:
		return one(Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: "no EK certificate came along; none required"})
	case e.Error != "" && !in.References.HasEKRoots() && in.Policy.Spec.Firmware.Endorsement == "offered":
		return one(Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: "EK certificate of " + e.Issuer + " not checked: no roots imported"})
	case e.Error != "":
		return one(fail(claims.Claimed, "EK certificate is not from a manufacturer that you trust").expect("a chain to an imported root", e.Error).because(
			"the TPM is not genuine, or its manufacturer's root was not imported", "if the manufacturer is yours: touchstone reference import ek-roots DIR"))
	}
	return one(pass(claims.Claimed, "EK certificate issued by %s", e.Issuer))
}

func algNames(a []tpm.Alg) string {
	s := make([]string, len(a))
	for i := range a {
		s[i] = a[i].String()
	}
	return strings.Join(s, ", ")
}
