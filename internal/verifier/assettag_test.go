package verifier

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"maps"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

// issuer is an AIAS that signs asset tags for one worker.
type issuer struct {
	t   testing.TB
	key *ecdsa.PrivateKey
	doc assettag.Document
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{t: t, key: key, doc: assettag.Document{
		Node: "worker-1", EK: [32]byte{1}, Serial: 5, Issued: now, Tags: map[string]string{"country": "de", "site": "muc"},
	}}
}

// record signs the document after a change.
func (i *issuer) record(change func(*assettag.Document)) []byte {
	i.t.Helper()
	d := i.doc
	if change != nil {
		change(&d)
	}
	b, err := d.Sign(i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	return b
}

// holding is evidence of a worker whose TPM certifies a record in the index of the agent.
func (w *worker) holding(record []byte) *evidence.Document {
	return w.certifying(w.tpm, softtpm.NVPublic(assettag.DefaultIndex, assettag.Attributes, len(record)), record, nonce)
}

func (w *worker) certifying(t *softtpm.TPM, public, content, nonce []byte) *evidence.Document {
	d := w.evidence()
	msg, sig := t.CertifyNV(public, content, nonce, w.clock)
	d.AssetTag = &evidence.NVCertificate{Public: public, Message: msg, Signature: sig}
	return d
}

func TestAssetTag(t *testing.T) {
	v, i := testVerifier(t), newIssuer(t)
	newest := i.record(nil)
	older := i.record(func(d *assettag.Document) { d.Serial = 4; d.Tags = map[string]string{"country": "de", "site": "fra"} })
	oldest := i.record(func(d *assettag.Document) { d.Serial = 3 })
	otherTPM := i.record(func(d *assettag.Document) { d.EK = [32]byte{2} })
	otherNode := i.record(func(d *assettag.Document) { d.Node = "worker-2" })
	ahead := i.record(func(d *assettag.Document) { d.Serial = 6 })
	twin := i.record(nil) // the same words signed again: only the newest bytes count
	foreign, err := i.doc.Sign(newIssuer(t).key)
	if err != nil {
		t.Fatal(err)
	}
	index := func(number, attributes uint32) []byte { return softtpm.NVPublic(number, attributes, assettag.Size) }
	good := index(assettag.DefaultIndex, assettag.Attributes)
	both := map[string]string{"country": "de", "site": "muc"}
	for _, tt := range []struct {
		name  string
		doc   func(w *worker) *evidence.Document
		want  func(*AssetTag) // changes what AIAS knows
		state claims.TagState
		level appraisal.Status
		tags  map[string]string
	}{
		{"newest", func(w *worker) *evidence.Document { return w.holding(newest) }, nil, claims.TagProven, appraisal.Pass, both},
		{"newest, not told yet", func(w *worker) *evidence.Document { return w.holding(newest) }, func(t *AssetTag) { t.Told = false }, claims.TagProven, appraisal.Pass, both},
		{"newest in another index of the owner", func(w *worker) *evidence.Document {
			return w.certifying(w.tpm, index(assettag.LastIndex, assettag.Attributes), newest, nonce)
		}, nil, claims.TagProven, appraisal.Pass, both},
		{"none", (*worker).evidence, nil, claims.TagAbsent, appraisal.Warn, nil},
		{"none for long", (*worker).evidence, func(t *AssetTag) { t.Overdue = true }, claims.TagOverdue, appraisal.Fail, nil},
		{"none, not told yet", (*worker).evidence, func(t *AssetTag) { t.Told, t.Overdue = false, true }, claims.TagNotTold, appraisal.Pass, nil},
		{"rolled back", func(w *worker) *evidence.Document { return w.holding(older) }, nil, claims.TagOld, appraisal.Fail, nil},
		{"earlier, not told yet", func(w *worker) *evidence.Document { return w.holding(older) }, func(t *AssetTag) { t.Told = false }, claims.TagNotTold, appraisal.Pass, map[string]string{"country": "de"}},
		{"rolled back, not told yet", func(w *worker) *evidence.Document { return w.holding(oldest) }, func(t *AssetTag) { t.Told = false }, claims.TagNotTold, appraisal.Pass, nil},
		{"copied from another TPM", func(w *worker) *evidence.Document { return w.holding(otherTPM) }, nil, claims.TagCopied, appraisal.Fail, nil},
		{"copied from another TPM, not told yet", func(w *worker) *evidence.Document { return w.holding(otherTPM) }, func(t *AssetTag) { t.Told = false }, claims.TagCopied, appraisal.Fail, nil},
		{"of another name of this TPM", func(w *worker) *evidence.Document { return w.holding(otherNode) }, nil, claims.TagCopied, appraisal.Fail, nil},
		{"newer than AIAS knows", func(w *worker) *evidence.Document { return w.holding(ahead) }, nil, claims.TagAhead, appraisal.Fail, nil},
		{"same serial, other bytes", func(w *worker) *evidence.Document { return w.holding(twin) }, nil, claims.TagAhead, appraisal.Fail, nil},
		{"signed by another AIAS", func(w *worker) *evidence.Document { return w.holding(foreign) }, nil, claims.TagForged, appraisal.Fail, nil},
		{"altered", func(w *worker) *evidence.Document {
			b := bytes.Clone(older)
			b[15]++ // serial
			return w.holding(b)
		}, nil, claims.TagForged, appraisal.Fail, nil},
		{"zeros", func(w *worker) *evidence.Document { return w.holding(make([]byte, assettag.Size)) }, nil, claims.TagForged, appraisal.Fail, nil},
		{"old certificate", func(w *worker) *evidence.Document {
			return w.certifying(w.tpm, good, newest, []byte("nonce of yesterday"))
		}, nil, claims.TagUncertified, appraisal.Fail, nil},
		{"certified by another TPM", func(w *worker) *evidence.Document {
			return w.certifying(softtpm.New([]byte("other")), good, newest, nonce)
		}, nil, claims.TagUncertified, appraisal.Fail, nil},
		{"certified by another key of this TPM", func(w *worker) *evidence.Document {
			return w.certifying(w.tpm.WithOtherAK([]byte("other")), good, newest, nonce)
		}, nil, claims.TagUncertified, appraisal.Fail, nil},
		{"certificate of another index", func(w *worker) *evidence.Document {
			d := w.certifying(w.tpm, index(assettag.DefaultIndex+1, assettag.Attributes|1<<2), newest, nonce)
			d.AssetTag.Public = good
			return d
		}, nil, claims.TagUncertified, appraisal.Fail, nil},
		{"a quote instead", func(w *worker) *evidence.Document {
			d := w.evidence()
			d.AssetTag = &evidence.NVCertificate{Public: good, Message: d.Quotes[0].Message, Signature: d.Quotes[0].Signature}
			return d
		}, nil, claims.TagUncertified, appraisal.Fail, nil},
		{"index that others may write", func(w *worker) *evidence.Document {
			return w.certifying(w.tpm, index(assettag.DefaultIndex, assettag.Attributes|1<<2), newest, nonce)
		}, nil, claims.TagIndex, appraisal.Fail, nil},
		{"index of the platform", func(w *worker) *evidence.Document {
			return w.certifying(w.tpm, index(0x01400001, assettag.Attributes), newest, nonce)
		}, nil, claims.TagIndex, appraisal.Fail, nil},
		{"garbage", func(w *worker) *evidence.Document {
			d := w.evidence()
			d.AssetTag = &evidence.NVCertificate{Public: []byte{1}, Message: []byte{2}, Signature: []byte{3}}
			return d
		}, nil, claims.TagUncertified, appraisal.Fail, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorker(t)
			exp := w.expectation()
			exp.AssetTag = &AssetTag{
				Node: "worker-1", EK: [32]byte{1}, Key: &i.key.PublicKey, Serial: 5, Record: newest, Tags: both, Told: true,
				Earlier: older, EarlierTags: map[string]string{"country": "de"},
			}
			if tt.want != nil {
				tt.want(exp.AssetTag)
			}
			out := appraise(t, v, tt.doc(w), exp)
			if out.AssetTag.State != tt.state || !maps.Equal(out.AssetTag.Tags, tt.tags) {
				t.Errorf("AssetTag: got %+v, want %s with %v", out.AssetTag, tt.state, tt.tags)
			}
			if got := out.Verdict.Levels[4].Status; got != tt.level || out.Verdict.Trusted != (tt.level != appraisal.Fail) {
				t.Errorf("level 5: got %s, trusted %v, want %s", got, out.Verdict.Trusted, tt.level)
			}
			if f := find(out.Verdict, "runtime.asset-tag"); tt.level != appraisal.Pass && (f == nil || f.Expected == "" || f.Observed == "" || f.Cause == "" || f.Remedy == "") {
				t.Errorf("finding: got %+v, want expected, observed, cause and remedy", f)
			}
		})
	}
}

