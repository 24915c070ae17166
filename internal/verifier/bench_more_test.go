package verifier

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/evidence"
)

// BenchmarkSteadyRSA is BenchmarkSteady with the quote of an RSA-2048 key, from the corpus.
func BenchmarkSteadyRSA(b *testing.B) {
	dir := filepath.Join(boots, "corpus", "good")
	doc, err := evidence.Pack(evidence.PackOptions{
		QuoteMsg: []string{filepath.Join(dir, "tpm", "quote-rsa.attest")}, QuoteSig: []string{filepath.Join(dir, "tpm", "quote-rsa.sig")},
		AKPub: filepath.Join(dir, "tpm", "ak-rsa.pub"), Nonce: strings.TrimSpace(string(read(b, dir, "tpm", "nonce.hex"))),
		PCRs: []string{filepath.Join(dir, "pcrs-sha256.json")}, IMA: filepath.Join(dir, "ima.bin"), EventLog: filepath.Join(dir, "eventlog.bin"), Facts: dir,
	})
	if err != nil {
		b.Fatal(err)
	}
	v, exp := testVerifier(b), Expectation{Now: now}
	exp.Checkpoint = mustAppraise(b, v, doc, exp).Checkpoint
	log, facts := doc.EventLog, doc.Facts
	exp.EventLog = func([]byte) ([]byte, error) { return log, nil }
	exp.Facts = func([]byte) (map[string][]byte, error) { return facts, nil }
	doc.IMAOffset, doc.IMA = uint64(len(doc.IMA)), nil
	doc.EventLog, doc.EventLogDigest = nil, exp.Checkpoint.LogDigest
	doc.Facts, doc.FactsDigest = nil, exp.Checkpoint.FactsDigest
	b.ReportAllocs()
	cpu(b, func() { mustAppraise(b, v, doc, exp) })
}

// BenchmarkFirstLargeLog is BenchmarkFirst with a log of 50 kB, as a server with a long grub.cfg writes it.
func BenchmarkFirstLargeLog(b *testing.B) {
	p, refs, w := testPolicy(b), testReferences(b), newWorker(b)
	w.edit(func(log *eventlogtest.Builder) {
		at := slices.IndexFunc(log.Entries, func(e eventlogtest.Entry) bool { return e.PCR == 8 })
		var more []eventlogtest.Entry
		for i := range 380 {
			text := fmt.Sprintf("set menu_entry_%d=a-title-of-some-length", i)
			more = append(more, eventlogtest.Entry{PCR: 8, Type: eventlog.IPLType, Data: []byte("grub_cmd: " + text + "\x00"), Over: []byte(text)})
		}
		log.Entries = slices.Insert(log.Entries, at, more...)
	})
	if len(w.log) < 50_000 {
		b.Fatalf("the log has %d bytes", len(w.log))
	}
	doc, exp := w.evidence(), w.expectation()
	b.ReportAllocs()
	cpu(b, func() {
		v, err := New(p, refs)
		if err != nil {
			b.Fatal(err)
		}
		mustAppraise(b, v, doc, exp)
	})
}
