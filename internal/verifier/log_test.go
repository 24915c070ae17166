package verifier

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/tpm"
)

// event returns the index of the first entry of a PCR whose data hold text.
func event(t *testing.T, b *eventlogtest.Builder, pcr uint32, text string) int {
	t.Helper()
	i := slices.IndexFunc(b.Entries, func(e eventlogtest.Entry) bool { return e.PCR == pcr && bytes.Contains(e.Data, []byte(text)) })
	if i < 0 {
		t.Fatalf("no event of PCR %d with %q", pcr, text)
	}
	return i
}

func utf16(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteByte(byte(r))
		b.WriteByte(0)
	}
	return b.String()
}

// TestTamperedLog: each forgery costs trust on the level of its PCR, with a message that names it.
func TestTamperedLog(t *testing.T) {
	drop := func(b *eventlogtest.Builder, i int) { b.Entries = slices.Delete(b.Entries, i, i+1) }
	tests := []struct {
		name    string
		change  func(*testing.T, *worker)
		rule    string
		message string
		want    string // levels: p, w, u, f; . is not judged here
	}{
		{"event dropped", func(t *testing.T, w *worker) {
			w.forge(func(b *eventlogtest.Builder) { drop(b, event(t, b, 8, "kernel_cmdline")) })
		}, "kernel.log", "PCR 8", "pp.fp"},
		{"digest changed", func(t *testing.T, w *worker) {
			w.forge(func(b *eventlogtest.Builder) { b.Entries[event(t, b, 9, "/initrd.img")].Digests[tpm.AlgSHA256][0] ^= 1 })
		}, "kernel.log", "PCR 9", "pp.fp"},
		{"data changed", func(t *testing.T, w *worker) {
			w.forge(func(b *eventlogtest.Builder) {
				e := &b.Entries[event(t, b, 7, utf16("SecureBoot"))]
				e.Data = bytes.Clone(e.Data)
				e.Data[len(e.Data)-1] = 0
			})
		}, "secure-boot.log", "do not hash to its digest", "pf..p"},
		{"image retyped as IPL", func(t *testing.T, w *worker) {
			w.forge(func(b *eventlogtest.Builder) { b.Entries[event(t, b, 4, utf16("grubx64.efi"))].Type = eventlog.IPLType })
		}, "boot-loader.log", "does not belong into PCR 4", "ppf.p"},
		{"image retyped as action", func(t *testing.T, w *worker) {
			w.forge(func(b *eventlogtest.Builder) {
				b.Entries[event(t, b, 4, utf16("grubx64.efi"))].Type = eventlog.EFIAction
			})
		}, "boot-loader.log", "do not hash to its digest", "ppf.p"},
		{"events of a PCR taken out", func(_ *testing.T, w *worker) {
			w.forge(func(b *eventlogtest.Builder) {
				b.Entries = slices.DeleteFunc(b.Entries, func(e eventlogtest.Entry) bool { return e.PCR == 14 })
			})
		}, "boot-loader.log", "PCR 14 has a value, but the log has no events for it", "ppfpp"},
		{"unknown type extended", func(_ *testing.T, w *worker) {
			w.edit(func(b *eventlogtest.Builder) { b.Add(0, 0x1234, []byte("x")) })
		}, "firmware.log", "unknown type 0x00001234", "f...f"},
		{"bytes after the log", func(_ *testing.T, w *worker) {
			w.log = append(bytes.Clone(w.log), 1, 2, 3)
		}, "firmware.log", "no firmware log", "uuuup"},
		{"log cut inside an event", func(_ *testing.T, w *worker) { w.log = w.log[:len(w.log)-5] }, "kernel.log", "no firmware log", "uuuup"},
		{"log cut at an event", func(t *testing.T, w *worker) {
			w.forge(func(b *eventlogtest.Builder) { b.Entries = b.Entries[:event(t, b, 8, "grub_cmd: boot")] })
		}, "kernel.log", "PCR 8", "ppffp"},
		{"log missing", func(_ *testing.T, w *worker) { w.log = nil }, "secure-boot.log", "no firmware log", "uuuup"},
		{"log garbage", func(_ *testing.T, w *worker) { w.log = bytes.Repeat([]byte{0xa5}, 500) }, "secure-boot.log", "no firmware log", "uuuup"},
		{"false startup locality", func(_ *testing.T, w *worker) {
			w.forge(func(b *eventlogtest.Builder) {
				b.Entries = slices.Insert(b.Entries, 0, eventlogtest.Entry{PCR: 0, Type: eventlog.NoAction, Data: []byte("StartupLocality\x00\x03")})
			})
		}, "firmware.log", "PCR 0", "fp..p"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorker(t)
			tt.change(t, w)
			out := appraise(t, testVerifier(t), w.evidence(), w.expectation())
			got := statuses(out.Verdict)
			for i := range tt.want {
				if tt.want[i] != '.' && tt.want[i] != got[i] {
					t.Errorf("levels: got %s, want %s", got, tt.want)
					break
				}
			}
			if out.Verdict.Trusted || !out.Authentic {
				t.Errorf("trusted %v, authentic %v: want false, true", out.Verdict.Trusted, out.Authentic)
			}
			if f := find(out.Verdict, tt.rule); f == nil || !strings.Contains(f.Message, tt.message) {
				t.Errorf("%s: got %+v, want a message with %q", tt.rule, f, tt.message)
			}
		})
	}
}

// TestQuoteLeavesOut: each PCR that the policy needs must be quoted.
func TestQuoteLeavesOut(t *testing.T) {
	for _, i := range tpm.PCRs(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14).Indices() {
		w := newWorker(t)
		w.selects &^= tpm.PCRs(i)
		out := appraise(t, testVerifier(t), w.evidence(), w.expectation())
		if f := find(out.Verdict, "firmware.tpm"); out.Verdict.Trusted || f == nil || !strings.Contains(f.Message, "not quoted") {
			t.Errorf("quote without PCR %d: got trusted %v, finding %+v", i, out.Verdict.Trusted, f)
		}
	}
}

// TestWeakBank: a quote of the SHA-1 bank alone does not count.
func TestWeakBank(t *testing.T) {
	w := newWorker(t)
	w.bank = tpm.Bank{Alg: tpm.AlgSHA1}
	for i := range w.bank.Values {
		w.bank.Values[i] = make([]byte, 20)
	}
	msg, sig := w.tpm.Quote(nonce, []*tpm.Bank{&w.bank}, []tpm.Selection{{Alg: tpm.AlgSHA1, PCRs: w.selects}}, w.clock)
	doc := w.document(msg, sig)
	doc.Quotes[0].PCRs[0].Alg = tpm.AlgSHA1
	out := appraise(t, testVerifier(t), doc, w.expectation())
	if f := find(out.Verdict, "firmware.tpm"); out.Verdict.Trusted || f == nil || !strings.Contains(f.Message, "no bank that counts") {
		t.Errorf("SHA-1 only: got trusted %v, finding %+v", out.Verdict.Trusted, f)
	}
}
