package verifier

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

// refused checks that nothing of the Evidence counted, on any level, and that the message tells why.
func refused(t *testing.T, out *Outcome, message string) {
	t.Helper()
	if out.Authentic || out.Verdict.Trusted {
		t.Fatalf("Appraise: authentic %v, trusted %v; want neither", out.Authentic, out.Verdict.Trusted)
	}
	if got := statuses(out.Verdict); got != "fffff" {
		t.Errorf("levels: got %s, want fffff", got)
	}
	f := find(out.Verdict, appraisal.RuleEvidence)
	if f == nil || !strings.Contains(f.Message, message) {
		t.Fatalf("finding: got %+v, want a message with %q", f, message)
	}
	if f.Expected == "" || f.Cause == "" || f.Remedy == "" {
		t.Errorf("finding: got %+v, want expected, cause and remedy", f)
	}
}

func TestGoodIsTrusted(t *testing.T) {
	w := newWorker(t)
	out := appraise(t, testVerifier(t), w.evidence(), w.expectation())
	if got := statuses(out.Verdict); got != "ppppp" || !out.Verdict.Trusted || !out.Authentic {
		t.Fatalf("Appraise(good): got %s, trusted %v, want ppppp: %+v", got, out.Verdict.Trusted, out.Verdict)
	}
}

// A restricted key signs data only when they do not look like a TPM's own structure: so the magic is what tells a quote from data.
func TestForgedMagic(t *testing.T) {
	w := newWorker(t)
	msg, _ := w.tpm.Quote(nonce, []*tpm.Bank{&w.bank}, []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: w.selects}}, w.clock)
	msg = softtpm.WithMagic(msg, 0)
	refused(t, appraise(t, testVerifier(t), w.document(msg, w.tpm.Sign(msg)), w.expectation()), "magic")
}

func TestWrongType(t *testing.T) {
	w := newWorker(t)
	msg, _ := w.tpm.Quote(nonce, []*tpm.Bank{&w.bank}, []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: w.selects}}, w.clock)
	for name, tag := range map[string]uint16{"certify": 0x8017, "time": 0x8019, "none": 0} {
		t.Run(name, func(t *testing.T) {
			m := softtpm.WithType(bytes.Clone(msg), tag)
			refused(t, appraise(t, testVerifier(t), w.document(m, w.tpm.Sign(m)), w.expectation()), "not a quote")
		})
	}
}

func TestNonce(t *testing.T) {
	w := newWorker(t)
	doc := w.evidence()
	for name, want := range map[string][]byte{
		"of another node":     []byte("another node's challenge 16 byte"),
		"other letter case":   bytes.ToUpper(nonce),
		"longer":              append(bytes.Clone(nonce), 0),
		"shorter":             nonce[:31],
		"invalid UTF-8 alike": bytes.Repeat([]byte{0xff}, 32),
	} {
		t.Run(name, func(t *testing.T) {
			exp := w.expectation()
			exp.Nonce = want
			refused(t, appraise(t, testVerifier(t), doc, exp), "another challenge")
		})
	}
}

func TestOfflineNeedsNonce(t *testing.T) {
	w := newWorker(t)
	doc := w.evidence()
	doc.Nonce = nil
	refused(t, appraise(t, testVerifier(t), doc, Expectation{Now: now}), "no nonce")
}

func TestKeyOfAnotherTPM(t *testing.T) {
	w := newWorker(t)
	exp := w.expectation()
	other, err := tpm.ParsePublic(softtpm.New([]byte("other")).AKArea())
	if err != nil {
		t.Fatal(err)
	}
	exp.AK = other
	refused(t, appraise(t, testVerifier(t), w.evidence(), exp), "not by the attestation key")
}

// Attributes are a big-endian word at offset 4 of TPMT_PUBLIC: fixedTPM is bit 1, restricted bit 16.
func TestKeyThatSignsAnything(t *testing.T) {
	for name, clear := range map[string]func([]byte){
		"not restricted": func(a []byte) { a[5] &^= 0x01 },
		"not fixedTPM":   func(a []byte) { a[7] &^= 0x02 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorker(t)
			doc := w.evidence()
			doc.AK = bytes.Clone(doc.AK)
			clear(doc.AK)
			refused(t, appraise(t, testVerifier(t), doc, Expectation{Now: now}), "no attestation key")
		})
	}
}

func TestAlteredValues(t *testing.T) {
	w := newWorker(t)
	doc := w.evidence()
	doc.Quotes[0].PCRs[0].Values[7] = bytes.Repeat([]byte{1}, 32)
	refused(t, appraise(t, testVerifier(t), doc, w.expectation()), "not the quoted ones")
	doc = w.evidence()
	delete(doc.Quotes[0].PCRs[0].Values, 7)
	refused(t, appraise(t, testVerifier(t), doc, w.expectation()), "missing")
}

func TestCountersGoForward(t *testing.T) {
	for name, change := range map[string]func(*worker){
		"reset count":   func(w *worker) { w.clock.ResetCount-- },
		"restart count": func(w *worker) { w.clock.RestartCount-- },
		"clock":         func(w *worker) { w.clock.Clock -= 100 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorker(t)
			w.clock.RestartCount = 3
			v := testVerifier(t)
			exp := w.expectation()
			exp.Checkpoint = appraise(t, v, w.evidence(), exp).Checkpoint
			change(w)
			out := appraise(t, v, w.evidence(), exp)
			refused(t, out, strings.ReplaceAll(name, "-", " ")+" went backwards")
			if out.Checkpoint != exp.Checkpoint {
				t.Error("Checkpoint moved on Evidence that was refused")
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	w := newWorker(t)
	v := testVerifier(t)
	for name, change := range map[string]func(*evidence.Document){
		"no quote":      func(d *evidence.Document) { d.Quotes = nil },
		"signature cut": func(d *evidence.Document) { d.Quotes[0].Signature = d.Quotes[0].Signature[:9] },
		"key cut":       func(d *evidence.Document) { d.AK = d.AK[:20] },
		"digest of 31":  func(d *evidence.Document) { d.Quotes[0].PCRs[0].Values[0] = make([]byte, 31) },
		"PCR 24":        func(d *evidence.Document) { d.Quotes[0].PCRs[0].Values[24] = make([]byte, 32) },
		"bank twice":    func(d *evidence.Document) { d.Quotes[0].PCRs = append(d.Quotes[0].PCRs, d.Quotes[0].PCRs[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			doc := w.evidence()
			change(doc)
			if out, err := v.Appraise(doc, Expectation{Now: now}); !errors.Is(err, ErrMalformed) {
				t.Errorf("Appraise: got %+v, %v, want %v", out, err, ErrMalformed)
			}
		})
	}
}
