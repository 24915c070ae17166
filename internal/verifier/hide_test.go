package verifier

import (
	"slices"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/tpm"
)

// initrdTag is the data of the event by which the kernel's EFI stub measures an initrd: the digest covers something else.
var initrdTag = []byte("\xec\x22\x3b\x8f\x0d\x00\x00\x00Linux initrd\x00")

// insert puts an event behind entry i; its digests are the hashes of over.
func insert(b *eventlogtest.Builder, i int, pcr uint32, t eventlog.Type, data, over string) {
	b.Entries = slices.Insert(b.Entries, i+1, eventlogtest.Entry{PCR: pcr, Type: t, Data: []byte(data), Over: []byte(over)})
}

// TestHide: a worker measures something evil, and the log tells it under another type or name, or in other company. The log replays all the same;
// only digests and their order within a PCR are proven.
func TestHide(t *testing.T) {
	tests := []struct {
		name   string
		change func(*testing.T, *eventlogtest.Builder)
		rule   string
		level  int
	}{
		{"command line in a command that was retyped", func(t *testing.T, b *eventlogtest.Builder) {
			insert(b, event(t, b, 8, "grub_cmd: linux"), 8, eventlog.EventTag, string(initrdTag), "linux /vmlinuz init=/bin/evil")
		}, "kernel.log", 4},
		{"command line under the name of a command", func(t *testing.T, b *eventlogtest.Builder) {
			bad := "/vmlinuz ima_policy=tcb module.sig_enforce=1 mitigations=off"
			insert(b, event(t, b, 8, "grub_cmd: linux"), 8, eventlog.IPLType, "grub_cmd: linux "+bad+"\x00", "linux "+bad)
			e := &b.Entries[event(t, b, 8, "kernel_cmdline: ")]
			e.Data, e.Over, e.Digests = []byte("grub_cmd: "+bad+"\x00"), []byte(bad), nil
		}, "kernel.command-line", 4},
		{"initrd retyped as the stub's, a good one read in its place before", func(t *testing.T, b *eventlogtest.Builder) {
			evil := &b.Entries[event(t, b, 9, "/initrd.img")]
			good := eventlogtest.Entry{PCR: 9, Type: eventlog.IPLType, Data: []byte("/initrd.img\x00"), Digests: evil.Digests}
			evil.Type, evil.Data, evil.Over, evil.Digests = eventlog.EventTag, initrdTag, []byte("evil initrd"), nil
			b.Entries = slices.Insert(b.Entries, event(t, b, 9, "/vmlinuz"), good)
		}, "kernel.initrd", 4},
		{"file read behind the stub's events", func(t *testing.T, b *eventlogtest.Builder) {
			insert(b, event(t, b, 9, "/vmlinuz"), 9, eventlog.EventTag, string(initrdTag), "evil initrd")
		}, "kernel.log", 4},
		{"known file in the place of the initrd", func(t *testing.T, b *eventlogtest.Builder) {
			b.Entries[event(t, b, 9, "/initrd.img")].Digests = b.Entries[event(t, b, 9, "/vmlinuz")].Digests
		}, "kernel.initrd", 4},
		{"file read after the kernel", func(t *testing.T, b *eventlogtest.Builder) {
			insert(b, event(t, b, 8, "grub_cmd: initrd"), 8, eventlog.IPLType, "grub_cmd: cat /initrd.img\x00", "cat /initrd.img")
		}, "kernel.initrd", 4},
		{"kernel that fails after the initrd", func(t *testing.T, b *eventlogtest.Builder) {
			insert(b, event(t, b, 8, "grub_cmd: initrd"), 8, eventlog.IPLType, "grub_cmd: linux /missing\x00", "linux /missing")
		}, "kernel.initrd", 4},
		{"machine owner keys under another name", func(t *testing.T, b *eventlogtest.Builder) {
			e := &b.Entries[event(t, b, 14, "MokList\x00")]
			e.Data, e.Over, e.Digests = []byte("MokListX\x00"), []byte("list with another key"), nil
		}, "boot-loader.mok", 3},
		{"machine owner keys replaced", func(t *testing.T, b *eventlogtest.Builder) {
			e := &b.Entries[event(t, b, 14, "MokList\x00")]
			e.Over, e.Digests = []byte("list with another key"), nil
		}, "boot-loader.mok", 3},
		{"validation switched off, under a harmless name in PCR 14", func(t *testing.T, b *eventlogtest.Builder) {
			insert(b, event(t, b, 14, "MokListX"), 14, eventlog.IPLType, "MokListTrusted\x00", "\x01")
		}, "boot-loader.mok", 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorker(t)
			w.edit(func(b *eventlogtest.Builder) { tt.change(t, b) })
			if w.bank.Values[4] == nil || w.bank.Alg != tpm.AlgSHA256 {
				t.Fatal("the log was not read")
			}
			out := appraise(t, testVerifier(t), w.evidence(), w.expectation())
			f := find(out.Verdict, tt.rule)
			if f == nil || out.Verdict.Trusted || strings.Contains("pw", statuses(out.Verdict)[tt.level-1:tt.level]) {
				t.Errorf("Appraise: got %s, %s: %+v; want level %d to fall by it", statuses(out.Verdict), tt.rule, f, tt.level)
			}
		})
	}
}
