package intel

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// status writes fw_status with the given HFSTS1, 5 and 6, and fw_ver behind it when version isn't empty.
func status(r1, r5, r6 uint32, version string) string {
	s := fmt.Sprintf("%08X\n00000000\n00000000\n00000000\n%08X\n%08X\n", r1, r5, r6)
	if version != "" {
		s += fmt.Sprintf("0:%s\n0:%s\n0:%s\n", version, version, version)
	}
	return s
}

// Registers of a machine with Boot Guard in profile 5.
const (
	normal = 0x5                                                             // HFSTS1: working state normal
	active = 1<<0 | 1<<8                                                     // HFSTS5: ACM active and done
	fvme   = 1<<0 | 1<<1 | 1<<3 | 3<<6 | 1<<8 | 1<<9 | 1<<21 | 1<<30 | 1<<31 // HFSTS6 of CSME 11 to 17
	locked = 1<<21 | 1<<30                                                   // HFSTS6 of CSME 18
	five   = active | 1<<1 | 5<<18 | 1<<21                                   // HFSTS5 of CSME 18
)

func TestParseHFSTS(t *testing.T) {
	got, err := ParseHFSTS(status(normal, active, fvme, "16.1.25.2049"))
	if err != nil {
		t.Fatal(err)
	}
	want := Status{
		Registers: [6]uint32{normal, 0, 0, 0, active, fvme}, Version: "16.1.25.2049", Generation: GenerationCSME11, WorkingState: 5,
		Manufacturing: No, FPFLocked: Yes, ACMActive: Yes, Disabled: No, ForceACM: Yes, ProtectBIOS: Yes, BypassPolicy: No, PolicyInvalid: No,
		Measured: Yes, Verified: Yes, DebugDisabled: Yes, TXT: Yes, Enforcement: EnforcementNow, Profile: ProfileFVME,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("ParseHFSTS (-want +got):\n%s", d)
	}
	line := "management engine 16.1.25.2049: Boot Guard yes, profile 5 (FVME), ACM active yes, fuses locked yes, manufacturing mode no"
	if got.String() != line {
		t.Errorf("String: got %q, want %q", got, line)
	}
}

