package boots

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/verifier"
)

// expected is what a boot's expected.json says: for each level "pass", "fail", "not-pass" (fail or unknown) or "any".
type expected struct {
	Levels  map[string]string `json:"levels"`
	Trusted bool              `json:"trusted"`
	After   *expected         `json:"after"`
}

func newVerifier(t testing.TB) *verifier.Verifier {
	t.Helper()
	raw, err := os.ReadFile("policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	refs, err := reference.Load("references")
	if err != nil {
		t.Fatal(err)
	}
	v, err := verifier.New(p, refs)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// pack makes the Evidence of a boot folder; after takes the second quote and list.
func pack(t testing.TB, dir, key string, after bool) *evidence.Document {
	t.Helper()
	nonce, err := os.ReadFile(filepath.Join(dir, "tpm", "nonce.hex"))
	if err != nil {
		t.Fatal(err)
	}
	second := dir
	if after {
		second = filepath.Join(dir, "after")
	}
	o := evidence.PackOptions{
		QuoteMsg: []string{filepath.Join(second, "tpm", "quote-"+key+".attest")}, QuoteSig: []string{filepath.Join(second, "tpm", "quote-"+key+".sig")},
		AKPub: filepath.Join(dir, "tpm", "ak-"+key+".pub"), Nonce: strings.TrimSpace(string(nonce)), PCRs: []string{filepath.Join(second, "pcrs-sha256.json")},
		IMA: filepath.Join(second, "ima.bin"), Facts: dir,
	}
	if cert := filepath.Join(dir, "tpm", "nv-01c00002.der"); exists(cert) {
		o.EKCert = []string{cert}
	}
	if log := filepath.Join(dir, "eventlog.bin"); exists(log) {
		o.EventLog = log
	}
	doc, err := evidence.Pack(o)
	if err != nil {
		t.Fatal(err)
	}
	if after {
		for _, f := range []string{evidence.FactModules, evidence.FactTainted} {
			if doc.Facts[f], err = os.ReadFile(filepath.Join(second, f)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return doc
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestCorpus appraises every boot of the corpus, level by level, with both keys.
func TestCorpus(t *testing.T) {
	v := newVerifier(t)
	dirs, err := filepath.Glob("corpus/*/expected.json")
	if err != nil || len(dirs) < 25 {
		t.Fatalf("corpus has %d boots (%v), want 25", len(dirs), err)
	}
	for _, file := range dirs {
		dir := filepath.Dir(file)
		var want expected
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"ecc", "rsa"} {
			t.Run(filepath.Base(dir)+"/"+key, func(t *testing.T) {
				judge(t, v, pack(t, dir, key, false), &want)
				if want.After != nil {
					judge(t, v, pack(t, dir, key, true), want.After)
				}
			})
		}
	}
}

func judge(t *testing.T, v *verifier.Verifier, doc *evidence.Document, want *expected) {
	t.Helper()
	b, err := doc.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if doc, err = evidence.Decode(b); err != nil {
		t.Fatal(err)
	}
	out, err := v.Appraise(doc, verifier.Expectation{Now: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	bad := out.Verdict.Trusted != want.Trusted
	for i := range out.Verdict.Levels {
		l := &out.Verdict.Levels[i]
		bad = bad || !agrees(l.Status, want.Levels[string(rune('1'+i))])
	}
	if bad {
		got, _ := json.MarshalIndent(out.Verdict, "", " ")
		t.Errorf("Appraise: got %s\nwant %+v", got, want)
	}
}

func agrees(got appraisal.Status, want string) bool {
	switch want {
	case "any":
		return true
	case "not-pass":
		return got == appraisal.Fail || got == appraisal.Unknown
	}
	return string(got) == want
}
