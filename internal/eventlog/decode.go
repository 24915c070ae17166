package eventlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrType is returned by a typed decoder for an event of another type.
var ErrType = errors.New("event is of another type")

// ErrData is returned by a typed decoder for data that isn't laid out as its type says.
var ErrData = errors.New("malformed event data")

// Limits of the typed decoders.
const (
	maxPartitions = 1024
	maxTables     = 256
	maxNodes      = 64 // of a device path
)

func (e *Event) wrongType(what string) error {
	return fmt.Errorf("event %d: %w: %v is no %s", e.Index, ErrType, e.Type, what)
}

func (e *Event) badData(format string, args ...any) error {
	return fmt.Errorf("event %d (%v): %w: %s", e.Index, e.Type, ErrData, fmt.Sprintf(format, args...))
}

// Variable is a UEFI variable as it was measured (PFP 10.2.6, UEFI_VARIABLE_DATA).
type Variable struct {
	GUID string // lower case
	Name string
	Data []byte // points into the log
}

// IsVariable reports whether e is of a type that carries a UEFI variable.
func (e *Event) IsVariable() bool {
	switch e.Type {
	case EFIVariableDriverConfig, EFIVariableBoot, EFIVariableBoot2, EFIVariableAuthority:
		return true
	}
	return false
}

// authoritySlack is how many bytes old shims log behind the end of an authority variable.
const authoritySlack = 16

// Variable decodes an EV_EFI_VARIABLE_* event. The data must end with the variable, but for EV_EFI_VARIABLE_AUTHORITY, where shim before 15.4 logs
// up to 16 bytes more.
func (e *Event) Variable() (*Variable, error) {
	if !e.IsVariable() {
		return nil, e.wrongType("UEFI variable")
	}
	d := e.Data
	if len(d) < 32 {
		return nil, e.badData("%d bytes, a variable takes at least 32", len(d))
	}
	chars, size := binary.LittleEndian.Uint64(d[16:]), binary.LittleEndian.Uint64(d[24:])
	body := d[32:]
	slack := uint64(0)
	if e.Type == EFIVariableAuthority {
		slack = authoritySlack
	}
	if chars > uint64(len(body))/2 || size > uint64(len(body))-2*chars || size+slack < uint64(len(body))-2*chars {
		return nil, e.badData("name of %d characters and %d bytes of data in %d bytes", chars, size, len(body))
	}
	name, ok := utf16Text(body[:2*chars])
	if !ok {
		return nil, e.badData("name of the variable is not UTF-16 text")
	}
	return &Variable{GUID: guid(d), Name: name, Data: body[2*chars : 2*chars+size]}, nil
}

// Blob is a measured piece of memory, or a list of firmware tables (PFP 10.2.3, 10.2.4).
type Blob struct {
	Description string // of a BLOB2 or TABLES2 event; bytes as logged, which may be anything
	Base        uint64 // physical address
	Length      uint64 // bytes
	Tables      []Table
}

// Table is one entry of a handoff table event (EFI_CONFIGURATION_TABLE).
type Table struct {
	GUID    string
	Address uint64
}

// FirmwareBlob decodes EV_EFI_PLATFORM_FIRMWARE_BLOB and BLOB2, EV_EFI_HANDOFF_TABLES and TABLES2, and EV_POST_CODE where it's no text. The digest covers what stands at that
// address, not this data.
func (e *Event) FirmwareBlob() (*Blob, error) {
	d, out := e.Data, &Blob{}
	switch e.Type {
	case EFIPlatformFirmwareBlob2, EFIHandoffTables2:
		if len(d) == 0 || len(d)-1 < int(d[0]) {
			return nil, e.badData("description does not fit")
		}
		out.Description, d = string(d[1:1+int(d[0])]), d[1+int(d[0]):]
		if n := len(out.Description); n > 0 && out.Description[n-1] == 0 {
			out.Description = out.Description[:n-1]
		}
	case EFIPlatformFirmwareBlob, EFIHandoffTables, PostCode:
	default:
		return nil, e.wrongType("firmware blob")
	}
	if e.Type == EFIHandoffTables || e.Type == EFIHandoffTables2 {
		var err error
		if out.Tables, err = e.tables(d); err != nil {
			return nil, err
		}
		return out, nil
	}
	if len(d) != 16 {
		return nil, e.badData("%d bytes, a blob takes 16", len(d))
	}
	out.Base, out.Length = binary.LittleEndian.Uint64(d), binary.LittleEndian.Uint64(d[8:])
	return out, nil
}

// tables reads the list of a handoff table event.
func (e *Event) tables(d []byte) ([]Table, error) {
	if len(d) < 8 {
		return nil, e.badData("no number of tables")
	}
	n := binary.LittleEndian.Uint64(d)
	d = d[8:]
	if n > maxTables || uint64(len(d)) != 24*n {
		return nil, e.badData("%d tables in %d bytes", n, len(d))
	}
	var out []Table
	for ; len(d) > 0; d = d[24:] {
		out = append(out, Table{GUID: guid(d), Address: binary.LittleEndian.Uint64(d[16:])})
	}
	return out, nil
}