// Verdicts are kept by what they depend on: what one certificate proved must not stand for another.
func TestAssetTagIsNoPartOfWhatIsKept(t *testing.T) {
	v, i, w := testVerifier(t), newIssuer(t), newWorker(t)
	exp := w.expectation()
	newest := i.record(nil)
	exp.AssetTag = &AssetTag{Node: "worker-1", EK: [32]byte{1}, Key: &i.key.PublicKey, Serial: 5, Record: newest, Tags: i.doc.Tags, Told: true}
	for _, doc := range []*evidence.Document{w.holding(newest), w.evidence(), w.holding(make([]byte, assettag.Size)), w.holding(newest)} {
		fresh := appraise(t, testVerifier(t), doc, exp)
		kept := appraise(t, v, doc, exp)
		if fresh.Verdict.Levels[4].Status != kept.Verdict.Levels[4].Status || fresh.AssetTag.State != kept.AssetTag.State {
			t.Errorf("kept verdict: got %s (%s), want %s (%s)", kept.Verdict.Levels[4].Status, kept.AssetTag.State, fresh.Verdict.Levels[4].Status, fresh.AssetTag.State)
		}
	}
}

// Where nothing was issued, what a worker certifies is no matter of AIAS; offline it is shown.
func TestAssetTagNotIssued(t *testing.T) {
	v, i, w := testVerifier(t), newIssuer(t), newWorker(t)
	doc := w.holding(i.record(nil))
	if out := appraise(t, v, doc, w.expectation()); out.AssetTag.State != claims.TagNone || !out.Verdict.Trusted {
		t.Errorf("certificate that nobody asked for: got %+v, trusted %v, want nothing and trusted", out.AssetTag, out.Verdict.Trusted)
	}
	out := appraise(t, v, doc, Expectation{Now: time.Now()})
	if out.AssetTag.State != claims.TagShown || !strings.Contains(out.AssetTag.Observed, "serial 5") || len(out.AssetTag.Tags) != 0 {
		t.Errorf("offline: got %+v, want it shown, with no tags", out.AssetTag)
	}
	doc.AssetTag.Message = append(bytes.Clone(doc.AssetTag.Message), 0)
	if out := appraise(t, v, doc, Expectation{Now: time.Now()}); out.AssetTag.State != claims.TagUncertified || out.Verdict.Levels[4].Status != appraisal.Fail {
		t.Errorf("offline, damaged: got %+v, %s, want level 5 to fail", out.AssetTag, out.Verdict.Levels[4].Status)
	}
}
