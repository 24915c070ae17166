package authority

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

// tagMachine is a machine that booted well, with an NV index for its asset tag.
type tagMachine struct {
	*machine
	bank *tpm.Bank
	nv   []byte // what the index holds; nil: it was never written
}

func (w *world) tagMachine(name string) *tagMachine {
	w.t.Helper()
	m := &tagMachine{machine: w.enrolled(name)}
	m.bank = m.booted("good")
	return m
}

// answer writes the index as an agent does, unless the tag was proven before, and makes the Evidence.
func (m *tagMachine) answer() *evidence.Document {
	if t := m.next.AssetTag; t != nil && len(t.Record) > 0 && !t.Proven {
		m.nv = t.Record
	}
	return m.bare()
}

// bare is Evidence with whatever the index holds.
func (m *tagMachine) bare() *evidence.Document {
	d := m.quoted(m.next, m.bank)
	if m.next.AssetTag != nil && m.nv != nil {
		public := softtpm.NVPublic(assettag.DefaultIndex, assettag.Attributes, len(m.nv))
		d.AssetTag = &evidence.NVCertificate{Public: public}
		d.AssetTag.Message, d.AssetTag.Signature = m.tpm.CertifyNV(public, m.nv, m.next.Nonce, m.clock)
	}
	return d
}

// judged sends Evidence and returns the verified result.
func (m *tagMachine) judged(d *evidence.Document) *result.Result {
	m.w.t.Helper()
	a, err := m.send(d)
	if err != nil {
		m.w.t.Fatalf("attest %s: %v", m.name, err)
	}
	return m.verified(a.Result)
}

func (m *tagMachine) verified(token string) *result.Result {
	m.w.t.Helper()
	jwks, err := m.w.admin.JWKS(context.Background())
	if err != nil {
		m.w.t.Fatal(err)
	}
	r, err := result.Verify(token, jwks, result.Expectation{Node: m.name, Now: m.w.clock.Now()})
	if err != nil {
		m.w.t.Fatalf("result.Verify: %v", err)
	}
	return r
}

// stored is the result that AIAS has of the machine.
func (m *tagMachine) stored() *result.Result {
	m.w.t.Helper()
	r, err := m.w.admin.Result(context.Background(), m.name)
	if err != nil {
		m.w.t.Fatal(err)
	}
	return m.verified(r.Result)
}

func (m *tagMachine) set(tags map[string]string) *protocol.TagState {
	m.w.t.Helper()
	s, err := m.w.admin.SetTags(context.Background(), m.name, tags)
	if err != nil {
		m.w.t.Fatalf("SetTags(%s, %v): %v", m.name, tags, err)
	}
	return s
}

func (m *tagMachine) state() *protocol.TagState {
	m.w.t.Helper()
	s, err := m.w.admin.Tags(context.Background(), m.name)
	if err != nil {
		m.w.t.Fatal(err)
	}
	return s
}

func wantTags(t testing.TB, when string, got, want map[string]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s: result has tags %v, want %v", when, got, want)
	}
}

var (
	munich = map[string]string{"country": "de", "site": "muc"}
	berlin = map[string]string{"country": "de", "site": "ber", "owner": "team-a"}
	common = map[string]string{"country": "de"}
)

