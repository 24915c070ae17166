package authority

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

func sha(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Microsecond) // time never stands still
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is an AIAS with a database in a folder of the test, served over real TLS.
type world struct {
	t      testing.TB
	cfg    Config
	clock  *clock
	judge  *judge
	loader Loader      // nil: judge
	maker  *softtpm.CA // of TPMs
	roots  *x509.CertPool
	*Authority
	store  *store.SQLite
	server *http.Server
	url    string
	admin  *operator.Client
}

const testLifetime = 5 * time.Minute

func newWorld(t testing.TB, change ...func(*world)) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{now: time.Now()}, judge: newJudge("one", "miner"), cfg: DefaultConfig()}
	w.cfg.Data = t.TempDir()
	w.cfg.Address = "127.0.0.1:0"
	w.cfg.Limits.PerNode, w.cfg.Limits.PerNodeBurst = 1e6, 1e6
	var err error
	if w.maker, err = softtpm.NewCA(); err != nil {
		t.Fatal(err)
	}
	w.roots = w.maker.Roots()
	for _, f := range change {
		f(w)
	}
	w.start()
	t.Cleanup(w.stop)
	return w
}

// start opens the data folder and serves; restart does so again.
func (w *world) start() {
	w.t.Helper()
	ctx := context.Background()
	var err error
	if w.store, err = store.Open(ctx, filepath.Join(w.cfg.Data, "aias.db"), nil); err != nil {
		w.t.Fatal(err)
	}
	load := Loader(func(policy []byte) (*Snapshot, error) {
		if bytes.Contains(policy, []byte("bad")) {
			return nil, errors.New("bad policy")
		}
		return &Snapshot{
			Appraiser: w.judge, Policy: policy, Lifetime: testLifetime, Interval: time.Minute, Roots: w.roots, Links: []*x509.Certificate{w.maker.Issuer},
		}, nil
	})
	if w.loader != nil {
		load = w.loader
	}
	w.Authority, err = New(ctx, w.cfg, Dependencies{Store: w.store, Load: load, Now: w.clock.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.Authority.cfg.Address, w.url = l.Addr().String(), "https://"+l.Addr().String()
	w.server = &http.Server{Handler: w.Handler(), ErrorLog: log.New(io.Discard, "", 0)} //nolint:gosec // on loopback, for a moment
	go func() { _ = w.server.Serve(tls.NewListener(l, w.TLS())) }()
	b, err := w.Operator("tester")
	if err != nil {
		w.t.Fatal(err)
	}
	if w.admin, err = operator.New(*b); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) stop() {
	w.changes.close()
	w.admin.Close()
	_ = w.server.Close()
	_ = w.store.Close()
}

func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// token makes a join token.
func (w *world) token(r protocol.TokenRequest) string {
	w.t.Helper()
	t, err := w.admin.CreateToken(context.Background(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return t.Secret
}

// client is an HTTPS client with or without a certificate.
func (w *world) client(certs ...tls.Certificate) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(w.ca.root)
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: certs, Time: w.clock.Now},
	}}
}

