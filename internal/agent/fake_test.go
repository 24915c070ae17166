package agent

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/device"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

// fakeTPM is an imitated TPM whose quotes are real, and that can fail or hang on demand.
type fakeTPM struct {
	soft   *softtpm.TPM
	bank   *tpm.Bank
	mu     sync.Mutex
	reset  uint32
	quotes int
	fail   error
	hang   chan struct{}
	closed int

	tag                    []byte // in NV index tagIndex
	tagIndex               uint32
	tagWrites, tagRemovals int
	failTag                error
	imageKeys              int // made
}

func newFakeTPM() *fakeTPM {
	b := &tpm.Bank{Alg: tpm.AlgSHA256}
	for i := range b.Values {
		b.Values[i] = make([]byte, 32)
	}
	return &fakeTPM{soft: softtpm.New([]byte("agent")), bank: b, reset: 7}
}

func (t *fakeTPM) Endorsement() ([]byte, [][]byte, error) { return t.soft.EKArea(), nil, nil }
func (t *fakeTPM) AKPublic() []byte                       { return t.soft.AKArea() }
func (t *fakeTPM) TLSPublic() []byte                      { _, area := t.soft.TLSKey(); return area }
func (t *fakeTPM) TLSSigner() crypto.Signer               { key, _ := t.soft.TLSKey(); return key }
func (t *fakeTPM) Activate(c, s []byte) ([]byte, error)   { return t.soft.Activate(c, s) }

func (t *fakeTPM) CertifyTLS(q []byte) (attest, sig []byte, err error) {
	attest, sig = t.soft.Certify(t.TLSPublic(), q, softtpm.Clock{ResetCount: t.reset, Safe: true})
	return attest, sig, nil
}

func (t *fakeTPM) Banks() ([]tpm.Alg, error) {
	return []tpm.Alg{tpm.AlgSHA256}, nil
}

func (t *fakeTPM) Quote(nonce []byte, bank tpm.Alg, pcrs tpm.PCRSet) (evidence.Quote, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hang != nil {
		<-t.hang
	}
	if t.fail != nil {
		return evidence.Quote{}, t.fail
	}
	t.quotes++
	msg, sig := t.soft.Quote(nonce, []*tpm.Bank{t.bank}, []tpm.Selection{{Alg: bank, PCRs: pcrs}}, softtpm.Clock{ResetCount: t.reset, Safe: true})
	values := map[int][]byte{}
	for _, n := range pcrs.Indices() {
		values[n] = bytes.Clone(t.bank.Values[n])
	}
	return evidence.Quote{Message: msg, Signature: sig, PCRs: []evidence.PCRBank{{Alg: bank, Values: values}}}, nil
}

func (t *fakeTPM) StoreTag(index uint32, record, _ []byte) error {
	if t.failTag != nil {
		return t.failTag
	}
	t.tagIndex, t.tag, t.tagWrites = index, record, t.tagWrites+1
	return nil
}

func (t *fakeTPM) RemoveTag(uint32, []byte) error {
	t.tag, t.tagRemovals = nil, t.tagRemovals+1
	return t.failTag
}

func (t *fakeTPM) CertifyTag(index uint32, nonce []byte) (*evidence.NVCertificate, error) {
	if t.tag == nil {
		return nil, nil
	}
	c := &evidence.NVCertificate{Public: softtpm.NVPublic(index, assettag.Attributes, len(t.tag))}
	c.Message, c.Signature = t.soft.CertifyNV(c.Public, t.tag, nonce, softtpm.Clock{ResetCount: t.reset, Safe: true})
	return c, nil
}

func (t *fakeTPM) ImageKey(bank tpm.Alg, pcrs tpm.PCRSet, qualifying []byte) (*ImageKey, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	policy, err := tpm.PCRPolicy(t.bank, pcrs)
	if err != nil {
		return nil, err
	}
	key, area := t.soft.DecryptionKey(policy)
	exchange, err := key.ECDH()
	if err != nil {
		return nil, err
	}
	t.imageKeys++
	k := &ImageKey{Bank: bank, Exchange: &boundKey{exchange, t, policy, pcrs}, Public: area}
	k.Certify, k.Signature = t.soft.Certify(area, qualifying, softtpm.Clock{ResetCount: t.reset, Safe: true})
	return k, nil
}

// boundKey works only in the state that it was made for.
type boundKey struct {
	*ecdh.PrivateKey
	tpm    *fakeTPM
	policy []byte
	pcrs   tpm.PCRSet
}

func (k *boundKey) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	k.tpm.mu.Lock()
	defer k.tpm.mu.Unlock()
	if now, err := tpm.PCRPolicy(k.tpm.bank, k.pcrs); err != nil || !bytes.Equal(now, k.policy) {
		return nil, device.ErrStateChanged
	}
	return k.PrivateKey.ECDH(peer)
}

func (t *fakeTPM) Measure(pcr int, data []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fail != nil {
		return t.fail
	}
	event := sha256.Sum256(data)
	sum := sha256.Sum256(append(bytes.Clone(t.bank.Values[pcr]), event[:]...))
	t.bank.Values[pcr] = sum[:]
	return nil
}

func (t *fakeTPM) Close() error { t.closed++; return nil }

// fakeHost is a host in memory.
type fakeHost struct {
	mu      sync.Mutex
	log     []byte
	list    []byte
	facts   map[string][]byte
	count   uint64
	modules uint64
}

