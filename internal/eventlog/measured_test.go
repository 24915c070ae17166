package eventlog_test

import (
	"crypto/sha256"
	"slices"
	"testing"
	"unicode/utf16"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/tpm"
)

// wide encodes s as UTF-16LE with a final NUL.
func wide(s string) []byte {
	var out []byte
	for _, u := range append(utf16.Encode([]rune(s)), 0) {
		out = append(out, byte(u), byte(u>>8))
	}
	return out
}

// event returns an event whose SHA-256 digest covers over.
func event(pcr int, t eventlog.Type, data, over []byte) *eventlog.Event {
	sum := sha256.Sum256(over)
	return &eventlog.Event{PCR: pcr, Type: t, Data: data, Digests: []eventlog.Digest{{Alg: tpm.AlgSHA256, Sum: sum[:]}}}
}

// variable returns UEFI_VARIABLE_DATA of the global variable called name.
func variable(name string, data []byte) []byte {
	w := wide(name)
	w = w[:len(w)-2]
	out := []byte{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
	out = append(out, le64(uint64(len(w)/2))...)
	out = append(out, le64(uint64(len(data)))...)
	return append(append(out, w...), data...)
}

func le64(v uint64) []byte {
	return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24), byte(v >> 32), byte(v >> 40), byte(v >> 48), byte(v >> 56)}
}

func tag(id uint32, data string) []byte {
	out := []byte{byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24), byte(len(data)), 0, 0, 0}
	return append(out, data...)
}

