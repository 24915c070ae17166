package verifier

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

// boots is the golden corpus; its boot `good` is what a worker of these tests starts from.
const boots = "../../test/boots"

var (
	now   = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	nonce = []byte("0123456789abcdef0123456789abcdef")
)

// worker is a machine of its own TPM that booted like `good`: what it logs and what its TPM holds can be changed apart.
type worker struct {
	t       testing.TB
	tpm     *softtpm.TPM
	log     []byte
	list    []byte
	bank    tpm.Bank
	facts   map[string][]byte
	clock   softtpm.Clock
	selects tpm.PCRSet
}

func newWorker(t testing.TB) *worker {
	t.Helper()
	dir := filepath.Join(boots, "corpus", "good")
	w := &worker{t: t, tpm: softtpm.New([]byte(t.Name())), log: read(t, dir, "eventlog.bin"), list: read(t, dir, "ima.bin"), facts: map[string][]byte{},
		clock: softtpm.Clock{Clock: 1000, ResetCount: 7, RestartCount: 0, Safe: true}, selects: tpm.PCRs(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14)}
	w.bank = pcrs(t, dir)
	for _, f := range []string{evidence.FactLockdown, evidence.FactTainted, evidence.FactSigEnforce, evidence.FactCommandLine, evidence.FactModules, evidence.FactVersion} {
		w.facts[f] = read(t, dir, f)
	}
	return w
}

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pcrs reads the SHA-256 values of a boot of the corpus.
func pcrs(t testing.TB, dir string) tpm.Bank {
	t.Helper()
	var m map[int]string
	if err := json.Unmarshal(read(t, dir, "pcrs-sha256.json"), &m); err != nil {
		t.Fatal(err)
	}
	b := tpm.Bank{Alg: tpm.AlgSHA256}
	for i, s := range m {
		b.Values[i], _ = hex.DecodeString(s)
	}
	return b
}

// edit changes log and TPM alike: what the worker measured is what it logs.
func (w *worker) edit(change func(*eventlogtest.Builder)) {
	w.t.Helper()
	b, err := eventlogtest.Open(w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	change(b)
	w.log = b.Bytes()
	ima := w.bank.Values[imaPCR]
	w.bank = b.PCRs(tpm.AlgSHA256)
	w.bank.Values[imaPCR] = ima
}

// forge changes the log and leaves the TPM as it is.
func (w *worker) forge(change func(*eventlogtest.Builder)) {
	w.t.Helper()
	b, err := eventlogtest.Open(w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	change(b)
	w.log = b.Bytes()
}

// evidence quotes and packs.
func (w *worker) evidence() *evidence.Document { return w.quoting(nonce) }

// quoting is evidence with other qualifying data.
func (w *worker) quoting(qualifying []byte) *evidence.Document {
	w.clock.Clock++
	msg, sig := w.tpm.Quote(qualifying, []*tpm.Bank{&w.bank}, []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: w.selects}}, w.clock)
	return w.document(msg, sig)
}

func (w *worker) document(msg, sig []byte) *evidence.Document {
	values := make(map[int][]byte)
	for _, i := range w.selects.Indices() {
		values[i] = w.bank.Values[i]
	}
	return &evidence.Document{Version: evidence.Version, Node: "worker-1", Nonce: nonce, AK: w.tpm.AKArea(), EventLog: w.log, IMA: w.list, Facts: w.facts,
		Quotes: []evidence.Quote{{Message: msg, Signature: sig, PCRs: []evidence.PCRBank{{Alg: tpm.AlgSHA256, Values: values}}}}}
}

func (w *worker) key() *tpm.Public {
	w.t.Helper()
	k, err := tpm.ParsePublic(w.tpm.AKArea())
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

// expectation is AIAS's: the challenge and the enrolled key.
func (w *worker) expectation() Expectation {
	return Expectation{Nonce: nonce, AK: w.key(), Now: now}
}

func testPolicy(t testing.TB) *policy.Policy {
	t.Helper()
	p, err := policy.Parse(read(t, boots, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func testReferences(t testing.TB) *reference.Set {
	t.Helper()
	refs, err := reference.Load(filepath.Join(boots, "references"))
	if err != nil {
		t.Fatal(err)
	}
	return refs
}

func testVerifier(t testing.TB) *Verifier {
	t.Helper()
	v, err := New(testPolicy(t), testReferences(t))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func appraise(t testing.TB, v *Verifier, doc *evidence.Document, exp Expectation) *Outcome {
	t.Helper()
	out, err := v.Appraise(doc, exp)
	if err != nil {
		t.Fatalf("Appraise: %v", err)
	}
	return out
}

// statuses is the verdict in five letters: p, w, u, f.
func statuses(v *appraisal.Verdict) string {
	var b bytes.Buffer
	for i := range v.Levels {
		b.WriteByte(v.Levels[i].Status[0])
	}
	return b.String()
}

// find returns the first finding of a rule that does not pass, or nil.
func find(v *appraisal.Verdict, rule string) *appraisal.Finding {
	for i := range v.Levels {
		for j := range v.Levels[i].Findings {
			if f := &v.Levels[i].Findings[j]; f.Rule == rule && f.Status != appraisal.Pass {
				return f
			}
		}
	}
	return nil
}
