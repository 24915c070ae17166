package intel

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrStatus is wrapped by errors of ParseHFSTS.
var ErrStatus = errors.New("malformed management engine status")

// Limits of the text that ParseHFSTS reads.
const (
	maxStatusText = 1024 // bytes
	numRegisters  = 6
)

// Generation is the layout of the status registers.
type Generation int8

// The generations with a known layout. The zero value is unknown.
const (
	GenerationUnknown Generation = iota
	// GenerationCSME11 is CSME 11 to 17: Boot Guard in HFSTS6.
	GenerationCSME11
	// GenerationCSME18 is CSME 18 and later: Boot Guard in HFSTS5.
	GenerationCSME18
)

// String names the versions of the generation.
func (g Generation) String() string {
	switch g {
	case GenerationCSME11:
		return "CSME 11 to 17"
	case GenerationCSME18:
		return "CSME 18 or later"
	}
	return "unknown"
}

// Enforcement is what CSME 11 to 17 does when Boot Guard's verification fails.
type Enforcement int8

// The policies, HFSTS6 bits 6 and 7. The zero value is unknown.
const (
	EnforcementUnknown    Enforcement = iota
	EnforcementNothing                // 0: boot goes on
	EnforcementShutdown30             // 1: shutdown within 30 minutes
	EnforcementLate                   // 2: shutdown at some time
	EnforcementNow                    // 3: shutdown at once
)

// String describes the policy.
func (e Enforcement) String() string {
	switch e {
	case EnforcementNothing:
		return "none"
	case EnforcementShutdown30:
		return "shutdown within 30 minutes"
	case EnforcementLate:
		return "shutdown later"
	case EnforcementNow:
		return "immediate shutdown"
	}
	return "unknown"
}

// Status is what the management engine says of itself and of Boot Guard. It is claimed, not proven.
type Status struct {
	Registers  [numRegisters]uint32 // HFSTS1 to HFSTS6
	Version    string               // "16.1.25.2049", or empty
	Generation Generation

	WorkingState  uint8 // HFSTS1 bits 0-3; 5 is normal
	OperationMode uint8 // HFSTS1 bits 16-19; 0 is normal, 2 debug, 3 disabled

	Manufacturing Answer // the engine still is in manufacturing mode
	FPFLocked     Answer // field-programmable fuses are locked
	ACMActive     Answer // Boot Guard's ACM ran and finished
	Disabled      Answer // Boot Guard is disabled
	ForceACM      Answer // the machine does not boot without the ACM
	ProtectBIOS   Answer // BIOS environment is protected while it is verified
	BypassPolicy  Answer // the boot policy was bypassed
	PolicyInvalid Answer // the boot policy is invalid
	Measured      Answer // Boot Guard measures
	Verified      Answer // Boot Guard verifies
	DebugDisabled Answer // CPU debug is disabled
	TXT           Answer // TXT is supported
	Enforcement   Enforcement
	Profile       Profile
}

// ParseHFSTS reads the text of /sys/class/mei/mei0/fw_status: six lines of eight hexadecimal digits. The lines of /sys/class/mei/mei0/fw_ver
// ("0:16.1.25.2049") may follow; without them the generation is unknown, and all that depends on it is Unknown. Errors wrap ErrStatus.
func ParseHFSTS(text string) (Status, error) {
	var s Status
	if len(text) > maxStatusText {
		return Status{}, fmt.Errorf("%w: %d bytes, at most %d", ErrStatus, len(text), maxStatusText)
	}
	lines := strings.Fields(text)
	if len(lines) < numRegisters {
		return Status{}, fmt.Errorf("%w: %d registers, want %d: give the whole of fw_status", ErrStatus, len(lines), numRegisters)
	}
	for i, line := range lines[:numRegisters] {
		v, err := strconv.ParseUint(line, 16, 32)
		if err != nil || len(line) != 8 {
			return Status{}, fmt.Errorf("%w: HFSTS%d is %q, want eight hexadecimal digits", ErrStatus, i+1, line)
		}
		s.Registers[i] = uint32(v)
	}
	// The driver prints the version of each of the engine's parts; the first one is the code that runs.
	for i, line := range lines[numRegisters:] {
		version, major, err := parseVersion(line)
		if err != nil {
			return Status{}, err
		}
		if i == 0 {
			s.Version, s.Generation = version, generation(major)
		}
	}
	s.decode()
	return s, nil
}

// parseVersion reads "0:16.1.25.2049" and returns what follows the platform number.
func parseVersion(line string) (version string, major int, err error) {
	bad := fmt.Errorf("%w: version is %q, want it as 0:16.1.25.2049", ErrStatus, line)
	platform, version, ok := strings.Cut(line, ":")
	parts := strings.Split(version, ".")
	if !ok || len(parts) != 4 {
		return "", 0, bad
	}
	for _, p := range append(parts, platform) {
		if _, err := strconv.ParseUint(p, 10, 16); err != nil {
			return "", 0, bad
		}
	}
	major, _ = strconv.Atoi(parts[0]) // checked above
	return version, major, nil
}

// generation tells the layout by the major version. Versions below 11 are other engines (ME, TXE, SPS), whose registers are laid out otherwise.
func generation(major int) Generation {
	switch {
	case major >= 18:
		return GenerationCSME18
	case major >= 11:
		return GenerationCSME11
	}
	return GenerationUnknown
}