func TestStatusBootGuard(t *testing.T) {
	const v16, v18 = "16.1.25.2049", "18.0.5.2141"
	for _, tt := range []struct {
		name          string
		text          string
		profile       Profile
		manufacturing Answer
		want          Answer
	}{
		{"CSME 16, profile 5", status(normal, active, fvme, v16), ProfileFVME, No, Yes},
		{"CSME 12, profile 5, configuration lock unknown there", status(normal, active, fvme&^(1<<21), "12.0.70.1652"), ProfileFVME, No, Yes},
		{"CSME 16, profile 4", status(normal, active, fvme&^(1<<8), v16), ProfileFVE, No, Yes},
		{"CSME 16, profile 3", status(normal, active, fvme&^(1|3<<6), v16), ProfileVM, No, No},
		{"CSME 16, profile 0", status(normal, active, locked, v16), ProfileNone, No, No},
		{"CSME 16, forced but without shutdown", status(normal, active, fvme&^(3<<6), v16), ProfileOther, No, No},
		{"CSME 16, disabled", status(normal, active, fvme|1<<28, v16), ProfileFVME, No, No},
		{"CSME 16, policy bypassed", status(normal, active, fvme|1<<4, v16), ProfileFVME, No, No},
		{"CSME 16, policy invalid", status(normal, active, fvme|1<<5, v16), ProfileFVME, No, No},
		{"CSME 16, ACM did not finish", status(normal, 1, fvme, v16), ProfileFVME, No, No},
		{"CSME 16, manufacturing mode", status(normal|1<<4, active, fvme, v16), ProfileFVME, Yes, No},
		{"CSME 16, configuration not locked", status(normal, active, fvme&^(1<<21), v16), ProfileFVME, Yes, No},
		{"CSME 14, fuses not locked", status(normal, active, fvme&^(1<<30), "14.0.0.1"), ProfileFVME, Yes, No},
		{"CSME 11, fuses not locked", status(normal, active, fvme&^(1<<30), "11.8.92.4222"), ProfileFVME, No, No},
		{"CSME 16, debug operation", status(normal|2<<16, active, fvme, v16), ProfileFVME, No, No},
		{"CSME 18, profile 5", status(normal, five, locked, v18), ProfileFVME, No, Yes},
		{"CSME 21, profile 4", status(normal, active|1<<1|4<<18, locked, "21.0.0.1"), ProfileFVE, No, Yes},
		{"CSME 18, profile 3", status(normal, active|1<<1|3<<18, locked, v18), ProfileVM, No, No},
		{"CSME 18, profile 0", status(normal, active|1<<1, locked, v18), ProfileNone, No, No},
		{"CSME 18, profile 7", status(normal, active|1<<1|7<<18, locked, v18), ProfileOther, No, No},
		{"CSME 18, profile not valid", status(normal, five&^(1<<1), locked, v18), ProfileUnknown, No, Unknown},
		{"CSME 18, not locked", status(normal, five, 0, v18), ProfileFVME, Yes, No},
		{"CSME 18, HFSTS6 of an older engine is not read", status(normal, active|1<<1, fvme, v18), ProfileNone, No, No},
		{"unknown version", status(normal, active, fvme, ""), ProfileUnknown, Unknown, Unknown},
		{"unknown version, nothing set", status(normal, 0, 0, ""), ProfileUnknown, Unknown, Unknown},
		{"ME 9", status(normal, active, fvme, "9.5.61.3012"), ProfileUnknown, Unknown, Unknown},
	} {
		s, err := ParseHFSTS(tt.text)
		if err != nil {
			t.Errorf("%s: ParseHFSTS: %v", tt.name, err)
			continue
		}
		if s.Profile != tt.profile || s.Manufacturing != tt.manufacturing {
			t.Errorf("%s: got profile %v, manufacturing mode %v, want %v, %v", tt.name, s.Profile, s.Manufacturing, tt.profile, tt.manufacturing)
		}
		if got := s.BootGuard(); got != tt.want {
			t.Errorf("%s: BootGuard: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestParseHFSTSRefuses(t *testing.T) {
	good := status(normal, active, fvme, "")
	for name, text := range map[string]string{
		"empty":              "",
		"five registers":     strings.TrimSpace(good[:len(good)-9]),
		"seven registers":    good + "00000000\n",
		"not hexadecimal":    strings.Replace(good, "00000005", "0000000g", 1),
		"too short":          strings.Replace(good, "00000005", "5", 1),
		"sign":               strings.Replace(good, "00000005", "+0000005", 1),
		"prefix":             strings.Replace(good, "00000005", "0x000005", 1),
		"version of 3 parts": good + "0:16.1.25\n",
		"version of text":    good + "0:16.x.25.1\n",
		"version too big":    good + "0:99999.0.0.0\n",
		"no platform":        good + "16.1.25.2049\n",
		"second bad version": good + "0:16.1.25.2049\nrubbish\n",
		"too long":           good + strings.Repeat(" ", maxStatusText),
	} {
		if s, err := ParseHFSTS(text); !errors.Is(err, ErrStatus) || s != (Status{}) {
			t.Errorf("ParseHFSTS, %s: got %+v, %v, want error %v", name, s, err, ErrStatus)
		}
	}
}

func TestParseBootGuardMSR(t *testing.T) {
	const capable = 1 << 32
	for _, tt := range []struct {
		name    string
		v       uint64
		want    BootGuardMSR
		profile Profile
		guard   Answer
	}{
		{"no ACM", 0, BootGuardMSR{}, ProfileUnknown, No},
		{
			"profile 5", capable | 0x7d,
			BootGuardMSR{Raw: capable | 0x7d, NEM: true, TPM: TPM20, TPMSuccess: true, ForceAnchor: true, Measured: true, Verified: true, Capable: true},
			ProfileFVME, Yes,
		},
		{
			"profile 4", capable | 0x51,
			BootGuardMSR{Raw: capable | 0x51, NEM: true, ForceAnchor: true, Verified: true, Capable: true}, ProfileFVE, Yes,
		},
		{
			"profile 3", capable | 0x6d,
			BootGuardMSR{Raw: capable | 0x6d, NEM: true, TPM: TPM20, TPMSuccess: true, Measured: true, Verified: true, Capable: true}, ProfileVM, No,
		},
		{
			"revoked", capable | 0xfd | 3<<34,
			BootGuardMSR{
				Raw: capable | 0xfd | 3<<34, NEM: true, TPM: TPM20, TPMSuccess: true, ForceAnchor: true, Measured: true, Verified: true, Revoked: true,
				Capable: true, ServerTXT: true, NoSecrets: true,
			}, ProfileFVME, No,
		},
		{"capable, not provisioned", capable, BootGuardMSR{Raw: capable, Capable: true}, ProfileNone, No},
		{"odd", capable | 0x10, BootGuardMSR{Raw: capable | 0x10, ForceAnchor: true, Capable: true}, ProfileOther, No},
	} {
		got := ParseBootGuardMSR(tt.v)
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: ParseBootGuardMSR(%#x) (-want +got):\n%s", tt.name, tt.v, d)
		}
		if got.Profile() != tt.profile || got.BootGuard() != tt.guard {
			t.Errorf("%s: got profile %v, Boot Guard %v, want %v, %v", tt.name, got.Profile(), got.BootGuard(), tt.profile, tt.guard)
		}
	}
	line := "MSR 0x13A 0x10000007d: Boot Guard yes, profile 5 (FVME), verified yes, measured yes, revoked no, TPM TPM 2.0"
	if got := ParseBootGuardMSR(capable | 0x7d).String(); got != line {
		t.Errorf("String: got %q, want %q", got, line)
	}
}

func TestDecodeMSR(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want uint64
		err  error
	}{
		{"\x7d\x00\x00\x00\x01\x00\x00\x00", 0x10000007d, nil},
		{"\x00\x00\x00\x00\x00\x00\x00\x00", 0, nil},
		{"10000007d\n", 0x10000007d, nil},
		{"0x10000007D", 0x10000007d, nil},
		{"0", 0, nil},
		{"", 0, ErrMSR},
		{"\x7d\x00\x00\x00", 0, ErrMSR},
		{"not a number", 0, ErrMSR},
		{"0x11112222333344445", 0, ErrMSR},
		{strings.Repeat(" ", 40) + "1", 0, ErrMSR},
	} {
		if got, err := DecodeMSR([]byte(tt.in)); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("DecodeMSR(%q): got %#x, %v, want %#x, %v", tt.in, got, err, tt.want, tt.err)
		}
	}
}

// TestStrings keeps every name apart from "unknown", and the zero value at it.
func TestStrings(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{Unknown.String(), "unknown"}, {No.String(), "no"}, {Yes.String(), "yes"},
		{ProfileUnknown.String(), "unknown"}, {ProfileNone.String(), "0 (No_FVME)"}, {ProfileVM.String(), "3 (VM)"}, {ProfileFVE.String(), "4 (FVE)"},
		{ProfileOther.String(), "not a known profile"},
		{EnforcementUnknown.String(), "unknown"}, {EnforcementNothing.String(), "none"}, {EnforcementShutdown30.String(), "shutdown within 30 minutes"},
		{EnforcementLate.String(), "shutdown later"}, {EnforcementNow.String(), "immediate shutdown"},
		{GenerationUnknown.String(), "unknown"}, {GenerationCSME11.String(), "CSME 11 to 17"}, {GenerationCSME18.String(), "CSME 18 or later"},
		{TPMNone.String(), "none"}, {TPM12.String(), "TPM 1.2"}, {TPMFirmware.String(), "PTT"},
		{MarkACM.String(), "Boot Guard ACM measured the firmware"}, {MarkKind(0).String(), "unknown mark"},
	} {
		if tt.got != tt.want {
			t.Errorf("String: got %q, want %q", tt.got, tt.want)
		}
	}
}
