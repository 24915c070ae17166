package intel

import (
	"fmt"
	"strings"
)

// decode fills in what the registers say, as far as the generation is known.
func (s *Status) decode() {
	r1 := s.Registers[0]
	s.WorkingState, s.OperationMode = uint8(r1&0xf), uint8(r1>>16&0xf)
	switch s.Generation {
	case GenerationCSME11:
		s.decode11()
	case GenerationCSME18:
		s.decode18()
	}
}

// Bits that both generations share.
const (
	hfsts1Manufacturing = 4 // flash descriptor unlocked
	hfsts5ACMActive     = 0
	hfsts5ACMDone       = 8
	hfsts6ConfigLock    = 21 // manufacturing variable locked, CSME 16 and later
	hfsts6FPFLock       = 30
)

// acmActive needs both: the ACM started, and it finished.
func (s *Status) acmActive() Answer {
	r5 := s.Registers[4]
	return both(bit(r5, hfsts5ACMActive), bit(r5, hfsts5ACMDone))
}

// decode11 reads the layout of CSME 11 to 17.
func (s *Status) decode11() {
	r1, r6 := s.Registers[0], s.Registers[5]
	s.FPFLocked = bit(r6, hfsts6FPFLock)
	s.Manufacturing = bit(r1, hfsts1Manufacturing)
	major, _, _ := strings.Cut(s.Version, ".")
	// Two-digit numbers compare as text. Newer engines count as in manufacturing until fuses and configuration are locked too.
	if major >= "14" && s.FPFLocked == No || major >= "16" && bit(r6, hfsts6ConfigLock) == No {
		s.Manufacturing = Yes
	}
	s.ACMActive = s.acmActive()
	s.ForceACM = bit(r6, 0)
	s.DebugDisabled = bit(r6, 1)
	s.ProtectBIOS = bit(r6, 3)
	s.BypassPolicy = bit(r6, 4)
	s.PolicyInvalid = bit(r6, 5)
	s.Enforcement = EnforcementNothing + Enforcement(r6>>6&3)
	s.Measured = bit(r6, 8)
	s.Verified = bit(r6, 9)
	s.Disabled = bit(r6, 28)
	s.TXT = bit(r6, 31)
	s.Profile = s.profile11()
}

// profile11 puts the bits of HFSTS6 together to the profile that they make.
func (s *Status) profile11() Profile {
	p := profile(s.ForceACM, s.Verified, s.Measured, s.ProtectBIOS)
	want := EnforcementNothing
	if p.Enforced() == Yes {
		want = EnforcementNow
	}
	if s.Enforcement != want {
		return ProfileOther
	}
	return p
}

// profile names the combinations of force, verify, measure and protect that exist.
func profile(force, verify, measure, protect Answer) Profile {
	switch [4]Answer{force, verify, measure, protect} {
	case [4]Answer{No, No, No, No}:
		return ProfileNone
	case [4]Answer{No, Yes, Yes, Yes}:
		return ProfileVM
	case [4]Answer{Yes, Yes, No, Yes}:
		return ProfileFVE
	case [4]Answer{Yes, Yes, Yes, Yes}:
		return ProfileFVME
	}
	return ProfileOther
}

// decode18 reads the layout of CSME 18 and later, as far as public sources agree on it: no bypass, policy or enforcement bits are known there.
func (s *Status) decode18() {
	r1, r5, r6 := s.Registers[0], s.Registers[4], s.Registers[5]
	s.FPFLocked = bit(r6, hfsts6FPFLock)
	s.Manufacturing = bit(r1, hfsts1Manufacturing)
	if s.FPFLocked == No || bit(r6, hfsts6ConfigLock) == No {
		s.Manufacturing = Yes
	}
	s.ACMActive = s.acmActive()
	s.TXT = bit(r5, 17)
	s.DebugDisabled = bit(r5, 21)
	const valid = 1
	if bit(r5, valid) == No {
		return // the profile isn't valid, so nothing is known of it
	}
	// HFSTS5 bits 18 to 20 (secboot, seen on hardware there; fwupd reads one bit lower).
	switch r5 >> 18 & 7 {
	case 0:
		s.Profile = ProfileNone
	case 3:
		s.Profile = ProfileVM
	case 4:
		s.Profile = ProfileFVE
	case 5:
		s.Profile = ProfileFVME
	default:
		s.Profile = ProfileOther
		return
	}
	s.Verified, s.Measured, s.ForceACM = No, No, No
	if s.Profile != ProfileNone {
		s.Verified = Yes
	}
	if s.Profile == ProfileVM || s.Profile == ProfileFVME {
		s.Measured = Yes
	}
	if s.Profile.Enforced() == Yes {
		s.ForceACM = Yes
	}
}

// both is yes when all answers are, no when one of them is no, else unknown.
func both(answers ...Answer) Answer {
	out := Yes
	for _, a := range answers {
		switch {
		case a == No:
			return No
		case a == Unknown:
			out = Unknown
		}
	}
	return out
}

// not turns an answer round; unknown stays unknown.
func not(a Answer) Answer {
	switch a {
	case Yes:
		return No
	case No:
		return Yes
	}
	return Unknown
}

// BootGuard sums up: yes when the engine says that Boot Guard's ACM ran under an enforcing profile, fuses locked, out of manufacturing mode. Still a claim.
func (s *Status) BootGuard() Answer {
	normal := No
	if s.OperationMode == 0 {
		normal = Yes
	}
	answers := []Answer{normal, s.ACMActive, not(s.Manufacturing), s.FPFLocked, s.Profile.Enforced()}
	if s.Generation == GenerationCSME11 {
		answers = append(answers, not(s.Disabled), not(s.BypassPolicy), not(s.PolicyInvalid))
	}
	return both(answers...)
}

// String is one line for people.
func (s Status) String() string {
	version := s.Version
	if version == "" {
		version = "of unknown version"
	}
	return fmt.Sprintf("management engine %s: Boot Guard %v, profile %v, ACM active %v, fuses locked %v, manufacturing mode %v",
		version, s.BootGuard(), s.Profile, s.ACMActive, s.FPFLocked, s.Manufacturing)
}