func TestTagsFromSetToProven(t *testing.T) {
	w := realWorld(t)
	m := w.tagMachine("worker-1")
	wantTags(t, "before any", m.judged(m.answer()).Tags, nil)
	if s := m.state(); s.Serial != 0 || s.Proven || len(s.Tags) != 0 {
		t.Errorf("Tags before any: got %+v", s)
	}
	if m.next.AssetTag != nil {
		t.Errorf("challenge of a node without tags: got %+v, want none", m.next.AssetTag)
	}

	if s := m.set(munich); s.Serial != 1 || s.Proven || s.Reason == "" {
		t.Errorf("SetTags: got %+v, want serial 1, not proven, with a reason", s)
	}
	wantTags(t, "set, the challenge is older", m.judged(m.answer()).Tags, nil)
	r := m.judged(m.answer())
	wantTags(t, "told and written", r.Tags, munich)
	if !r.Trusted || r.Levels[4].Status != appraisal.Pass {
		t.Errorf("result with tags: got trusted %v, level 5 %s", r.Trusted, r.Levels[4].Status)
	}
	if s := m.state(); !s.Proven || s.Reason != "" {
		t.Errorf("Tags: got %+v, want proven", s)
	}
	if n := m.node(); !n.TagsProven || !maps.Equal(n.Tags, munich) || n.TagSerial != 1 {
		t.Errorf("Node: got tags %v, proven %v, serial %d", n.Tags, n.TagsProven, n.TagSerial)
	}
	wantTags(t, "steady", m.judged(m.answer()).Tags, munich)

	if s := m.set(munich); s.Serial != 1 || !s.Proven {
		t.Errorf("SetTags with the same: got %+v, want nothing changed", s)
	}
	m.set(berlin)
	wantTags(t, "changed: what did not change stays", m.stored().Tags, common)
	wantTags(t, "changed, the challenge is older", m.judged(m.answer()).Tags, common)
	wantTags(t, "changed and written", m.judged(m.answer()).Tags, berlin)

	w.restart()
	m.connect()
	wantTags(t, "after a restart", m.judged(m.answer()).Tags, berlin)
	if _, err := w.admin.ClearTags(context.Background(), m.name); err != nil {
		t.Fatal(err)
	}
	wantTags(t, "cleared", m.stored().Tags, nil)
	wantTags(t, "cleared, next evidence", m.judged(m.answer()).Tags, nil)
	if a := m.next.AssetTag; a == nil || a.Serial != 3 || len(a.Record) != 0 {
		t.Errorf("challenge after clear: got %+v, want serial 3 and no record", a)
	}
	acts, err := w.admin.Acts(context.Background(), 10)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range acts {
		if strings.HasPrefix(a.Act, "tags.") {
			got = append(got, a.Act+" "+a.Object+" "+a.Detail)
		}
	}
	want := "tags.clear worker-1 |tags.set worker-1 country=de, owner=team-a, site=ber|tags.set worker-1 country=de, site=muc"
	if strings.Join(got, "|") != want {
		t.Errorf("acts: got %q, want %q", strings.Join(got, "|"), want)
	}
}

