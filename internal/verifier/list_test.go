package verifier

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/policy"
)

// run gives the worker the list and PCR 10 of a boot of the corpus.
func (w *worker) run(boot string) {
	w.t.Helper()
	dir := filepath.Join(boots, "corpus", boot)
	w.list = read(w.t, dir, "ima.bin")
	after := pcrs(w.t, dir)
	w.bank.Values[imaPCR] = after.Values[imaPCR]
}

// offsets are where the entries of a list begin.
func offsets(t *testing.T, list []byte) []int {
	t.Helper()
	var out []int
	if err := ima.Parse(list, func(e *ima.Entry) error { out = append(out, e.Offset); return nil }); err != nil {
		t.Fatal(err)
	}
	return append(out, len(list))
}

// TestTamperedList: a list that is not the one of PCR 10 says nothing, so level 5 fails.
func TestTamperedList(t *testing.T) {
	for name, change := range map[string]func([]byte, []int) []byte{
		"cut short":       func(l []byte, at []int) []byte { return l[:at[len(at)-3]] },
		"cut in an entry": func(l []byte, _ []int) []byte { return l[:len(l)-1] },
		"empty":           func([]byte, []int) []byte { return nil },
		"entry removed":   func(l []byte, at []int) []byte { return append(bytes.Clone(l[:at[3]]), l[at[4]:]...) },
		"entries swapped": func(l []byte, at []int) []byte {
			return bytes.Join([][]byte{l[:at[3]], l[at[4]:at[5]], l[at[3]:at[4]], l[at[5]:]}, nil)
		},
		"digest changed": func(l []byte, at []int) []byte {
			l = bytes.Clone(l)
			l[at[4]+4+20+4+len("ima-sig")+4+4+len("sha256:")+5] ^= 1
			return l
		},
		"violation made clean": func(l []byte, at []int) []byte {
			l = bytes.Clone(l)
			clear(l[at[4]+4 : at[4]+24]) // a zero template hash extends ones, not the hash of the data
			return l
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorker(t)
			w.list = change(w.list, offsets(t, w.list))
			out := appraise(t, testVerifier(t), w.evidence(), w.expectation())
			f := find(out.Verdict, "runtime.list")
			if got := statuses(out.Verdict); got != "pppuf" || f == nil || f.Remedy == "" {
				t.Errorf("Appraise: got %s, %+v, want pppuf", got, f)
			}
			if out.Checkpoint.State != nil || out.Checkpoint.IMAOffset != 0 {
				t.Error("Checkpoint goes on from a list that was not verified")
			}
		})
	}
}

