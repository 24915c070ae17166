package claims

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/uefi"
)

// Boot is what one firmware log says, read in one bank. It depends on nothing else, so that all nodes with the same log share it.
// It must not be changed.
type Boot struct {
	Digest   [sha256.Size]byte // of the raw log
	Bank     tpm.Alg
	Log      *eventlog.Log
	Problems []Problem

	SCRTMVersion     string
	VersionUncovered *eventlog.Event // the event of a version whose text its digest does not cover
	Volumes          []Volume        // firmware volumes, PCR 0
	Drivers          []Image         // drivers and option ROMs, PCR 2 (and 0)
	Variables        []Variable      // Secure Boot configuration, PCR 7, in order
	Actions          []Text          // EFI action events of PCR 7
	Authorities      []Authority     // who let an image run, PCR 7
	Images           []Image         // boot applications, PCR 4
	MOK              []Named         // what shim measured, PCR 14
	Commands         []Text          // GRUB commands, PCR 8
	CommandLines     []Text          // kernel command lines that GRUB handed over, PCR 8
	Files            []Named         // files that GRUB read, PCR 9
	Sections         []Named         // sections of a unified kernel image, PCR 11
	StubExtra        []Named         // what systemd-stub took from outside the image, PCR 12 and 13
	StubTags         []Named         // what the kernel's EFI stub measured, PCR 9: load options, initrd
	SBAT             *Text           // SbatLevel that shim applied, PCR 7
	ShimSettings     []Variable      // what shim was told to do otherwise than usual, PCR 7

	separated bool // the separator of PCR 7 was read: what follows is of authorities
}

// Problem is a place where the log does not fit together. It concerns one PCR, or all (-1).
type Problem struct {
	PCR     int
	Event   *eventlog.Event // nil when it is about the whole log
	Message string
}

// Volume is a firmware volume or another blob that the firmware measured.
type Volume struct {
	Event *eventlog.Event
	Text  string
}

// Image is a PE image that firmware or shim measured.
type Image struct {
	Event  *eventlog.Event
	Digest []byte // Authenticode, in the bank
	Path   string // as the device path says; not covered by the digest
}

// Variable is a UEFI variable; its content is covered by the digest.
type Variable struct {
	Event      *eventlog.Event
	Name       string
	GUID       string
	Data       []byte
	Signatures []uefi.Signature // of PK, KEK, db, dbx, dbt, dbr
}

// Authority is the entry of a signature database that let an image run; its content is covered by the digest.
type Authority struct {
	Event    *eventlog.Event
	Variable string // "db", "MokListRT", "Shim", "vendor_db"
	Owner    string // GUID
	Data     []byte // a certificate in DER, or a hash
	SHA256   [sha256.Size]byte
	Subject  string // of the certificate, "" for a hash
}

// Text is a text that the digest covers.
type Text struct {
	Event *eventlog.Event
	Text  string
}

// Named is a digest with a name that the digest does not cover.
type Named struct {
	Event  *eventlog.Event
	Name   string
	Digest []byte
}

// ReadBoot parses a firmware log and reads it in the given bank. The error says why there is no usable log; everything less is a
// Problem.
func ReadBoot(raw []byte, bank tpm.Alg) (*Boot, error) {
	log, err := eventlog.Parse(raw)
	if err != nil {
		return nil, err
	}
	b := &Boot{Digest: sha256.Sum256(raw), Bank: bank, Log: log}
	if _, err := log.Replay(bank); err != nil {
		return nil, fmt.Errorf("the log cannot be read in bank %v: %w", bank, err)
	}
	for i := range log.Events {
		e := &log.Events[i]
		if !e.Extends() {
			continue
		}
		if b.checkEvent(e) {
			b.read(e)
		}
	}
	return b, nil
}

// shimSettings are variables by which shim's checks are changed (shim, mok.c). Shim measures them into PCR 7 with name and content, and into PCR 14 with
// their content alone.
var shimSettings = []string{"MokSBState", "MokDBState", "MokPolicy", "MokIgnoreDB", "MokListTrusted"}

func (b *Boot) problem(e *eventlog.Event, format string, a ...any) {
	b.Problems = append(b.Problems, Problem{PCR: e.PCR, Event: e, Message: fmt.Sprintf(format, a...)})
}

// read sorts an event whose data may be believed into the claims.
func (b *Boot) read(e *eventlog.Event) {
	switch e.PCR {
	case 0, 1, 2, 3, 6:
		b.readFirmware(e)
	case 4:
		b.readImage(e, &b.Images)
	case 7:
		b.readSecureBoot(e)
	case 8, 9:
		b.readGRUB(e)
	case 11, 12, 13:
		b.readStub(e)
	case 14:
		if t, err := e.IPL(); err == nil {
			b.MOK = append(b.MOK, Named{Event: e, Name: t.Text, Digest: e.Digest(b.Bank)})
		} else {
			b.problem(e, "event of PCR 14 cannot be read: %v", err)
		}
	}
}