// TestTagsWrong: two enrolled machines; one shows a wrong tag, falls on level 5 with a finding, and recovers when its agent has mended it.
func TestTagsWrong(t *testing.T) {
	w := realWorld(t)
	other := w.tagMachine("worker-2")
	other.set(munich)
	other.judged(other.answer())
	other.judged(other.answer())
	if other.nv == nil {
		t.Fatal("worker-2 has no tag")
	}
	for name, wrong := range map[string]struct {
		show func(m *tagMachine, first []byte) *evidence.Document
		has  string
	}{
		"copied":      {func(m *tagMachine, _ []byte) *evidence.Document { m.nv = other.nv; return m.bare() }, "issued for another worker"},
		"rolled back": {func(m *tagMachine, first []byte) *evidence.Document { m.nv = first; return m.bare() }, "an old one of this worker"},
		"overwritten": {func(m *tagMachine, _ []byte) *evidence.Document { m.nv = make([]byte, assettag.Size); return m.bare() }, "not signed by this AIAS"},
		"old certificate": {func(m *tagMachine, _ []byte) *evidence.Document {
			d := m.bare()
			d.AssetTag.Message, d.AssetTag.Signature = m.tpm.CertifyNV(d.AssetTag.Public, m.nv, []byte("an old nonce"), m.clock)
			return d
		}, "not by this TPM for this challenge"},
		"certificate of another chip": {func(m *tagMachine, _ []byte) *evidence.Document {
			d := m.bare()
			d.AssetTag.Message, d.AssetTag.Signature = other.tpm.CertifyNV(d.AssetTag.Public, m.nv, m.next.Nonce, m.clock)
			return d
		}, "not by this TPM for this challenge"},
	} {
		t.Run(name, func(t *testing.T) {
			m := w.tagMachine("worker-" + strings.ReplaceAll(name, " ", "-"))
			m.set(munich)
			m.judged(m.answer())
			m.judged(m.answer())
			first := m.nv
			m.set(berlin)
			m.judged(m.answer())
			wantTags(t, "before", m.judged(m.answer()).Tags, berlin)

			r := m.judged(wrong.show(m, first))
			if r.Trusted || r.Levels[4].Status != appraisal.Fail || !strings.Contains(r.Levels[4].Reason, wrong.has) {
				t.Errorf("result: got trusted %v, level 5 %s %q, want it to fail with %q", r.Trusted, r.Levels[4].Status, r.Levels[4].Reason, wrong.has)
			}
			wantTags(t, "wrong", r.Tags, nil)
			if s := m.state(); s.Proven || s.Reason == "" {
				t.Errorf("Tags: got %+v, want not proven, with a reason", s)
			}
			if m.next.AssetTag.Proven {
				t.Error("the next challenge says that the tag is proven")
			}
			r = m.judged(m.answer())
			wantTags(t, "mended", r.Tags, berlin)
			if !r.Trusted {
				t.Errorf("result after it was mended: got %+v, want trusted", r.Levels[4])
			}
		})
	}
}

// TestTagsAbsent: an agent that was killed before it wrote, or that cannot write: no tags, no fall, for a while.
func TestTagsAbsent(t *testing.T) {
	w := realWorld(t)
	m := w.tagMachine("worker-1")
	m.set(munich)
	m.judged(m.bare())
	r := m.judged(m.bare())
	if !r.Trusted || r.Levels[4].Status != appraisal.Warn || len(r.Tags) != 0 {
		t.Errorf("told, not written: got trusted %v, level 5 %s, tags %v; want a warning and no tags", r.Trusted, r.Levels[4].Status, r.Tags)
	}
	w.clock.Advance(tagGrace)
	if err := w.call(m.http, http.MethodGet, protocol.PathChallenge, nil, &m.next); err != nil {
		t.Fatal(err)
	}
	if r = m.judged(m.bare()); r.Trusted || r.Levels[4].Status != appraisal.Fail {
		t.Errorf("not written for long: got trusted %v, level 5 %s; want it to fail", r.Trusted, r.Levels[4].Status)
	}
	if r = m.judged(m.answer()); !r.Trusted || !maps.Equal(r.Tags, munich) {
		t.Errorf("written at last: got trusted %v, tags %v", r.Trusted, r.Tags)
	}
	m.nv = nil // the index was removed
	if r = m.judged(m.bare()); !r.Trusted || r.Levels[4].Status != appraisal.Warn || len(r.Tags) != 0 {
		t.Errorf("removed: got trusted %v, level 5 %s, tags %v; want a warning and no tags", r.Trusted, r.Levels[4].Status, r.Tags)
	}
	if r = m.judged(m.answer()); len(r.Tags) != 2 {
		t.Errorf("written again: got tags %v", r.Tags)
	}
}