// TestViolation: a violation entry replays, and still costs trust.
func TestViolation(t *testing.T) {
	w := newWorker(t)
	at := offsets(t, w.list)
	w.list = bytes.Clone(w.list)
	last := at[len(at)-2]
	clear(w.list[last+4 : last+24])
	pcr := make([]byte, 32)
	if err := ima.Parse(w.list, func(e *ima.Entry) error {
		d := sha256.Sum256(e.Data)
		if e.Violation {
			d = [32]byte(bytes.Repeat([]byte{0xff}, 32))
		}
		s := sha256.Sum256(append(pcr, d[:]...))
		pcr = s[:]
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.bank.Values[imaPCR] = pcr
	out := appraise(t, testVerifier(t), w.evidence(), w.expectation())
	if f := find(out.Verdict, "runtime.violations"); f == nil || f.Status != appraisal.Fail || out.Verdict.Trusted {
		t.Errorf("violation: got %+v, trusted %v", f, out.Verdict.Trusted)
	}
}

// TestResume: after the first time only new entries travel, and what was found before still counts.
func TestResume(t *testing.T) {
	w, v := newWorker(t), testVerifier(t)
	exp := w.expectation()
	first := appraise(t, v, w.evidence(), exp)
	exp.Checkpoint = first.Checkpoint
	verified := len(w.list)
	resumed := func() *evidence.Document {
		doc := w.evidence()
		doc.IMA, doc.IMAOffset = doc.IMA[verified:], uint64(verified)
		doc.EventLogDigest, doc.EventLog = exp.Checkpoint.LogDigest, nil
		doc.FactsDigest, doc.Facts = exp.Checkpoint.FactsDigest, nil
		return doc
	}
	exp.EventLog = func([]byte) ([]byte, error) { return w.log, nil }
	exp.Facts = func([]byte) (map[string][]byte, error) { return w.facts, nil }

	steady := appraise(t, v, resumed(), exp)
	if steady.Verdict != first.Verdict {
		t.Errorf("nothing changed, but the verdict is another one: %s", statuses(steady.Verdict))
	}
	w.run(filepath.Join("good-actions", "after"))
	fallen := appraise(t, v, resumed(), exp)
	f := find(fallen.Verdict, "runtime.files")
	if got := statuses(fallen.Verdict); got != "ppppf" || f == nil || !strings.Contains(f.Message, "/bin/unk") || f.Event.Log != "ima" {
		t.Fatalf("unknown program: got %s, %+v", got, f)
	}
	exp.Checkpoint, verified = fallen.Checkpoint, len(w.list)
	if again := appraise(t, v, resumed(), exp); statuses(again.Verdict) != "ppppf" {
		t.Errorf("the unknown program is forgotten: got %s", statuses(again.Verdict))
	}
	// A verifier that was started anew has nothing in memory, only the checkpoint.
	if again := appraise(t, testVerifier(t), resumed(), exp); statuses(again.Verdict) != "ppppf" {
		t.Errorf("after a restart: got %s, want ppppf", statuses(again.Verdict))
	}
}

// TestResumeFromNowhere: what cannot be joined to a checkpoint is asked for again, not judged.
func TestResumeFromNowhere(t *testing.T) {
	w, v := newWorker(t), testVerifier(t)
	exp := w.expectation()
	exp.Checkpoint = appraise(t, v, w.evidence(), exp).Checkpoint
	p := testPolicy(t)
	p.Spec.Runtime.AllowPaths = []string{"/var/log/*"}
	other, err := New(p, testReferences(t))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]func() (*Verifier, *evidence.Document, Expectation){
		"no checkpoint": func() (*Verifier, *evidence.Document, Expectation) {
			e := exp
			e.Checkpoint = nil
			return v, w.evidence(), e
		},
		"other offset": func() (*Verifier, *evidence.Document, Expectation) {
			d := w.evidence()
			d.IMAOffset = 17
			return v, d, exp
		},
		"other policy": func() (*Verifier, *evidence.Document, Expectation) { return other, w.evidence(), exp },
		"damaged state": func() (*Verifier, *evidence.Document, Expectation) {
			e, c := exp, *exp.Checkpoint
			c.State = c.State[:len(c.State)/2]
			e.Checkpoint = &c
			return v, w.evidence(), e
		},
		"other boot": func() (*Verifier, *evidence.Document, Expectation) {
			w.clock.ResetCount++
			return v, w.evidence(), exp
		},
	}
	for name, make := range tests {
		t.Run(name, func(t *testing.T) {
			v, doc, e := make()
			if doc.IMAOffset == 0 {
				doc.IMA, doc.IMAOffset = nil, exp.Checkpoint.IMAOffset
			}
			if out, err := v.Appraise(doc, e); !errors.Is(err, ErrResume) {
				t.Errorf("Appraise: got %+v, %v, want %v", out, err, ErrResume)
			}
		})
	}
}

// TestReboot: a new boot starts its list anew, and is judged anew.
func TestReboot(t *testing.T) {
	w, v := newWorker(t), testVerifier(t)
	exp := w.expectation()
	w.run(filepath.Join("good-actions", "after"))
	exp.Checkpoint = appraise(t, v, w.evidence(), exp).Checkpoint
	w.clock.ResetCount++
	w.clock.Clock = 0 // a clock may start anew with a new boot
	w.run("good")
	if out := appraise(t, v, w.evidence(), exp); statuses(out.Verdict) != "ppppp" {
		t.Errorf("after the reboot: got %s, want ppppp", statuses(out.Verdict))
	}
}

// TestListMovesOn: entries made after the quote are neither judged nor held against the worker.
func TestListMovesOn(t *testing.T) {
	w, v := newWorker(t), testVerifier(t)
	doc := w.evidence()
	w.run(filepath.Join("good-actions", "after"))
	doc.IMA = w.list
	out := appraise(t, v, doc, w.expectation())
	if statuses(out.Verdict) != "ppppp" || out.Checkpoint.IMAOffset >= uint64(len(w.list)) {
		t.Errorf("list longer than the quote: got %s, checkpoint at %d of %d", statuses(out.Verdict), out.Checkpoint.IMAOffset, len(w.list))
	}
}

// TestBootAggregateOfAnotherBoot: a list whose first entry does not agree with the quoted PCRs is of another boot.
func TestBootAggregateOfAnotherBoot(t *testing.T) {
	w := newWorker(t)
	w.run("cmdline")
	out := appraise(t, testVerifier(t), w.evidence(), w.expectation())
	if f := find(out.Verdict, "runtime.boot-aggregate"); f == nil || f.Status != appraisal.Fail {
		t.Errorf("boot aggregate: got %+v, want fail", f)
	}
}

// TestNoIMA: an empty list with PCR 10 at zero is honest, and says nothing about what runs.
func TestNoIMA(t *testing.T) {
	w := newWorker(t)
	w.list, w.bank.Values[imaPCR] = nil, make([]byte, 32)
	out := appraise(t, testVerifier(t), w.evidence(), w.expectation())
	if got := statuses(out.Verdict); got != "pppuu" || out.Verdict.Trusted {
		t.Errorf("IMA off: got %s, want pppuu", got)
	}
}

// TestExceptions: an exception turns what a rule refuses into a warning, until its end.
func TestExceptions(t *testing.T) {
	p := testPolicy(t)
	p.Spec.Exceptions = []policy.Exception{{Rule: "runtime.files", Allow: "fail", Reason: "ticket 4711", Until: &policy.Time{Time: now}}}
	v, err := New(p, testReferences(t))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorker(t)
	w.run(filepath.Join("good-actions", "after"))
	exp := w.expectation()
	exp.Now = now.Add(-1)
	out := appraise(t, v, w.evidence(), exp)
	if f := find(out.Verdict, "runtime.files"); !out.Verdict.Trusted || f == nil || f.Status != appraisal.Warn || !strings.Contains(f.Message, "ticket 4711") {
		t.Errorf("before the end: trusted %v, %+v", out.Verdict.Trusted, f)
	}
	exp.Now = now
	if out := appraise(t, v, w.evidence(), exp); out.Verdict.Trusted {
		t.Error("after the end of the exception the worker is still trusted")
	}
	p.Spec.Exceptions[0].Rule = "runtime.everything"
	if _, err := New(p, testReferences(t)); err == nil {
		t.Error("New: want an error for an exception to a rule that does not exist")
	}
}

// TestCapture takes firmware and keys only from what the quotes prove.
func TestCapture(t *testing.T) {
	w, v := newWorker(t), testVerifier(t)
	src, err := v.Capture(w.evidence(), "node worker-1", now, CaptureFirmware, CaptureKeys)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(src.Firmware[0].PCRs["sha256"][0]); n != 4 || len(src.Keys.PK) != 1 || len(src.Keys.DB) != 2 {
		t.Errorf("Capture: got %d events, %+v", n, src.Keys)
	}
	w.bank.Values[7] = make([]byte, 32)
	if _, err := v.Capture(w.evidence(), "node worker-1", now, CaptureKeys); err == nil {
		t.Error("Capture: want an error when PCR 7 does not replay")
	}
	w.log = nil
	if _, err := v.Capture(w.evidence(), "node worker-1", now, CaptureFirmware); err == nil {
		t.Error("Capture: want an error without log")
	}
}