// Tagged is the content of an EV_EVENT_TAG event (PFP 10.4.2, TCG_PCClientTaggedEvent).
type Tagged struct {
	ID   uint32
	Data []byte
}

// Tags that the Linux EFI stub measures into PCR 9 (linux, drivers/firmware/efi/libstub/efistub.h).
const (
	TagInitrd      = 0x8f3b22ec
	TagLoadOptions = 0x8f3b22ed
)

// TaggedEvent decodes an EV_EVENT_TAG event. For the kernel's EFI stub the digest covers the initrd or the load options, and Data is only the
// name of what was measured.
func (e *Event) TaggedEvent() (*Tagged, error) {
	if e.Type != EventTag {
		return nil, e.wrongType("tagged event")
	}
	if len(e.Data) < 8 || uint64(binary.LittleEndian.Uint32(e.Data[4:])) != uint64(len(e.Data)-8) {
		return nil, e.badData("%d bytes do not hold one tagged event", len(e.Data))
	}
	return &Tagged{ID: binary.LittleEndian.Uint32(e.Data), Data: e.Data[8:]}, nil
}

// SeparatorKind tells what an EV_SEPARATOR event says.
type SeparatorKind int

// What a separator says (PFP 3.3.4.1). The zero value is none of them.
const (
	// SeparatorNormal: the firmware hands over to the boot loader; 0x00000000 or 0xffffffff.
	SeparatorNormal SeparatorKind = iota + 1
	// SeparatorError: the firmware could not measure; 0x00000001.
	SeparatorError
	// SeparatorOther: anything else; the specification knows no such separator.
	SeparatorOther
)

// String names k in one word.
func (k SeparatorKind) String() string {
	switch k {
	case SeparatorNormal:
		return "normal"
	case SeparatorError:
		return "error"
	case SeparatorOther:
		return "other"
	}
	return "unknown"
}

// Separator decodes an EV_SEPARATOR event.
func (e *Event) Separator() (SeparatorKind, error) {
	if e.Type != Separator {
		return 0, e.wrongType("separator")
	}
	if len(e.Data) != 4 {
		return SeparatorOther, nil
	}
	switch binary.LittleEndian.Uint32(e.Data) {
	case 0, 0xffffffff:
		return SeparatorNormal, nil
	case 1:
		return SeparatorError, nil
	}
	return SeparatorOther, nil
}

// localitySignature opens a StartupLocality event.
var localitySignature = []byte("StartupLocality\x00")

// StartupLocality decodes an EV_NO_ACTION event that tells the locality of TPM2_Startup (TCG_EfiStartupLocalityEvent, PFP 10.4.5.3); false for any
// other event. Parse has checked place and value of the one in Log.Events.
func (e *Event) StartupLocality() (int, bool) {
	if e.Type != NoAction || len(e.Data) != len(localitySignature)+1 || !bytes.HasPrefix(e.Data, localitySignature) {
		return NoLocality, false
	}
	return int(e.Data[len(localitySignature)]), true
}

// ActionText returns the text of an EV_EFI_ACTION or EV_ACTION event.
func (e *Event) ActionText() (string, error) {
	if e.Type != EFIAction && e.Type != Action {
		return "", e.wrongType("action")
	}
	return e.Text()
}

// PostCodeText returns the text of an EV_POST_CODE or EV_POST_CODE2 event ("ACPI DATA", "BIS CODE"). Where firmware logs an address and a
// length instead, it's ErrData: see FirmwareBlob.
func (e *Event) PostCodeText() (string, error) {
	if e.Type != PostCode && e.Type != PostCode2 {
		return "", e.wrongType("POST code")
	}
	return e.Text()
}

// SCRTMVersion returns the version in an EV_S_CRTM_VERSION event: text in UTF-16 or UTF-8, else (a GUID, a number) its bytes in hexadecimal.
func (e *Event) SCRTMVersion() (string, error) {
	if e.Type != SCRTMVersion {
		return "", e.wrongType("S-CRTM version")
	}
	if s, err := e.Text(); err == nil && printable(s) {
		return s, nil
	}
	return fmt.Sprintf("%x", e.Data), nil
}

// Text decodes data that is a UTF-8 or UTF-16 string, whatever the type; its final NUL is left out. It may hold any character: quote it before showing it.
func (e *Event) Text() (string, error) {
	if looksUTF16(e.Data) {
		if s, ok := utf16Text(e.Data); ok {
			return s, nil
		}
	}
	if s, ok := plainText(e.Data); ok {
		return s, nil
	}
	return "", e.badData("%d bytes are not text", len(e.Data))
}
