package authority

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

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
	latch []byte // in tpm.LatchPCR
	// states is what the machine states with its quotes; nil: nothing.
	states func() *evidence.Statement
	// scans are the compliance scans that it states unless states says others: the newest that it sent.
	scans map[string][]byte
}

func (w *world) machine(name string) *machine {
	w.t.Helper()
	m := &machine{
		w: w, name: name, tpm: softtpm.New([]byte(name)), clock: softtpm.Clock{Clock: 100, ResetCount: 3, Safe: true},
		list: []byte("boot_aggregate;"), log: []byte("firmware log"), facts: map[string][]byte{"lockdown": []byte("integrity")}, http: w.client(),
		latch: make([]byte, sha256.Size),
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
	pcrs := tpm.PCRs(0, 7, 10)
	for _, s := range c.Quote {
		pcrs |= tpm.PCRs(s.PCRs...)
	}
	for _, i := range pcrs.Indices() {
		if bank.Values[i] = sha([]byte{byte(i)}); i == tpm.LatchPCR {
			bank.Values[i] = m.latch
		}
		values[i] = bank.Values[i]
	}
	msg, sig := m.tpm.Quote(c.Nonce, []*tpm.Bank{bank}, []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: pcrs}}, m.clock)
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
