package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/authority"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
	"touchstone.dev/touchstone/internal/verifier"
)

// minerJudge trusts each quote that is signed over the challenge, unless the IMA list has a miner. Everything else of AIAS is the real one.
type minerJudge struct{}

func (minerJudge) Snapshot() string { return "miner" }

func (minerJudge) Selections() []tpm.Selection {
	return []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0, 7, 10)}}
}

func (minerJudge) Appraise(doc *evidence.Document, exp verifier.Expectation) (*verifier.Outcome, error) {
	q, err := tpm.ParseQuote(doc.Quotes[0].Message)
	if err != nil {
		return nil, err
	}
	sig, err := tpm.ParseSignature(doc.Quotes[0].Signature)
	if err != nil || exp.AK.Verify(doc.Quotes[0].Message, sig) != nil || !bytes.Equal(q.ExtraData, exp.Nonce) {
		return nil, fmt.Errorf("%w: quote", verifier.ErrMalformed)
	}
	v := &appraisal.Verdict{Trusted: !bytes.Contains(doc.IMA, []byte("miner"))}
	for i, name := range appraisal.LevelNames {
		l := appraisal.Level{Level: i + 1, Name: name, Status: appraisal.Pass}
		if i == 4 && !v.Trusted {
			l.Status = appraisal.Fail
			l.Findings = []appraisal.Finding{{Rule: "runtime.files", Status: appraisal.Fail, Message: "miner is not known"}}
		}
		v.Levels = append(v.Levels, l)
	}
	return &verifier.Outcome{Verdict: v, Authentic: true, Snapshot: "miner", Checkpoint: &verifier.Checkpoint{Snapshot: "miner", Clock: q.Clock, ResetCount: q.ResetCount}}, nil
}

// attester is a worker with a software TPM.
type attester struct {
	t     *testing.T
	url   string
	roots *x509.CertPool
	tpm   *softtpm.TPM
	clock softtpm.Clock
	http  *http.Client
	next  protocol.Challenge
}

func (a *attester) post(path, kind string, body []byte, out any) {
	a.t.Helper()
	resp, err := a.http.Post(a.url+path, kind, bytes.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 || json.Unmarshal(b, out) != nil {
		a.t.Fatalf("%s: %s: %s, %v", path, resp.Status, b, err)
	}
}

func (a *attester) postJSON(path string, in, out any) {
	a.t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		a.t.Fatal(err)
	}
	a.post(path, "application/json", b, out)
}

func (a *attester) enrol(token string, maker *softtpm.CA) {
	a.t.Helper()
	cert, err := a.tpm.EKCertificate(maker)
	if err != nil {
		a.t.Fatal(err)
	}
	key, area := a.tpm.TLSKey()
	a.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.roots}}}
	var ch protocol.EnrolChallenge
	a.postJSON(protocol.PathEnrol, &protocol.EnrolRequest{Node: "w1", Token: token, EKPublic: a.tpm.EKArea(), EKCerts: [][]byte{cert}, AKPublic: a.tpm.AKArea(), TLSPublic: area, Agent: "test"}, &ch)
	secret, err := a.tpm.Activate(ch.Credential, ch.Secret)
	if err != nil {
		a.t.Fatal(err)
	}
	qualifying := sha256.Sum256(secret)
	proof := &protocol.EnrolProof{Session: ch.Session, Secret: secret}
	proof.Certify, proof.Signature = a.tpm.Certify(area, qualifying[:], a.clock)
	if proof.CSR, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		a.t.Fatal(err)
	}
	var e protocol.Enrolment
	a.postJSON(protocol.PathActivate, proof, &e)
	pair := tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode([]byte(e.Certificate)); block != nil; block, rest = pem.Decode(rest) {
		pair.Certificate = append(pair.Certificate, block.Bytes)
	}
	a.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.roots, Certificates: []tls.Certificate{pair}}}}
	a.next = e.Challenge
}

