package verifier

import (
	"fmt"
	"syscall"
	"testing"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/ima/imatest"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/tpm"
)

// cpu reports CPU time an operation, which other load on the machine changes less than wall time.
func cpu(b *testing.B, run func()) {
	b.Helper()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	for b.Loop() {
		run()
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	ns := func(t syscall.Timeval) int64 { return t.Sec*1e9 + t.Usec*1e3 }
	b.ReportMetric(float64(ns(after.Utime)-ns(before.Utime))/float64(b.N), "cpu-ns/op")
}

func mustAppraise(b *testing.B, v *Verifier, doc *evidence.Document, exp Expectation) *Outcome {
	b.Helper()
	out, err := v.Appraise(doc, exp)
	if err != nil || !out.Authentic {
		b.Fatalf("Appraise: %+v, %v", out, err)
	}
	return out
}

// many are references of n more files, whose digests are those of imatest.Builder.Files.
func many(b *testing.B, n int) *reference.Set {
	b.Helper()
	sources, err := reference.ReadSources(boots + "/references")
	if err != nil {
		b.Fatal(err)
	}
	more := reference.Source{Kind: reference.KindFiles, Name: "many", File: "many", SHA256: fmt.Sprintf("%064d", n)}
	for i := range n {
		more.Files = append(more.Files, reference.File{Path: fmt.Sprintf("/usr/bin/%d", i), SHA256: fmt.Sprintf("%x", imatest.Digest(i))})
	}
	set, err := reference.Compile(append(sources, more))
	if err != nil {
		b.Fatal(err)
	}
	return set
}

// BenchmarkSteady is an attestation in which nothing is new: quote, PCR digest, counters, verdict from what is kept. Its cost must not depend on
// the number of references.
func BenchmarkSteady(b *testing.B) {
	for _, n := range []int{1000, 200_000} {
		b.Run(fmt.Sprintf("%d-references", n), func(b *testing.B) {
			v, err := New(testPolicy(b), many(b, n))
			if err != nil {
				b.Fatal(err)
			}
			w := newWorker(b)
			exp := w.expectation()
			exp.Checkpoint = mustAppraise(b, v, w.evidence(), exp).Checkpoint
			exp.EventLog = func([]byte) ([]byte, error) { return w.log, nil }
			exp.Facts = func([]byte) (map[string][]byte, error) { return w.facts, nil }
			doc := w.evidence()
			doc.IMA, doc.IMAOffset = nil, uint64(len(w.list))
			doc.EventLog, doc.EventLogDigest = nil, exp.Checkpoint.LogDigest
			doc.Facts, doc.FactsDigest = nil, exp.Checkpoint.FactsDigest
			b.ReportAllocs()
			cpu(b, func() { mustAppraise(b, v, doc, exp) })
		})
	}
}

// BenchmarkFirst is the first attestation of a worker: whole logs, nothing kept.
func BenchmarkFirst(b *testing.B) {
	p, refs, w := testPolicy(b), testReferences(b), newWorker(b)
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

// BenchmarkNewEntries is an attestation with 10,000 new entries of the IMA list, each looked up among 200,000 known files.
func BenchmarkNewEntries(b *testing.B) {
	const n = 10_000
	v, err := New(testPolicy(b), many(b, 200_000))
	if err != nil {
		b.Fatal(err)
	}
	w := newWorker(b)
	list := imatest.New().Files(n)
	w.list, w.bank.Values[imaPCR] = list.Bytes(), list.PCRs()[tpm.AlgSHA256]
	doc, exp := w.evidence(), w.expectation()
	b.ReportAllocs()
	cpu(b, func() { mustAppraise(b, v, doc, exp) })
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/entry")
}

// FuzzAppraise feeds what decodes to the verifier: it never panics, and never trusts what it cannot authenticate.
func FuzzAppraise(f *testing.F) {
	w := newWorker(f)
	doc := w.evidence()
	doc.EventLog, doc.IMA, doc.Facts = doc.EventLog[:600], doc.IMA[:200], nil // small seeds mutate better
	seed, err := doc.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	v := testVerifier(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := evidence.Decode(b)
		if err != nil {
			return
		}
		out, err := v.Appraise(doc, Expectation{Now: now})
		if err == nil && !out.Authentic && out.Verdict.Trusted {
			t.Error("Appraise trusts Evidence that is not authentic")
		}
	})
}
