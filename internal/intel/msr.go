package intel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrMSR is wrapped by errors of DecodeMSR.
var ErrMSR = errors.New("malformed MSR value")

// TPMType is the TPM that Boot Guard's ACM found.
type TPMType uint8

// The types, bits 1 and 2 of the MSR.
const (
	TPMNone TPMType = iota
	TPM12
	TPM20
	TPMFirmware // PTT, Intel's TPM in the chipset
)

// String names the type.
func (t TPMType) String() string {
	switch t {
	case TPMNone:
		return "none"
	case TPM12:
		return "TPM 1.2"
	case TPM20:
		return "TPM 2.0"
	case TPMFirmware:
		return "PTT"
	}
	return "unknown"
}

// BootGuardMSR is MSR 0x13A, BOOT_GUARD_SACM_INFO, where Boot Guard's startup ACM leaves what it did. All zeros mean that no ACM ran, or that
// the processor isn't Intel's. It is claimed, not proven.
type BootGuardMSR struct {
	Raw         uint64
	NEM         bool    // bit 0: the ACM set up the cache as memory for the verified code
	TPM         TPMType // bits 1-2
	TPMSuccess  bool    // bit 3: the ACM started the TPM
	ForceAnchor bool    // bit 4 (FACB): the machine does not boot without the ACM
	Measured    bool    // bit 5
	Verified    bool    // bit 6
	Revoked     bool    // bit 7: ACM, key manifest or boot policy manifest is revoked
	Capable     bool    // bit 32: the processor supports Boot Guard
	ServerTXT   bool    // bit 34: the processor supports TXT for servers
	NoSecrets   bool    // bit 35: no reset protection for secrets in memory
}

// ParseBootGuardMSR decodes the value of MSR 0x13A (slimbootloader CpuRegs.h and BootGuardLib; converged-security-suite pkg/provisioning/bootguard/me.go).
func ParseBootGuardMSR(v uint64) BootGuardMSR {
	has := func(n uint) bool { return v>>n&1 != 0 }
	return BootGuardMSR{
		Raw: v, NEM: has(0), TPM: TPMType(v >> 1 & 3), TPMSuccess: has(3), ForceAnchor: has(4), Measured: has(5), Verified: has(6),
		Revoked: has(7), Capable: has(32), ServerTXT: has(34), NoSecrets: has(35),
	}
}

// DecodeMSR reads an MSR as it travels: eight bytes, little endian, as /dev/cpu/0/msr gives them; or hexadecimal text with or without 0x, as
// rdmsr prints it. Eight digits of text are taken for text. Errors wrap ErrMSR.
func DecodeMSR(b []byte) (uint64, error) {
	text := strings.TrimSpace(string(b))
	if v, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(text), "0x"), 16, 64); err == nil && len(b) <= 32 {
		return v, nil
	}
	if len(b) == 8 {
		return binary.LittleEndian.Uint64(b), nil
	}
	return 0, fmt.Errorf("%w: %d bytes, want 8 bytes or hexadecimal text", ErrMSR, len(b))
}

// Profile returns the Boot Guard profile. The register doesn't tell the enforcement policy; no known profile needs it.
func (m BootGuardMSR) Profile() Profile {
	if !m.Capable {
		return ProfileUnknown
	}
	return profile(answer(m.ForceAnchor), answer(m.Verified), answer(m.Measured), answer(m.NEM))
}

// BootGuard sums up: yes when the ACM ran under an enforcing profile and nothing is revoked; no when the register denies it. All zeros are no: no ACM ran.
func (m BootGuardMSR) BootGuard() Answer {
	if !m.Capable || m.Revoked {
		return No
	}
	return m.Profile().Enforced()
}

func answer(b bool) Answer {
	if b {
		return Yes
	}
	return No
}

// String is one line for people.
func (m BootGuardMSR) String() string {
	return fmt.Sprintf("MSR 0x13A %#x: Boot Guard %v, profile %v, verified %v, measured %v, revoked %v, TPM %v",
		m.Raw, m.BootGuard(), m.Profile(), answer(m.Verified), answer(m.Measured), answer(m.Revoked), m.TPM)
}