func (a *attester) attest(list, boot string) {
	a.t.Helper()
	a.clock.Clock++
	bank, values := &tpm.Bank{Alg: tpm.AlgSHA256}, map[int][]byte{}
	for _, i := range []int{0, 7, 10} {
		sum := sha256.Sum256([]byte{byte(i)})
		bank.Values[i], values[i] = sum[:], sum[:]
	}
	msg, sig := a.tpm.Quote(a.next.Nonce, []*tpm.Bank{bank}, minerJudge{}.Selections(), a.clock)
	doc, err := evidence.Encode(&evidence.Document{
		Version: evidence.Version, Node: "w1", Nonce: a.next.Nonce, IMA: []byte(list), EventLog: []byte("log"),
		Facts:  map[string][]byte{evidence.FactMachine: []byte("4c4c4544-0042-3010-8053-b4c04f4d3332\n"), evidence.FactBootID: []byte(boot + "\n")},
		Quotes: []evidence.Quote{{Message: msg, Signature: sig, PCRs: []evidence.PCRBank{{Alg: tpm.AlgSHA256, Values: values}}}},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	var out protocol.Attestation
	a.post(protocol.PathAttest, protocol.MediaTypeEvidence, doc, &out)
	a.next = out.Next
}

// TestRealAIAS: from the Evidence of a worker through a real AIAS and a real API server to the taint of its node object.
func TestRealAIAS(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	maker, err := softtpm.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cfg := authority.DefaultConfig()
	cfg.Data, cfg.Address = t.TempDir(), "127.0.0.1:0"
	db, err := store.Open(ctx, filepath.Join(cfg.Data, "aias.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Address = l.Addr().String()
	load := func(policy []byte) (*authority.Snapshot, error) {
		return &authority.Snapshot{Appraiser: minerJudge{}, Policy: policy, Lifetime: 5 * time.Minute, Interval: time.Minute, Roots: maker.Roots(), Links: []*x509.Certificate{maker.Issuer}}, nil
	}
	a, err := authority.New(ctx, cfg, authority.Dependencies{Store: db, Load: load, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(serving, l) }()
	t.Cleanup(func() { stop(); <-ended })
	bundle, err := a.Controller("controller")
	if err != nil {
		t.Fatal(err)
	}
	client, err := operator.New(*bundle)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := a.Operator("admin")
	if err != nil {
		t.Fatal(err)
	}
	person, err := operator.New(*admin)
	if err != nil {
		t.Fatal(err)
	}
	token, err := person.CreateToken(ctx, protocol.TokenRequest{Node: "w1"})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(bundle.CA))
	m := &attester{t: t, url: bundle.Server, roots: roots, tpm: softtpm.New([]byte("w1")), clock: softtpm.Clock{Clock: 100, ResetCount: 3, Safe: true}}
	m.enrol(token.Secret, maker)

	const boot = "6f3c1f5e-1111-4222-8333-444455556666"
	w.node("w1", func(n *corev1.Node) {
		n.Status.NodeInfo.SystemUUID, n.Status.NodeInfo.BootID = "4C4C4544-0042-3010-8053-B4C04F4D3332", boot
	})
	stopController := w.run(func(o *Options) { o.AIAS = client })
	w.isTrusted("w1", false)
	m.attest("boot_aggregate", boot)
	w.isTrusted("w1", true)
	start := time.Now()
	m.attest("boot_aggregate;miner", boot)
	attested := time.Since(start)
	w.eventually("tainted", func() bool { return strings.Contains(taints(w.get("w1")), both) })
	took := time.Since(start)
	t.Logf("from the agent's Evidence to the taint: %s (of which %s until the agent had its answer)", took.Round(time.Millisecond), attested.Round(time.Millisecond))
	w.isTrusted("w1", false)
	if got := w.get("w1").Labels["node-restriction.kubernetes.io/touchstone-level-5"]; got != "fail" {
		t.Errorf("label of level 5: got %q, want fail", got)
	}
	m.attest("boot_aggregate", "6f3c1f5e-1111-4222-8333-444455556667")
	w.eventually("rebooted", func() bool { return w.trust("w1").Status.Conditions[0].Reason == "Rebooted" })
	m.attest("boot_aggregate", boot)
	w.isTrusted("w1", true)
	stopController()
}
