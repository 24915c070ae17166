package authority

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/verifier"
)

const boots = "../../test/boots"

func bootFile(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{boots}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// realWorld is a world with the real verifier, and the policy and references of the corpus of measured boots.
func realWorld(t testing.TB) *world {
	return newWorld(t, func(w *world) { w.loader = corpusLoader(t, w) })
}

func corpusLoader(t testing.TB, w *world) Loader {
	load := LoadFrom(filepath.Join(boots, "references"))
	policy := bootFile(t, "policy.yaml")
	return func([]byte) (*Snapshot, error) {
		s, err := load(policy)
		if err == nil {
			s.Roots, s.Links = w.roots, append(s.Links, w.maker.Issuer)
		}
		return s, err
	}
}

// booted makes m a machine that booted like one of the corpus.
func (m *machine) booted(boot string) *tpm.Bank {
	t := m.w.t
	t.Helper()
	m.log, m.list = bootFile(t, "corpus", boot, "eventlog.bin"), bootFile(t, "corpus", boot, "ima.bin")
	m.facts = map[string][]byte{}
	for _, f := range []string{
		evidence.FactLockdown, evidence.FactTainted, evidence.FactSigEnforce, evidence.FactCommandLine, evidence.FactModules, evidence.FactVersion,
	} {
		m.facts[f] = bootFile(t, "corpus", boot, f)
	}
	var values map[int]string
	if err := json.Unmarshal(bootFile(t, "corpus", boot, "pcrs-sha256.json"), &values); err != nil {
		t.Fatal(err)
	}
	bank := &tpm.Bank{Alg: tpm.AlgSHA256}
	for i, v := range values {
		bank.Values[i], _ = hex.DecodeString(v)
	}
	return bank
}

// quoted is document with a quote of what the challenge asks for.
func (m *machine) quoted(c protocol.Challenge, bank *tpm.Bank) *evidence.Document {
	d := m.document(c)
	var set tpm.PCRSet
	for _, s := range c.Quote {
		if s.Bank == "sha256" {
			set = tpm.PCRs(s.PCRs...)
		}
	}
	values := map[int][]byte{}
	for _, i := range set.Indices() {
		values[i] = bank.Values[i]
	}
	if m.states != nil || m.scans != nil {
		st := &evidence.Statement{}
		if m.states != nil {
			st = m.states()
		}
		if st.Compliance == nil {
			st.Compliance = m.scans
		}
		var err error
		if d.Statement, err = evidence.EncodeStatement(st); err != nil {
			m.w.t.Fatal(err)
		}
	}
	msg, sig := m.tpm.Quote(evidence.Qualify(c.Nonce, d.Statement), []*tpm.Bank{bank}, []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: set}}, m.clock)
	d.Quotes = []evidence.Quote{{Message: msg, Signature: sig, PCRs: []evidence.PCRBank{{Alg: tpm.AlgSHA256, Values: values}}}}
	return d
}

func TestRealBoot(t *testing.T) {
	w := realWorld(t)
	m := w.enrolled("worker-1")
	bank := m.booted("good")
	for i := range 3 { // whole, then twice with nothing but a quote
		d := m.quoted(m.next, bank)
		if small := len(d.EventLog)+len(d.IMA) == 0; small != (i > 0) {
			t.Errorf("evidence %d: %d bytes of log, %d of list", i, len(d.EventLog), len(d.IMA))
		}
		a, err := m.send(d)
		if err != nil || !a.Trusted {
			t.Fatalf("evidence %d of a good boot: got %+v, %v; want trusted", i, a, err)
		}
	}
	w.restart()
	m.connect()
	if a, err := m.send(m.quoted(m.next, bank)); err != nil || !a.Trusted {
		t.Fatalf("evidence after a restart: got %+v, %v; want trusted", a, err)
	}
}

func TestRealFallIsReplayable(t *testing.T) {
	w := realWorld(t)
	m := w.enrolled("worker-1")
	if a, err := m.send(m.quoted(m.next, m.booted("good"))); err != nil || !a.Trusted {
		t.Fatalf("good boot: got %+v, %v; want trusted", a, err)
	}
	m.clock.ResetCount++
	bank := m.booted("cmdline")
	a, err := m.send(m.quoted(m.next, bank))
	if err != nil || a.Trusted || a.Levels[3].Status != string(appraisal.Fail) {
		t.Fatalf("boot with another command line: got %+v, %v; want level 4 to fail", a, err)
	}
	b, err := w.admin.Evidence(t.Context(), "worker-1", operator.FirstBad)
	if err != nil {
		t.Fatal(err)
	}
	d, err := evidence.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.snapshot.Load().Appraiser.Appraise(d, verifier.Expectation{Now: w.clock.Now()})
	if err != nil || out.Verdict.Trusted || out.Verdict.Levels[3].Status != appraisal.Fail {
		t.Errorf("kept evidence judged offline: got %+v, %v; want level 4 to fail", out, err)
	}
}
