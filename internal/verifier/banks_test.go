package verifier

import (
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"testing"

	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm"
)

// threeBanks is a worker whose TPM has SHA-1, SHA-256 and SHA-384 banks.
func threeBanks(t *testing.T) (*worker, map[tpm.Alg]*tpm.Bank) {
	t.Helper()
	w := newWorker(t)
	dir := filepath.Join(boots, "corpus", "banks3")
	w.log, w.list, w.bank = read(t, dir, "eventlog.bin"), read(t, dir, "ima.bin"), pcrs(t, dir)
	banks := map[tpm.Alg]*tpm.Bank{tpm.AlgSHA256: &w.bank}
	for _, a := range []tpm.Alg{tpm.AlgSHA1, tpm.AlgSHA384} {
		var m map[int]string
		if err := json.Unmarshal(read(t, dir, "pcrs-sysfs-"+a.String()+".json"), &m); err != nil {
			t.Fatal(err)
		}
		b := &tpm.Bank{Alg: a}
		for i, s := range m {
			b.Values[i], _ = hex.DecodeString(s)
		}
		banks[a] = b
	}
	return w, banks
}

// quoteEach quotes each bank by itself, as TPMs that take one bank at a time do.
func (w *worker) quoteEach(banks map[tpm.Alg]*tpm.Bank, algs ...tpm.Alg) *evidence.Document {
	var doc *evidence.Document
	for _, a := range algs {
		w.clock.Clock++
		msg, sig := w.tpm.Quote(nonce, []*tpm.Bank{banks[a]}, []tpm.Selection{{Alg: a, PCRs: w.selects}}, w.clock)
		values := make(map[int][]byte)
		for _, i := range w.selects.Indices() {
			values[i] = banks[a].Values[i]
		}
		q := evidence.Quote{Message: msg, Signature: sig, PCRs: []evidence.PCRBank{{Alg: a, Values: values}}}
		if doc == nil {
			doc = w.document(msg, sig)
			doc.Quotes[0] = q
			continue
		}
		doc.Quotes = append(doc.Quotes, q)
	}
	return doc
}

// TestSeveralBanks: all quoted banks must tell the same story; one that does not costs trust whichever it is.
func TestSeveralBanks(t *testing.T) {
	v := testVerifier(t)
	all := []tpm.Alg{tpm.AlgSHA1, tpm.AlgSHA256, tpm.AlgSHA384}
	w, banks := threeBanks(t)
	if out := appraise(t, v, w.quoteEach(banks, all...), w.expectation()); statuses(out.Verdict) != "ppppp" {
		t.Errorf("three banks: got %s, want ppppp", statuses(out.Verdict))
	}
	for _, a := range all {
		t.Run("forged "+a.String(), func(t *testing.T) {
			w, banks := threeBanks(t)
			w.forge(func(b *eventlogtest.Builder) { b.Entries[event(t, b, 7, utf16("SecureBoot"))].Digests[a][3] ^= 1 })
			out := appraise(t, v, w.quoteEach(banks, all...), w.expectation())
			if f := find(out.Verdict, "secure-boot.log"); f == nil || out.Verdict.Trusted {
				t.Errorf("digest forged in bank %v: got %s", a, statuses(out.Verdict))
			}
		})
		t.Run("list of another story in "+a.String(), func(t *testing.T) {
			w, banks := threeBanks(t)
			banks[a].Values[imaPCR] = make([]byte, a.Size())
			banks[a].Values[imaPCR][0] = 1
			if out := appraise(t, v, w.quoteEach(banks, all...), w.expectation()); find(out.Verdict, "runtime.list") == nil {
				t.Errorf("PCR 10 of bank %v differs: got %s", a, statuses(out.Verdict))
			}
		})
	}
}

// TestQuotesOfTwoBoots: quotes are taken one after the other; a reboot between them is noticed.
func TestQuotesOfTwoBoots(t *testing.T) {
	w, banks := threeBanks(t)
	doc := w.quoteEach(banks, tpm.AlgSHA256)
	w.clock.ResetCount++
	doc.Quotes = append(doc.Quotes, w.quoteEach(banks, tpm.AlgSHA384).Quotes...)
	refused(t, appraise(t, testVerifier(t), doc, w.expectation()), "different boots")
}
