package eventlog_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/eventlog"
)

const globalGUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

// only returns the events of a real log that have type t.
func only(t *testing.T, name string, typ eventlog.Type) []eventlog.Event {
	t.Helper()
	var out []eventlog.Event
	for _, e := range parse(t, open(t, name).Bytes()).Events {
		if e.Type == typ {
			out = append(out, e)
		}
	}
	return out
}

func TestVariable(t *testing.T) {
	good := variable("SecureBoot", []byte{1})
	for _, tt := range []struct {
		name string
		typ  eventlog.Type
		data []byte
		want *eventlog.Variable
		err  error
	}{
		{"SecureBoot", eventlog.EFIVariableDriverConfig, good, &eventlog.Variable{GUID: globalGUID, Name: "SecureBoot", Data: []byte{1}}, nil},
		{"no value", eventlog.EFIVariableDriverConfig, variable("dbt", nil), &eventlog.Variable{GUID: globalGUID, Name: "dbt", Data: []byte{}}, nil},
		{"other type", eventlog.EFIAction, good, nil, eventlog.ErrType},
		{"too short", eventlog.EFIVariableBoot, good[:31], nil, eventlog.ErrData},
		{"cut", eventlog.EFIVariableBoot, good[:len(good)-1], nil, eventlog.ErrData},
		{"one byte more", eventlog.EFIVariableDriverConfig, append(slices.Clone(good), 0), nil, eventlog.ErrData},
		{"old shim", eventlog.EFIVariableAuthority, append(slices.Clone(good), 0, 0, 7), &eventlog.Variable{GUID: globalGUID, Name: "SecureBoot", Data: []byte{1}}, nil},
		{"more than old shim", eventlog.EFIVariableAuthority, append(slices.Clone(good), make([]byte, 17)...), nil, eventlog.ErrData},
		{"authority bomb", eventlog.EFIVariableAuthority, patch(patch(good, 24, 0xfffffffe), 28, 0xffffffff), nil, eventlog.ErrData},
		{"name length bomb", eventlog.EFIVariableBoot, patch(good, 16+4, 0x80000000), nil, eventlog.ErrData},
		{"value length bomb", eventlog.EFIVariableBoot, patch(good, 24+4, 0xffffffff), nil, eventlog.ErrData},
		{"lengths that overflow", eventlog.EFIVariableBoot, patch(patch(good, 16, 0xffffffff), 20, 0x7fffffff), nil, eventlog.ErrData},
		{"NUL in the name", eventlog.EFIVariableBoot, variable("Secure\x00Boot", nil), nil, eventlog.ErrData},
		{"lone surrogate", eventlog.EFIVariableBoot, patch(variable("ab", nil), 32, 0xd800), nil, eventlog.ErrData},
	} {
		got, err := event(7, tt.typ, tt.data, nil).Variable()
		if d := cmp.Diff(tt.want, got); d != "" || !errors.Is(err, tt.err) {
			t.Errorf("%s: Variable: error %v, want %v (-want +got):\n%s", tt.name, err, tt.err, d)
		}
	}
}

func TestImage(t *testing.T) {
	events := only(t, "good", eventlog.EFIBootServicesApplication)
	var got []string
	for i := range events {
		image, err := events[i].Image()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, image.Path)
	}
	want := []string{`\EFI\BOOT\BOOTX64.EFI`, `\EFI\BOOT\grubx64.efi`, "", ""}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("paths (-want +got):\n%s", d)
	}
	e := events[0]
	image, _ := e.Image()
	if image.Location != 0x2ce41018 || image.Length != 1048504 || len(image.DevicePath) != 112 {
		t.Errorf("Image: got location %#x, length %d, %d bytes of path", image.Location, image.Length, len(image.DevicePath))
	}
	for off, v := range map[int]uint32{24: 113, 28: 1} {
		bad := e
		bad.Data = patch(e.Data, off, v)
		if _, err := bad.Image(); !errors.Is(err, eventlog.ErrData) {
			t.Errorf("Image with a longer path: got error %v, want %v", err, eventlog.ErrData)
		}
	}
	// A node of length 0 would loop for ever in a careless reader.
	loop := e
	loop.Data = patch(e.Data, 32, 0x00000102)
	if image, err := loop.Image(); err != nil || image.Path != "" {
		t.Errorf("Image with an empty node: got %v, %v", image, err)
	}
	if _, err := event(0, eventlog.Separator, nil, nil).Image(); !errors.Is(err, eventlog.ErrType) {
		t.Errorf("Image of a separator: got error %v, want %v", err, eventlog.ErrType)
	}
}

