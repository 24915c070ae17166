package eventlog

import (
	"bytes"

	"touchstone.dev/touchstone/internal/tpm"
)

// Measured says what the digest of an event was taken over, as far as the event's type and PCR tell.
type Measured int

// What a digest covers. The zero value is an unknown type: nothing can be said.
const (
	MeasuresUnknown Measured = iota
	// MeasuresNothing: EV_NO_ACTION is never extended, its data is covered by nothing.
	MeasuresNothing
	// MeasuresData: the event data, wholly or in a part that DataMatches knows.
	MeasuresData
	// MeasuresImage: the Authenticode hash of an EFI image.
	MeasuresImage
	// MeasuresFile: a file that a boot loader read, byte by byte.
	MeasuresFile
	// MeasuresBlob: firmware code or tables in memory.
	MeasuresBlob
	// MeasuresContent: something else that isn't in the log: a MOK variable, a section of a unified kernel image, an initrd, microcode.
	MeasuresContent
)

// String names m in a word.
func (m Measured) String() string {
	switch m {
	case MeasuresNothing:
		return "nothing"
	case MeasuresData:
		return "data"
	case MeasuresImage:
		return "image"
	case MeasuresFile:
		return "file"
	case MeasuresBlob:
		return "firmware"
	case MeasuresContent:
		return "content"
	}
	return "unknown"
}

// Measures tells what the digest of e was taken over, by its type and PCR. For MeasuresData a mismatch (DataMatches is false) means altered data; for
// the others the data is only a label that came along.
func (e *Event) Measures() Measured {
	switch e.Type {
	case NoAction:
		return MeasuresNothing
	case EFIBootServicesApplication, EFIBootServicesDriver, EFIRuntimeServicesDriver:
		return MeasuresImage
	case EFIPlatformFirmwareBlob, EFIPlatformFirmwareBlob2, EFIHandoffTables, EFIHandoffTables2:
		return MeasuresBlob
	case PostCode, PostCode2, SCRTMContents, CPUMicrocode, NonhostCode, NonhostConfig, EFIHCRTM, CompactHash, EFISPDMFirmwareBlob,
		EFISPDMFirmwareConfig, IPLPartitionData, PrebootCert, EFISPDMDevicePolicy, EFISPDMDeviceAuthority:
		return MeasuresContent
	case Separator, Action, EFIAction, SCRTMVersion, OmitBootDeviceEvents, EFIVariableDriverConfig, EFIVariableBoot,
		EFIVariableBoot2, EFIVariableAuthority, EFIGPT, EFIGPT2:
		return MeasuresData
	case PlatformConfigFlags, TableOfDevices, NonhostInfo:
		// The vendor decides; some measure tables and log their name ("ACPI DATA").
		return e.dataOrContent()
	case EventTag:
		if t, err := e.TaggedEvent(); err == nil && (t.ID == TagInitrd || t.ID == TagLoadOptions) {
			return MeasuresContent
		}
		return MeasuresData
	case IPLType:
		return e.iplMeasures()
	}
	if e.Type.TXT() {
		return MeasuresContent
	}
	return MeasuresUnknown
}

func (e *Event) iplMeasures() Measured {
	ipl, err := e.IPL()
	if err != nil {
		return MeasuresContent
	}
	switch {
	case ipl.Kind == KindGRUBFile:
		return MeasuresFile
	case ipl.Kind == KindMOK:
		return MeasuresContent
	case ipl.Section:
		// Name and content events look alike but for the digest.
		return e.dataOrContent()
	}
	return MeasuresData
}

// dataOrContent lets the digests decide where the type leaves it open.
func (e *Event) dataOrContent() Measured {
	for _, d := range e.Digests {
		if !e.DataMatches(d.Alg) {
			return MeasuresContent
		}
	}
	return MeasuresData
}

// DataMatches reports whether the event data hashes to the digest of bank a, by the rule of the event's type. Only then does the data tell
// what was measured. It is false for events whose digest covers something outside the log.
//
// Rules beyond hash(data) = digest: EV_EFI_VARIABLE_BOOT may cover the variable's value alone (older firmware, PFP 10.4.1); EV_EVENT_TAG may
// cover what follows the tag; EV_IPL may be without final NUL, without GRUB's prefix, or the ASCII form of a UTF-16 name. For
// EV_EFI_VARIABLE_DRIVER_CONFIG and _AUTHORITY the name must be covered too: see VariableDataMatches.
func (e *Event) DataMatches(a tpm.Alg) bool {
	switch e.Type {
	case NoAction:
		return false
	case IPLType:
		for _, p := range e.iplPreimages() {
			if e.hashes(a, p) {
				return true
			}
		}
		return false
	case EventTag:
		t, err := e.TaggedEvent()
		return e.hashes(a, e.Data) || err == nil && e.hashes(a, t.Data)
	case EFIVariableAuthority:
		// Shim before 15.4 logs a byte more than it hashes, behind the end of the variable.
		n := len(e.Data)
		return e.hashes(a, e.Data) || n > 0 && e.hashes(a, e.Data[:n-1])
	case EFIVariableBoot, EFIVariableBoot2:
		return e.hashes(a, e.Data) || e.VariableDataMatches(a)
	}
	return e.hashes(a, e.Data)
}

// VariableDataMatches reports whether the digest covers the value of a variable but not its name. Some old firmware measures the Secure Boot
// variables so; whoever accepts it must know that a hostile log can swap names between such events.
func (e *Event) VariableDataMatches(a tpm.Alg) bool {
	v, err := e.Variable()
	return err == nil && e.hashes(a, v.Data)
}

// hashes reports whether b hashes to the digest of bank a.
func (e *Event) hashes(a tpm.Alg, b []byte) bool {
	sum, h := e.Digest(a), a.Hash()
	if sum == nil || h == 0 {
		return false
	}
	w := h.New()
	w.Write(b)
	var buf [64]byte
	return bytes.Equal(w.Sum(buf[:0]), sum)
}
