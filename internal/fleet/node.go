package fleet

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

// node is one simulated worker. It is for one goroutine at a time.
type node struct {
	name  string
	boot  *boot
	tpm   *softtpm.TPM
	ek    []byte // EK certificate, DER; nil when AIAS knows the EK by its hash
	clock softtpm.Clock
	wire  *wire
	keeps bool // its connection stays open between attestations
	next  protocol.Challenge

	extra    []byte // IMA list beyond that of the boot
	measured int    // entries of it
	pcr      []byte // PCR 10
}

// load says what the Evidence of an attestation brings.
type load struct {
	entries int  // new IMA entries
	full    bool // whole logs and facts
}

// newNode makes the node of a name; the seed decides its keys.
func newNode(name string, seed []byte, b *boot) *node {
	return &node{
		name: name, boot: b, tpm: softtpm.New(append(bytes.Clone(seed), name...)), clock: softtpm.Clock{Clock: 100_000, ResetCount: 7, Safe: true},
		pcr: b.bank.Values[imaPCR],
	}
}

// answer is what a node reads of an Attestation: not the signed result, which is for others.
type answer struct {
	Trusted bool                 `json:"trusted"`
	Levels  []protocol.LevelInfo `json:"levels"`
	Next    protocol.Challenge   `json:"next"`
}

// enrol enrols over a connection without certificate, and readies the node's own.
func (n *node) enrol(ctx context.Context, w *wire, r *bufio.Reader, token string) error {
	key, area := n.tpm.TLSKey()
	req := &protocol.EnrolRequest{Node: n.name, Token: token, EKPublic: n.tpm.EKArea(), AKPublic: n.tpm.AKArea(), TLSPublic: area, Agent: "fleet"}
	if n.ek != nil {
		req.EKCerts = [][]byte{n.ek}
	}
	var ch protocol.EnrolChallenge
	if err := w.postJSON(ctx, r, protocol.PathEnrol, req, &ch); err != nil {
		return err
	}
	secret, err := n.tpm.Activate(ch.Credential, ch.Secret)
	if err != nil {
		return err
	}
	qualifying := sha256.Sum256(secret)
	proof := &protocol.EnrolProof{Session: ch.Session, Secret: secret}
	proof.Certify, proof.Signature = n.tpm.Certify(area, qualifying[:], n.clock)
	if proof.CSR, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		return err
	}
	var e protocol.Enrolment
	if err := w.postJSON(ctx, r, protocol.PathActivate, proof, &e); err != nil {
		return err
	}
	cert := &tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode([]byte(e.Certificate)); block != nil; block, rest = pem.Decode(rest) {
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	if len(cert.Certificate) == 0 {
		return fmt.Errorf("enrol %s: AIAS gave no certificate", n.name)
	}
	n.wire, n.next = newWire(w.address, w.config.RootCAs, cert), e.Challenge
	return nil
}

// attest answers the challenge that came last.
func (n *node) attest(ctx context.Context, r *bufio.Reader, l load) (*answer, error) {
	n.measure(l.entries)
	body, err := evidence.Encode(n.document(l.full))
	if err != nil {
		return nil, err
	}
	var a answer
	if err := n.wire.post(ctx, r, protocol.PathAttest, protocol.MediaTypeEvidence, body, &a); err != nil {
		return nil, err
	}
	n.next = a.Next
	return &a, nil
}

// measure lets the kernel of the node measure files that its boot measured before: they are known.
func (n *node) measure(count int) {
	for range count {
		e := &n.boot.entries[n.measured%len(n.boot.entries)]
		n.extra = append(n.extra, e.raw...)
		n.pcr = extended(n.pcr, e.digest)
		n.measured++
	}
}

// document is the Evidence for the challenge: as an agent's, only what AIAS does not have yet.
func (n *node) document(full bool) *evidence.Document {
	n.clock.Clock++
	b, c := n.boot, &n.next
	bank := b.bank
	bank.Values[imaPCR] = n.pcr
	set := tpm.PCRs()
	for _, s := range c.Quote {
		if s.Bank == tpm.AlgSHA256.String() {
			set = tpm.PCRs(s.PCRs...)
		}
	}
	values := make(map[int][]byte, set.Len())
	for _, i := range set.Indices() {
		values[i] = bank.Values[i]
	}
	msg, sig := n.tpm.Quote(c.Nonce, []*tpm.Bank{&bank}, []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: set}}, n.clock)
	d := &evidence.Document{
		Version: evidence.Version, Node: n.name, Nonce: c.Nonce,
		Quotes: []evidence.Quote{{Message: msg, Signature: sig, PCRs: []evidence.PCRBank{{Alg: tpm.AlgSHA256, Values: values}}}},
	}
	d.AssetTag = n.certifyTag()
	n.addLogs(d, full)
	return d
}

func (n *node) addLogs(d *evidence.Document, full bool) {
	b, c := n.boot, &n.next
	if bytes.Equal(c.EventLogDigest, b.logDigest) && !full {
		d.EventLogDigest = b.logDigest
	} else {
		d.EventLog = b.log
	}
	if bytes.Equal(c.FactsDigest, b.factsDigest) && !full {
		d.FactsDigest = b.factsDigest
	} else {
		d.Facts = b.facts
	}
	switch from := c.IMAOffset; {
	case !full && c.ResetCount == n.clock.ResetCount && from >= uint64(len(b.list)) && from <= uint64(len(b.list)+len(n.extra)):
		d.IMA, d.IMAOffset = n.extra[from-uint64(len(b.list)):], from
	case len(n.extra) == 0:
		d.IMA = b.list
	default:
		d.IMA = append(bytes.Clone(b.list), n.extra...)
	}
}