func TestFirmwareBlob(t *testing.T) {
	where := append(le64(0x820000), le64(0xe0000)...)
	tables := append(append(le64(1), variable("", nil)[:16]...), le64(0x7000)...)
	table := []eventlog.Table{{GUID: globalGUID, Address: 0x7000}}
	for _, tt := range []struct {
		name string
		typ  eventlog.Type
		data []byte
		want *eventlog.Blob
		err  error
	}{
		{"blob", eventlog.EFIPlatformFirmwareBlob, where, &eventlog.Blob{Base: 0x820000, Length: 0xe0000}, nil},
		{"blob 2", eventlog.EFIPlatformFirmwareBlob2, append([]byte("\x04PEI\x00"), where...), &eventlog.Blob{Description: "PEI", Base: 0x820000, Length: 0xe0000}, nil},
		{"tables", eventlog.EFIHandoffTables, tables, &eventlog.Blob{Tables: table}, nil},
		{"tables 2", eventlog.EFIHandoffTables2, append([]byte("\x06SMBIOS"), tables...), &eventlog.Blob{Description: "SMBIOS", Tables: table}, nil},
		{"blob too short", eventlog.EFIPlatformFirmwareBlob, where[:15], nil, eventlog.ErrData},
		{"blob too long", eventlog.EFIPlatformFirmwareBlob, append(slices.Clone(where), 0), nil, eventlog.ErrData},
		{"description too long", eventlog.EFIPlatformFirmwareBlob2, []byte("\xffPEI"), nil, eventlog.ErrData},
		{"POST code", eventlog.PostCode, where, &eventlog.Blob{Base: 0x820000, Length: 0xe0000}, nil},
		{"POST code text", eventlog.PostCode, []byte("ACPI DATA"), nil, eventlog.ErrData},
		{"no description", eventlog.EFIHandoffTables2, nil, nil, eventlog.ErrData},
		{"no tables", eventlog.EFIHandoffTables, tables[:7], nil, eventlog.ErrData},
		{"table count bomb", eventlog.EFIHandoffTables, patch(tables, 4, 0x80000000), nil, eventlog.ErrData},
		{"other type", eventlog.Separator, where, nil, eventlog.ErrType},
	} {
		got, err := event(0, tt.typ, tt.data, nil).FirmwareBlob()
		if d := cmp.Diff(tt.want, got); d != "" || !errors.Is(err, tt.err) {
			t.Errorf("%s: FirmwareBlob: error %v, want %v (-want +got):\n%s", tt.name, err, tt.err, d)
		}
	}
}