// TestTagSerials: a serial is never used twice, whatever becomes of the node.
func TestTagSerials(t *testing.T) {
	w := realWorld(t)
	ctx := context.Background()
	m := w.tagMachine("worker-1")
	m.judged(m.answer())
	m.set(munich)
	old := append([]byte(nil), m.w.node(m.name).tag.record...)
	if err := w.admin.Delete(ctx, m.name); err != nil {
		t.Fatal(err)
	}
	if err := m.enrol(); err != nil {
		t.Fatal(err)
	}
	if s := m.state(); s.Serial != 1 || len(s.Tags) != 0 {
		t.Errorf("Tags after removal and enrolment: got %+v, want none, serial 1", s)
	}
	w.restart()
	m.connect()
	if s := m.set(munich); s.Serial != 2 {
		t.Errorf("SetTags after removal, enrolment and a restart: got serial %d, want 2", s.Serial)
	}
	m.judged(m.answer())
	m.nv = old
	if r := m.judged(m.bare()); r.Trusted || !strings.Contains(r.Levels[4].Reason, "an old one of this worker") {
		t.Errorf("record from before the removal: got trusted %v, %q", r.Trusted, r.Levels[4].Reason)
	}

	if err := w.admin.Rebind(ctx, m.name, protocol.RebindRequest{}); err != nil {
		t.Fatal(err)
	}
	m.tpm = softtpm.New([]byte("a new mainboard"))
	cert, err := m.tpm.EKCertificate(w.maker)
	if err != nil {
		t.Fatal(err)
	}
	m.certs, m.http = [][]byte{cert}, w.client()
	if err := m.enrol(); err != nil {
		t.Fatal(err)
	}
	if s := m.state(); s.Serial != 2 || len(s.Tags) != 0 {
		t.Errorf("Tags of a name that went to another TPM: got %+v, want none, serial 2", s)
	}
}

func TestTagsRefused(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	ctx := context.Background()
	for name, tags := range map[string]map[string]string{"none": {}, "bad name": {"Country": "de"}, "bad value": {"country": "d e"}} {
		_, err := w.admin.SetTags(ctx, m.name, tags)
		wantProblem(t, name, err, http.StatusBadRequest, "tags")
	}
	_, err := w.admin.SetTags(ctx, "worker-9", munich)
	wantProblem(t, "unknown node", err, http.StatusNotFound, "no-node")
	err = w.call(m.http, http.MethodPut, strings.Replace(protocol.PathTags, "{node}", "worker-1", 1), protocol.TagRequest{Tags: munich}, nil)
	wantProblem(t, "a node gives itself tags", err, http.StatusForbidden, "role")
}

func TestNews(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	var news protocol.News
	if err := w.call(m.http, http.MethodGet, protocol.PathNews+"?tag=0&seconds=0", nil, &news); err != nil || news.Attest {
		t.Errorf("news of nothing: got %+v, %v", news, err)
	}
	told := make(chan error, 1)
	go func() { told <- w.call(m.http, http.MethodGet, protocol.PathNews+"?tag=0&seconds=60", nil, &news) }()
	for w.waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	if _, err := w.admin.SetTags(context.Background(), m.name, munich); err != nil {
		t.Fatal(err)
	}
	if err := <-told; err != nil || !news.Attest || time.Since(start) > 5*time.Second {
		t.Errorf("news of tags: got %+v, %v after %v", news, err, time.Since(start))
	}
	if err := w.call(m.http, http.MethodGet, protocol.PathNews+"?tag=0&seconds=60", nil, &news); err != nil || !news.Attest {
		t.Errorf("news that the node has not read yet: got %+v, %v", news, err)
	}
	w.node(m.name).waits.Add(nodeWaits)
	err := w.call(m.http, http.MethodGet, protocol.PathNews+"?tag=1", nil, &news)
	wantProblem(t, "too many requests of a node", err, http.StatusTooManyRequests, "too-many")
	w.node(m.name).waits.Store(0)
	w.waiting.Store(int64(w.cfg.Limits.Waiting))
	err = w.call(m.http, http.MethodGet, protocol.PathNews+"?tag=1", nil, &news)
	wantProblem(t, "too many nodes wait", err, http.StatusTooManyRequests, "too-many")
	err = w.call(m.http, http.MethodGet, protocol.PathNews+"?tag=x", nil, &news)
	wantProblem(t, "no number", err, http.StatusBadRequest, "parameter")
}
