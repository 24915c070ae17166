package intel

// Answer is yes, no or unknown.
type Answer int8

// The answers. The zero value is Unknown.
const (
	Unknown Answer = iota
	No
	Yes
)

// String returns "yes", "no" or "unknown".
func (a Answer) String() string {
	switch a {
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return "unknown"
}

// bit answers by bit n of v.
func bit(v uint32, n uint) Answer {
	if v&(1<<n) != 0 {
		return Yes
	}
	return No
}

// Profile is a Boot Guard profile: what the fuses of the chipset make the ACM do.
type Profile int8

// The profiles that exist, by their usual numbers. The zero value is unknown.
const (
	ProfileUnknown Profile = iota
	// ProfileNone (0, No_FVME): Boot Guard neither verifies nor measures.
	ProfileNone
	// ProfileVM (3): verifies and measures, and boots all the same when verification fails.
	ProfileVM
	// ProfileFVE (4): verifies; a failure stops the machine.
	ProfileFVE
	// ProfileFVME (5): verifies and measures; a failure stops the machine.
	ProfileFVME
	// ProfileOther: a combination that no public source names.
	ProfileOther
)

// String returns the usual name with its number: "5 (FVME)".
func (p Profile) String() string {
	switch p {
	case ProfileNone:
		return "0 (No_FVME)"
	case ProfileVM:
		return "3 (VM)"
	case ProfileFVE:
		return "4 (FVE)"
	case ProfileFVME:
		return "5 (FVME)"
	case ProfileOther:
		return "not a known profile"
	}
	return "unknown"
}

// Enforced reports whether the profile stops the machine when the firmware is not the one that the fuses stand for. Only such a profile makes a
// hardware root of trust.
func (p Profile) Enforced() Answer {
	switch p {
	case ProfileFVE, ProfileFVME:
		return Yes
	case ProfileUnknown:
		return Unknown
	}
	return No
}