func TestGPT(t *testing.T) {
	e := only(t, "good", eventlog.EFIGPT)[0]
	got, err := e.GPT()
	if err != nil {
		t.Fatal(err)
	}
	want := &eventlog.GPT{Disk: "11111111-2222-3333-4444-555555555555", Partitions: []eventlog.Partition{{
		Type: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", GUID: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", First: 2048, Last: 0x2ffde, Name: "ESP",
	}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("GPT (-want +got):\n%s", d)
	}
	for name, data := range map[string][]byte{
		"signature":    patch(e.Data, 0, 0),
		"short":        e.Data[:99],
		"entry size 0": patch(e.Data, 84, 0),
		"more entries": patch(e.Data, 92, 2),
		"entry bomb":   patch(e.Data, 96, 0x80000000),
		"cut":          e.Data[:len(e.Data)-1],
	} {
		bad := e
		bad.Data = data
		if _, err := bad.GPT(); !errors.Is(err, eventlog.ErrData) {
			t.Errorf("GPT, %s: got error %v, want %v", name, err, eventlog.ErrData)
		}
	}
}

func TestIPL(t *testing.T) {
	for _, tt := range []struct {
		pcr  int
		data []byte
		want *eventlog.IPL
		err  error
	}{
		{8, []byte("grub_cmd: boot\x00"), &eventlog.IPL{Kind: eventlog.KindGRUBCommand, Text: "boot"}, nil},
		{8, []byte("kernel_cmdline: /vmlinuz quiet\x00"), &eventlog.IPL{Kind: eventlog.KindGRUBKernelCmdline, Text: "/vmlinuz quiet"}, nil},
		{8, []byte("grub_cmd set pager=1\x00"), &eventlog.IPL{Kind: eventlog.KindGRUBCommand, Text: "set pager=1"}, nil},
		{8, []byte("grub_kernel_cmdline /vmlinuz\x00"), &eventlog.IPL{Kind: eventlog.KindGRUBKernelCmdline, Text: "/vmlinuz"}, nil},
		{8, []byte("module_cmdline: /xen"), &eventlog.IPL{Kind: eventlog.KindGRUBModuleCmdline, Text: "/xen"}, nil},
		{8, []byte("anything"), &eventlog.IPL{Kind: eventlog.KindText, Text: "anything"}, nil},
		{9, []byte("(hd0,gpt1)/vmlinuz\x00"), &eventlog.IPL{Kind: eventlog.KindGRUBFile, Text: "(hd0,gpt1)/vmlinuz"}, nil},
		{14, []byte("MokListX\x00"), &eventlog.IPL{Kind: eventlog.KindMOK, Text: "MokListX"}, nil},
		{11, wide(".initrd"), &eventlog.IPL{Kind: eventlog.KindSystemd, Text: ".initrd", Section: true}, nil},
		{12, wide("root=/dev/sda1 größe=1"), &eventlog.IPL{Kind: eventlog.KindSystemd, Text: "root=/dev/sda1 größe=1"}, nil},
		{4, wide("x"), &eventlog.IPL{Kind: eventlog.KindText, Text: "x"}, nil},
		{8, []byte{0xff, 0xfe}, nil, eventlog.ErrData},
		{8, []byte("two\x00parts"), nil, eventlog.ErrData},
	} {
		got, err := event(tt.pcr, eventlog.IPLType, tt.data, nil).IPL()
		if d := cmp.Diff(tt.want, got); d != "" || !errors.Is(err, tt.err) {
			t.Errorf("IPL(%q) in PCR %d: error %v, want %v (-want +got):\n%s", tt.data, tt.pcr, err, tt.err, d)
		}
	}
}

func TestSmallDecoders(t *testing.T) {
	for data, want := range map[string]eventlog.SeparatorKind{
		"\x00\x00\x00\x00": eventlog.SeparatorNormal, "\xff\xff\xff\xff": eventlog.SeparatorNormal,
		"\x01\x00\x00\x00": eventlog.SeparatorError, "WBCL": eventlog.SeparatorOther, "": eventlog.SeparatorOther,
	} {
		if got, err := event(0, eventlog.Separator, []byte(data), nil).Separator(); got != want || err != nil {
			t.Errorf("Separator(%x): got %v, %v, want %v", data, got, err, want)
		}
	}
	for data, want := range map[string]string{
		string(wide("N2XET37W")): "N2XET37W", "1.2\x00": "1.2", "\x00\x00": "0000", "\x01\x02\x03\xff": "010203ff",
	} {
		if got, err := event(0, eventlog.SCRTMVersion, []byte(data), nil).SCRTMVersion(); got != want || err != nil {
			t.Errorf("SCRTMVersion(%x): got %q, %v, want %q", data, got, err, want)
		}
	}
	if got, err := event(5, eventlog.EFIAction, []byte("Exit Boot Services Invocation"), nil).ActionText(); got != "Exit Boot Services Invocation" || err != nil {
		t.Errorf("ActionText: got %q, %v", got, err)
	}
	if got, err := event(0, eventlog.PostCode, []byte("ACPI DATA"), nil).PostCodeText(); got != "ACPI DATA" || err != nil {
		t.Errorf("PostCodeText: got %q, %v", got, err)
	}
	if _, err := event(0, eventlog.PostCode, append(le64(0xff000000), le64(0x1000)...), nil).PostCodeText(); !errors.Is(err, eventlog.ErrData) {
		t.Errorf("PostCodeText of an address: got error %v, want %v", err, eventlog.ErrData)
	}
	got, err := event(9, eventlog.EventTag, tag(eventlog.TagInitrd, "Linux initrd\x00"), nil).TaggedEvent()
	if d := cmp.Diff(&eventlog.Tagged{ID: eventlog.TagInitrd, Data: []byte("Linux initrd\x00")}, got); d != "" || err != nil {
		t.Errorf("TaggedEvent: %v (-want +got):\n%s", err, d)
	}
	e := event(0, eventlog.CPUMicrocode, nil, nil)
	for name, f := range map[string]func() error{
		"Separator":    func() error { _, err := e.Separator(); return err },
		"SCRTMVersion": func() error { _, err := e.SCRTMVersion(); return err },
		"ActionText":   func() error { _, err := e.ActionText(); return err },
		"PostCodeText": func() error { _, err := e.PostCodeText(); return err },
		"TaggedEvent":  func() error { _, err := e.TaggedEvent(); return err },
		"IPL":          func() error { _, err := e.IPL(); return err },
		"GPT":          func() error { _, err := e.GPT(); return err },
	} {
		if err := f(); !errors.Is(err, eventlog.ErrType) {
			t.Errorf("%s of another type: got error %v, want %v", name, err, eventlog.ErrType)
		}
	}
}

func TestDescribe(t *testing.T) {
	for _, tt := range []struct {
		e    *eventlog.Event
		want string
	}{
		{event(7, eventlog.EFIVariableDriverConfig, variable("SecureBoot", []byte{1}), nil), "EV_EFI_VARIABLE_DRIVER_CONFIG: SecureBoot-" + globalGUID + ", 1 bytes"},
		{event(0, eventlog.Separator, []byte{1, 0, 0, 0}, nil), "EV_SEPARATOR: error (01000000)"},
		{event(8, eventlog.IPLType, []byte("grub_cmd: boot\x00"), nil), "EV_IPL: grub_cmd boot"},
		{event(8, eventlog.IPLType, []byte("grub_cmd: \x1b[31mred\x00"), nil), `EV_IPL: grub_cmd "\x1b[31mred"`},
		{event(8, eventlog.IPLType, []byte("grub_cmd: \u202eevil\x00"), nil), `EV_IPL: grub_cmd "\u202eevil"`},
		{event(4, 0x1234, []byte{1, 2}, nil), "0x00001234: 0102"},
		{event(4, 0x1234, nil, nil), "0x00001234"},
		{event(0, eventlog.NoAction, locality(3), nil), "EV_NO_ACTION: StartupLocality 3"},
		{event(0, eventlog.NoAction, []byte("Spec ID Event03\x00\x00\x00"), nil), "EV_NO_ACTION: Spec ID Event03"},
		{event(0, eventlog.NoAction, []byte("SP800-155 Event3\x01\x02"), nil), "EV_NO_ACTION: SP800-155 Event3"},
		{event(0, eventlog.NoAction, []byte{1, 2}, nil), "EV_NO_ACTION: 0102"},
		{event(0, eventlog.PostCode, append(le64(0x1000), le64(16)...), nil), "EV_POST_CODE: 16 bytes at 0x1000"},
		{event(0, eventlog.PostCode, []byte("ACPI DATA"), nil), "EV_POST_CODE: ACPI DATA"},
		{event(0, eventlog.SCRTMVersion, wide("1.0"), nil), "EV_S_CRTM_VERSION: 1.0"},
		{event(0, eventlog.EFIPlatformFirmwareBlob2, append([]byte("\x03PEI"), make([]byte, 16)...), nil), "EV_EFI_PLATFORM_FIRMWARE_BLOB2: PEI, 0 bytes at 0x0"},
		{event(9, eventlog.EventTag, tag(eventlog.TagInitrd, "Linux initrd\x00"), nil), "EV_EVENT_TAG: tag 0x8f3b22ec Linux initrd"},
		{event(5, eventlog.EFIAction, []byte(strings.Repeat("ä", 300)), nil), "EV_EFI_ACTION: " + strings.Repeat("ä", 197-15) + "..."},
	} {
		got := eventlog.Describe(tt.e)
		if got != tt.want {
			t.Errorf("Describe: got %q, want %q", got, tt.want)
		}
		if utf8.RuneCountInString(got) > 200 {
			t.Errorf("Describe: %d characters, want at most 200", utf8.RuneCountInString(got))
		}
	}
}