// call sends JSON, or bytes as Evidence, and decodes the answer. A refusal comes back as a *protocol.Problem.
func (w *world) call(c *http.Client, method, path string, in, out any) error {
	w.t.Helper()
	var body io.Reader
	kind := "application/json"
	switch v := in.(type) {
	case nil:
	case []byte:
		body, kind = bytes.NewReader(v), protocol.MediaTypeEvidence
	default:
		b, err := json.Marshal(v)
		if err != nil {
			w.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		p := &protocol.Problem{}
		if err := json.Unmarshal(b, p); err != nil {
			w.t.Fatalf("%s %s: refusal %d is no problem document: %q", method, path, resp.StatusCode, b)
		}
		return p
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// wantProblem checks that err is a refusal of a kind that carries a status.
func wantProblem(t testing.TB, what string, err error, status int, kind string) *protocol.Problem {
	t.Helper()
	var p *protocol.Problem
	if !errors.As(err, &p) {
		t.Fatalf("%s: got error %v, want a problem %q", what, err, kind)
	}
	if p.Status != status || p.Type != problemPrefix+kind {
		t.Fatalf("%s: got %d %s (%s), want %d %s", what, p.Status, p.Type, p.Error(), status, kind)
	}
	return p
}

// machine is a worker: a software TPM, its logs, and what it got from AIAS.
type machine struct {
	w     *world
	name  string
	tpm   *softtpm.TPM
	certs [][]byte
	clock softtpm.Clock
	list  []byte
	log   []byte
	facts map[string][]byte
	http  *http.Client
	cert  string
	next  protocol.Challenge
}

func (w *world) machine(name string) *machine {
	w.t.Helper()
	m := &machine{
		w: w, name: name, tpm: softtpm.New([]byte(name)), clock: softtpm.Clock{Clock: 100, ResetCount: 3, Safe: true},
		list: []byte("boot_aggregate;"), log: []byte("firmware log"), facts: map[string][]byte{"lockdown": []byte("integrity")}, http: w.client(),
	}
	cert, err := m.tpm.EKCertificate(w.maker)
	if err != nil {
		w.t.Fatal(err)
	}
	m.certs = [][]byte{cert}
	return m
}

func (m *machine) request(token string) *protocol.EnrolRequest {
	_, area := m.tpm.TLSKey()
	return &protocol.EnrolRequest{
		Node: m.name, Token: token, EKPublic: m.tpm.EKArea(), EKCerts: m.certs, AKPublic: m.tpm.AKArea(), TLSPublic: area, Agent: "test",
	}
}

func (m *machine) begin(r *protocol.EnrolRequest) (*protocol.EnrolChallenge, error) {
	out := &protocol.EnrolChallenge{}
	return out, m.w.call(m.http, http.MethodPost, protocol.PathEnrol, r, out)
}

func (m *machine) proof(ch *protocol.EnrolChallenge) *protocol.EnrolProof {
	m.w.t.Helper()
	secret, err := m.tpm.Activate(ch.Credential, ch.Secret)
	if err != nil {
		m.w.t.Fatal(err)
	}
	key, area := m.tpm.TLSKey()
	msg, sig := m.tpm.Certify(area, sha(secret), m.clock)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		m.w.t.Fatal(err)
	}
	return &protocol.EnrolProof{Session: ch.Session, Secret: secret, Certify: msg, Signature: sig, CSR: csr}
}

func (m *machine) finish(p *protocol.EnrolProof) error {
	out := &protocol.Enrolment{}
	if err := m.w.call(m.http, http.MethodPost, protocol.PathActivate, p, out); err != nil {
		return err
	}
	m.next, m.cert = out.Challenge, out.Certificate
	m.connect()
	return nil
}

// connect makes a client with the certificate of the enrolment.
func (m *machine) connect() {
	key, _ := m.tpm.TLSKey()
	pair := tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode([]byte(m.cert)); block != nil; block, rest = pem.Decode(rest) {
		pair.Certificate = append(pair.Certificate, block.Bytes)
	}
	m.http = m.w.client(pair)
}

// enrol enrols with a token of its own.
func (m *machine) enrol() error {
	ch, err := m.begin(m.request(m.w.token(protocol.TokenRequest{Node: m.name})))
	if err != nil {
		return err
	}
	return m.finish(m.proof(ch))
}

// enrolled is a machine that has enrolled.
func (w *world) enrolled(name string) *machine {
	w.t.Helper()
	m := w.machine(name)
	if err := m.enrol(); err != nil {
		w.t.Fatalf("enrol %s: %v", name, err)
	}
	return m
}

// document answers a challenge as an agent does: only what AIAS does not have.
func (m *machine) document(c protocol.Challenge) *evidence.Document {
	m.clock.Clock++
	bank := &tpm.Bank{Alg: tpm.AlgSHA256}
	values := map[int][]byte{}
	for _, i := range []int{0, 7, 10} {
		bank.Values[i] = sha([]byte{byte(i)})
		values[i] = bank.Values[i]
	}
	msg, sig := m.tpm.Quote(c.Nonce, []*tpm.Bank{bank}, []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0, 7, 10)}}, m.clock)
	d := &evidence.Document{
		Version: evidence.Version, Node: m.name, Nonce: c.Nonce, IMA: m.list, EventLog: m.log, Facts: m.facts,
		Quotes: []evidence.Quote{{Message: msg, Signature: sig, PCRs: []evidence.PCRBank{{Alg: tpm.AlgSHA256, Values: values}}}},
	}
	if c.ResetCount == m.clock.ResetCount && c.IMAOffset > 0 {
		d.IMA, d.IMAOffset = m.list[c.IMAOffset:], c.IMAOffset
	}
	if bytes.Equal(c.EventLogDigest, sha(m.log)) {
		d.EventLog, d.EventLogDigest = nil, c.EventLogDigest
	}
	if digest, _ := evidence.FactsDigest(m.facts); bytes.Equal(c.FactsDigest, digest) {
		d.Facts, d.FactsDigest = nil, digest
	}
	return d
}

func (m *machine) send(d *evidence.Document) (*protocol.Attestation, error) {
	m.w.t.Helper()
	b, err := evidence.Encode(d)
	if err != nil {
		m.w.t.Fatal(err)
	}
	out := &protocol.Attestation{}
	if err := m.w.call(m.http, http.MethodPost, protocol.PathAttest, b, out); err != nil {
		return nil, err
	}
	m.next = out.Next
	return out, nil
}

// attest answers the last challenge.
func (m *machine) attest() *protocol.Attestation {
	m.w.t.Helper()
	out, err := m.send(m.document(m.next))
	if err != nil {
		m.w.t.Fatalf("attest %s: %v", m.name, err)
	}
	return out
}

// node is what an operator sees of the machine.
func (m *machine) node() *protocol.Node {
	m.w.t.Helper()
	n, err := m.w.admin.Node(context.Background(), m.name)
	if err != nil {
		m.w.t.Fatal(err)
	}
	return n
}

// operatorHTTP is a bare client with an operator's certificate.
func operatorHTTP(t testing.TB, w *world, b *protocol.OperatorBundle) *http.Client {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(b.Certificate), []byte(b.Key))
	if err != nil {
		t.Fatal(err)
	}
	return w.client(pair)
}
