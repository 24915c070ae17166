package claims

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"
	"unicode/utf16"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/uefi"
)

// variable is UEFI_VARIABLE_DATA.
func variable(t *testing.T, owner, name string, data []byte) []byte {
	t.Helper()
	g, err := uefi.ParseGUID(owner)
	if err != nil {
		t.Fatal(err)
	}
	chars := utf16.Encode([]rune(name))
	b := binary.LittleEndian.AppendUint64(g[:], uint64(len(chars)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	for _, c := range chars {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return append(b, data...)
}

// TestRetyped: types are covered by no digest. Whatever type an attacker gives to what shim or the firmware measured into PCR 7, it is read by its
// name or is a problem.
func TestRetyped(t *testing.T) {
	owner := make([]byte, 16)
	setting := variable(t, uefi.ShimLock, "MokSBState", []byte{1})
	authority := variable(t, uefi.ShimLock, "MokListRT", append(owner, "an evil certificate"...))
	action := []byte("UEFI Debug Mode")
	known := func(b *Boot) bool {
		return len(b.Problems) > 0 || len(b.ShimSettings) > 0 || len(b.Authorities) > 0 || len(b.Actions) > 0
	}
	types := []eventlog.Type{eventlog.EFIVariableAuthority, eventlog.EFIVariableDriverConfig, eventlog.EFISPDMDevicePolicy, eventlog.EFISPDMDeviceAuthority,
		eventlog.EFIAction, eventlog.Separator, eventlog.EventTag, eventlog.IPLType, eventlog.PostCode, eventlog.EFIVariableBoot, 0x7777}
	for name, data := range map[string][]byte{"setting of shim": setting, "authority": authority, "action": action} {
		for _, typ := range types {
			log := eventlogtest.New(tpm.AlgSHA256).AddSeparators().Add(7, typ, data)
			b, err := ReadBoot(log.Bytes(), tpm.AlgSHA256)
			if err != nil {
				t.Fatal(err)
			}
			if !known(b) {
				t.Errorf("%s as %v: hidden", name, typ)
			}
			// With other data the digest stays that of what was measured.
			log = eventlogtest.New(tpm.AlgSHA256).AddSeparators().AddOver(7, typ, variable(t, uefi.ShimLock, "devdb", nil), data)
			if b, err = ReadBoot(log.Bytes(), tpm.AlgSHA256); err != nil {
				t.Fatal(err)
			}
			if !known(b) {
				t.Errorf("%s as %v with other data: hidden", name, typ)
			}
		}
	}
	log := eventlogtest.New(tpm.AlgSHA256).Add(7, eventlog.EFISPDMDevicePolicy, variable(t, uefi.GlobalVariable, "devdb", []byte("list"))).AddSeparators()
	if b, err := ReadBoot(log.Bytes(), tpm.AlgSHA256); err != nil || known(b) {
		t.Errorf("database of device certificates: got %+v, %v, want no problem", b.Problems, err)
	}
}

// TestSection: the first section of a name counts, by its digest: events that are added after the boot do not, nor do names in the log.
func TestSection(t *testing.T) {
	wide := func(s string) []byte {
		var b []byte
		for _, c := range s + "\x00" {
			b = append(b, byte(c), 0)
		}
		return b
	}
	b := eventlogtest.New(tpm.AlgSHA256)
	section := func(label, name, content string) {
		b.AddOver(11, eventlog.IPLType, wide(label), []byte(name+"\x00")).AddOver(11, eventlog.IPLType, wide(label), []byte(content))
	}
	section(".linux", ".linux", "kernel")
	section(".osrel", ".cmdline", "evil") // renamed in the log
	section(".cmdline", ".cmdline", "good")
	boot, err := ReadBoot(b.Bytes(), tpm.AlgSHA256)
	if err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256([]byte("evil"))
	if got := boot.Section(".cmdline"); got == nil || !slices.Equal(got.Digest, want[:]) {
		t.Errorf("Section(.cmdline): got %+v, want the first one", got)
	}
	if got := boot.Section(".initrd"); got != nil {
		t.Errorf("Section(.initrd): got %+v, want none", got)
	}
	if got := new(Boot).Section(".linux"); got != nil {
		t.Errorf("Section of an empty log: got %+v", got)
	}
}