func TestDataMatches(t *testing.T) {
	secureBoot := variable("SecureBoot", []byte{1})
	for _, tt := range []struct {
		name       string
		pcr        int
		typ        eventlog.Type
		data, over []byte
		want       bool
		measures   eventlog.Measured
	}{
		{"separator", 0, eventlog.Separator, []byte{0, 0, 0, 0}, []byte{0, 0, 0, 0}, true, eventlog.MeasuresData},
		{"separator altered", 0, eventlog.Separator, []byte{0, 0, 0, 0}, []byte{1, 0, 0, 0}, false, eventlog.MeasuresData},
		{"action", 4, eventlog.EFIAction, []byte("a"), []byte("a"), true, eventlog.MeasuresData},
		{"version", 0, eventlog.SCRTMVersion, wide("1.0"), wide("1.0"), true, eventlog.MeasuresData},
		{"EV_NO_ACTION", 0, eventlog.NoAction, []byte("a"), []byte("a"), false, eventlog.MeasuresNothing},
		{"variable", 7, eventlog.EFIVariableDriverConfig, secureBoot, secureBoot, true, eventlog.MeasuresData},
		{"variable, value only", 7, eventlog.EFIVariableDriverConfig, secureBoot, []byte{1}, false, eventlog.MeasuresData},
		{"authority, value only", 7, eventlog.EFIVariableAuthority, secureBoot, []byte{1}, false, eventlog.MeasuresData},
		{"boot variable", 1, eventlog.EFIVariableBoot, secureBoot, secureBoot, true, eventlog.MeasuresData},
		{"boot variable, value only", 1, eventlog.EFIVariableBoot, secureBoot, []byte{1}, true, eventlog.MeasuresData},
		{"boot variable altered", 1, eventlog.EFIVariableBoot2, secureBoot, []byte{0}, false, eventlog.MeasuresData},
		{"GRUB command", 8, eventlog.IPLType, []byte("grub_cmd: boot\x00"), []byte("boot"), true, eventlog.MeasuresData},
		{"RHEL 8 command", 8, eventlog.IPLType, []byte("grub_cmd boot\x00"), []byte("boot\x00"), true, eventlog.MeasuresData},
		{"RHEL 8 command altered", 8, eventlog.IPLType, []byte("grub_cmd boot\x00"), []byte("exit\x00"), false, eventlog.MeasuresData},
		{"old shim's authority", 7, eventlog.EFIVariableAuthority, append(slices.Clone(secureBoot), 0, 0, 0, 7), append(slices.Clone(secureBoot), 0, 0, 0), true, eventlog.MeasuresData},
		{"ACPI tables", 1, eventlog.PlatformConfigFlags, []byte("ACPI DATA"), []byte("FACP"), false, eventlog.MeasuresContent},
		{"platform flags", 1, eventlog.PlatformConfigFlags, []byte("flags"), []byte("flags"), true, eventlog.MeasuresData},
		{"GRUB command altered", 8, eventlog.IPLType, []byte("grub_cmd: boot\x00"), []byte("exit"), false, eventlog.MeasuresData},
		{"kernel command line", 8, eventlog.IPLType, []byte("kernel_cmdline: /vmlinuz quiet\x00"), []byte("/vmlinuz quiet"), true, eventlog.MeasuresData},
		{"module command line", 8, eventlog.IPLType, []byte("module_cmdline: /xen\x00"), []byte("/xen"), true, eventlog.MeasuresData},
		{"whole text", 8, eventlog.IPLType, []byte("some text\x00"), []byte("some text"), true, eventlog.MeasuresData},
		{"prefix outside PCR 8", 12, eventlog.IPLType, []byte("grub_cmd: boot\x00"), []byte("boot"), false, eventlog.MeasuresData},
		{"GRUB file", 9, eventlog.IPLType, []byte("/vmlinuz\x00"), []byte("ELF"), false, eventlog.MeasuresFile},
		{"MOK list", 14, eventlog.IPLType, []byte("MokList\x00"), []byte{1}, false, eventlog.MeasuresContent},
		{"IPL of bytes", 4, eventlog.IPLType, []byte{0xff, 0, 1}, []byte("x"), false, eventlog.MeasuresContent},
		{"stub section name", 11, eventlog.IPLType, wide(".linux"), []byte(".linux\x00"), true, eventlog.MeasuresData},
		{"stub section content", 11, eventlog.IPLType, wide(".linux"), []byte("MZ"), false, eventlog.MeasuresContent},
		{"systemd-boot command line", 12, eventlog.IPLType, wide("quiet splash"), wide("quiet splash"), true, eventlog.MeasuresData},
		{"systemd-boot command line altered", 12, eventlog.IPLType, wide("quiet splash"), wide("quiet"), false, eventlog.MeasuresData},
		{"stub load options", 9, eventlog.EventTag, tag(eventlog.TagLoadOptions, "LOADED_IMAGE::LoadOptions\x00"), wide("quiet"), false, eventlog.MeasuresContent},
		{"stub initrd", 9, eventlog.EventTag, tag(eventlog.TagInitrd, "Linux initrd\x00"), []byte("cpio"), false, eventlog.MeasuresContent},
		{"other tag", 5, eventlog.EventTag, tag(7, "seven"), tag(7, "seven"), true, eventlog.MeasuresData},
		{"other tag, its data only", 5, eventlog.EventTag, tag(7, "seven"), []byte("seven"), true, eventlog.MeasuresData},
		{"malformed tag", 5, eventlog.EventTag, []byte("xy"), []byte("xz"), false, eventlog.MeasuresData},
		{"image", 4, eventlog.EFIBootServicesApplication, make([]byte, 32), []byte("MZ"), false, eventlog.MeasuresImage},
		{"firmware", 0, eventlog.EFIPlatformFirmwareBlob, make([]byte, 16), []byte("FV"), false, eventlog.MeasuresBlob},
		{"TXT", 17, eventlog.TXTMLEHash, nil, []byte("MLE"), false, eventlog.MeasuresContent},
		{"unknown", 4, 0x1234, []byte("a"), []byte("a"), true, eventlog.MeasuresUnknown},
	} {
		e := event(tt.pcr, tt.typ, tt.data, tt.over)
		if got := e.DataMatches(tpm.AlgSHA256); got != tt.want {
			t.Errorf("%s: DataMatches: got %v, want %v", tt.name, got, tt.want)
		}
		if e.DataMatches(tpm.AlgSHA1) || e.DataMatches(0x12) {
			t.Errorf("%s: DataMatches of a bank without digest: got true", tt.name)
		}
		if got := e.Measures(); got != tt.measures {
			t.Errorf("%s: Measures: got %v, want %v", tt.name, got, tt.measures)
		}
	}
}

func TestVariableDataMatches(t *testing.T) {
	data := variable("SecureBoot", []byte{1})
	if !event(7, eventlog.EFIVariableDriverConfig, data, []byte{1}).VariableDataMatches(tpm.AlgSHA256) {
		t.Error("VariableDataMatches of a digest over the value: got false")
	}
	if event(7, eventlog.EFIVariableDriverConfig, data, data).VariableDataMatches(tpm.AlgSHA256) {
		t.Error("VariableDataMatches of a digest over all: got true")
	}
}

// TestTamperedData: replay can't see altered data, DataMatches must.
func TestTamperedData(t *testing.T) {
	b := open(t, "good")
	altered := 0
	for i := range b.Entries {
		e := &b.Entries[i]
		log := parse(t, b.Bytes())
		if !log.Events[i+1].DataMatches(tpm.AlgSHA256) {
			continue
		}
		e.Data[len(e.Data)/2] ^= 1
		log = parse(t, b.Bytes())
		if log.Events[i+1].DataMatches(tpm.AlgSHA256) {
			t.Errorf("event %d: DataMatches of altered data: got true", i+1)
		}
		altered++
	}
	if altered < 30 {
		t.Errorf("events with data to alter: got %d, want at least 30", altered)
	}
}