func (h *fakeHost) EventLog() ([]byte, error)         { return h.log, nil }
func (h *fakeHost) Facts() (map[string][]byte, error) { return h.facts, nil }

func (h *fakeHost) IMA(offset uint64) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if offset > uint64(len(h.list)) {
		return nil, errors.New("beyond the end")
	}
	return h.list[offset:], nil
}

func (h *fakeHost) IMACount() (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count, nil
}

func (h *fakeHost) Modules() (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.modules, nil
}

func (h *fakeHost) grow() {
	h.mu.Lock()
	h.list = append(h.list, "entry"...)
	h.count++
	h.mu.Unlock()
}

// fakeLink is AIAS: it answers what its fields say, and keeps what it got.
type fakeLink struct {
	mu         sync.Mutex
	challenge  protocol.Challenge
	next       func(n int) (*protocol.Attestation, error) // nil: trusted, with challenge
	docs       []*evidence.Document
	times      []time.Time
	challenges int
	renewals   int
	renewal    *protocol.Renewal
	release    func(*protocol.ReleaseRequest) (*protocol.Release, error)
	lost       func(held []string) []protocol.LostKey
	news       chan struct{} // closed: there are asset tags; nil: never
}

func (l *fakeLink) Challenge(context.Context) (*protocol.Challenge, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.challenges++
	ch := l.fresh()
	return &ch, nil
}

func (l *fakeLink) fresh() protocol.Challenge {
	ch := l.challenge
	ch.Expires = time.Now().Add(5 * time.Minute)
	return ch
}

func (l *fakeLink) Attest(_ context.Context, body []byte) (*protocol.Attestation, error) {
	doc, err := evidence.Decode(body)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.docs, l.times = append(l.docs, doc), append(l.times, time.Now())
	if l.next != nil {
		if out, err := l.next(len(l.docs)); out != nil || err != nil {
			return out, err
		}
	}
	return &protocol.Attestation{Trusted: true, Next: l.fresh(), Expires: time.Now().Add(time.Hour)}, nil
}

func (l *fakeLink) Renew(context.Context, *protocol.RenewRequest) (*protocol.Renewal, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renewals++
	if l.renewal == nil {
		return nil, errors.New("no renewal today")
	}
	return l.renewal, nil
}

func (l *fakeLink) News(ctx context.Context, tag uint64, hold time.Duration) (bool, error) {
	timer := time.NewTimer(hold)
	defer timer.Stop()
	news := l.news
	if tag > 0 {
		news = nil // it has them
	}
	select {
	case <-news:
		return true, nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return false, ctx.Err()
}

func (l *fakeLink) ReleaseKey(_ context.Context, r *protocol.ReleaseRequest) (*protocol.Release, error) {
	return l.release(r)
}

func (l *fakeLink) AuditAt(context.Context) (*protocol.AuditAck, error) {
	return &protocol.AuditAck{}, nil
}

func (l *fakeLink) SendAudit(context.Context, []byte, bool) (*protocol.AuditAck, error) {
	return &protocol.AuditAck{}, nil
}

func (l *fakeLink) LostKeys(_ context.Context, held []string) ([]protocol.LostKey, error) {
	return l.lost(held), nil
}

func (l *fakeLink) Close() {}

func (l *fakeLink) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.docs)
}

func testChallenge() protocol.Challenge {
	return protocol.Challenge{
		Nonce: []byte("0123456789abcdef"), Quote: []protocol.Selection{{Bank: "sha256", PCRs: []int{0, 7, 10}}}, Interval: 60,
	}
}

// testPEM makes a self-signed certificate for key with the given life time.
func testPEM(t testing.TB, key crypto.Signer, from, until time.Time) string {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "worker-1"}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func newTestKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// world is an agent with everything around it imitated.
type world struct {
	*Agent
	tpm     *fakeTPM
	host    *fakeHost
	link    *fakeLink
	opened  int
	reports []Report
}

// newWorld makes an enrolled agent; change what should be different before run.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		tpm:  newFakeTPM(),
		host: &fakeHost{log: []byte("log"), list: []byte("list"), facts: map[string][]byte{"tainted": []byte("0")}, count: 1},
		link: &fakeLink{challenge: testChallenge()},
	}
	cfg := Defaults()
	cfg.Server, cfg.Node, cfg.StateDir, cfg.StatusFile = "https://localhost:1", "worker-1", t.TempDir(), ""
	now := time.Now()
	cert := testPEM(t, w.tpm.TLSSigner(), now, now.Add(24*time.Hour))
	id := &Identity{Node: "worker-1", Server: cfg.Server, Certificate: cert, CA: cert}
	if err := id.Save(cfg.StateDir); err != nil {
		t.Fatal(err)
	}
	a, err := New(cfg, w.host, func() (TPM, error) { w.opened++; return w.tpm, nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a.dial = func(*Identity, TPM) (Link, error) { return w.link, nil }
	a.Observe = func(r Report) { w.reports = append(w.reports, r) }
	w.Agent = a
	return w
}

func (l *fakeLink) Tailoring(context.Context) (*protocol.Tailoring, error) {
	return nil, errors.New("none")
}

func (l *fakeLink) SendScanDocument(context.Context, string, []byte) error { return nil }

func (l *fakeLink) SendCompliance(context.Context, *protocol.ComplianceReport) (*protocol.ComplianceAnswer, error) {
	return &protocol.ComplianceAnswer{}, nil
}