func (b *Boot) readFirmware(e *eventlog.Event) {
	switch e.Type {
	case eventlog.SCRTMVersion:
		if v, err := e.SCRTMVersion(); err == nil && e.PCR == 0 {
			b.SCRTMVersion = v
		}
	case eventlog.EFIPlatformFirmwareBlob, eventlog.EFIPlatformFirmwareBlob2, eventlog.SCRTMContents, eventlog.PostCode, eventlog.PostCode2:
		if e.PCR == 0 {
			b.Volumes = append(b.Volumes, Volume{Event: e, Text: eventlog.Describe(e)})
		}
	case eventlog.EFIBootServicesDriver, eventlog.EFIRuntimeServicesDriver, eventlog.EFIBootServicesApplication:
		b.readImage(e, &b.Drivers)
	}
}

func (b *Boot) readImage(e *eventlog.Event, to *[]Image) {
	switch e.Type {
	case eventlog.EFIBootServicesApplication, eventlog.EFIBootServicesDriver, eventlog.EFIRuntimeServicesDriver:
		img := Image{Event: e, Digest: e.Digest(b.Bank)}
		if l, err := e.Image(); err == nil {
			img.Path = l.Path
		}
		*to = append(*to, img)
	}
}

// configuration are the variables that firmware measures into PCR 7, and measures again when they change.
var configuration = []string{"SecureBoot", "PK", "KEK", "db", "dbx", "dbt", "dbr", "SetupMode", "AuditMode", "DeployedMode"}

// readSecureBoot goes by names, which the digest covers, not by types, which it does not: behind the separator, a variable that is no configuration is
// an authority or a setting of shim.
func (b *Boot) readSecureBoot(e *eventlog.Event) {
	switch e.Type {
	case eventlog.Separator:
		b.separated = true
	case eventlog.EFISPDMDevicePolicy, eventlog.EFISPDMDeviceAuthority:
		b.readDevicePolicy(e)
	case eventlog.EFIAction:
		t, err := e.ActionText()
		if err != nil {
			b.problem(e, "action cannot be read: %v", err)
			return
		}
		b.Actions = append(b.Actions, Text{Event: e, Text: t})
	case eventlog.EFIVariableDriverConfig, eventlog.EFIVariableAuthority:
		v, err := e.Variable()
		if err != nil {
			b.problem(e, "variable cannot be read: %v", err)
			return
		}
		switch {
		case e.Type == eventlog.EFIVariableDriverConfig && (!b.separated || slices.Contains(configuration, v.Name)):
			b.readVariable(e, v)
		case v.Name == "SbatLevel" && v.GUID == uefi.ShimLock:
			b.SBAT = &Text{Event: e, Text: string(v.Data)}
		case slices.Contains(shimSettings, v.Name):
			b.ShimSettings = append(b.ShimSettings, Variable{Event: e, Name: v.Name, GUID: v.GUID, Data: v.Data})
		default:
			b.readAuthority(e, v)
		}
	}
}

// readDevicePolicy takes no more than the database of device certificates for one: another event may have been retyped to it.
func (b *Boot) readDevicePolicy(e *eventlog.Event) {
	same := *e
	same.Type = eventlog.EFIVariableAuthority
	if v, err := same.Variable(); err != nil || v.Name != "devdb" || !b.dataMatches(&same) {
		b.problem(e, "event of type %v is not about the database of device certificates", e.Type)
	}
}

func (b *Boot) readVariable(e *eventlog.Event, v *eventlog.Variable) {
	out := Variable{Event: e, Name: v.Name, GUID: v.GUID, Data: v.Data}
	switch v.Name {
	case "PK", "KEK", "db", "dbx", "dbt", "dbr":
		if len(v.Data) > 0 {
			s, err := uefi.ParseSignatureLists(v.Data)
			if err != nil {
				b.problem(e, "%s cannot be read: %v", v.Name, err)
				return
			}
			out.Signatures = s
		}
	}
	b.Variables = append(b.Variables, out)
}

func (b *Boot) readAuthority(e *eventlog.Event, v *eventlog.Variable) {
	a := Authority{Event: e, Variable: v.Name}
	s, err := uefi.ParseSignatureData(v.Data)
	if err != nil {
		b.problem(e, "authority cannot be read: %v", err)
		return
	}
	a.Owner, a.Data, a.SHA256 = s.Owner, s.Data, s.SHA256
	a.Subject = s.Subject()
	b.Authorities = append(b.Authorities, a)
}

// Section returns the digest of the first section of that name that systemd-stub measured, or nil. The stub measures the name, then the content; both by
// digest, so that neither a name in the log nor an event that was added after the boot counts.
func (b *Boot) Section(name string) *Named {
	if len(b.Sections) < 2 {
		return nil
	}
	h := b.Bank.Hash().New()
	h.Write(append([]byte(name), 0))
	want := h.Sum(nil)
	for i := range b.Sections[:len(b.Sections)-1] {
		if bytes.Equal(b.Sections[i].Digest, want) {
			return &b.Sections[i+1]
		}
	}
	return nil
}

// Variable returns the last measured variable of that name, or nil.
func (b *Boot) Variable(name string) *Variable {
	for i := len(b.Variables) - 1; i >= 0; i-- {
		if b.Variables[i].Name == name {
			return &b.Variables[i]
		}
	}
	return nil
}
