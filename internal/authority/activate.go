package authority

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"time"

	"github.com/fxamacker/cbor/v2"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/tpm"
)

// activate ends an enrolment:
//
//  1. The session is ours, and fresh.
//  2. The secret proves that one TPM holds both the EK and the attestation key.
//  3. The certification by the attestation key, qualified by the secret, proves that the TLS key lives in that TPM too.
//  4. The certificate request proves that the node can use the TLS key.
//  5. One transaction uses up session and token and binds name and EK; then certificates are issued.
func (a *Authority) activate(ctx context.Context, p *protocol.EnrolProof) (*protocol.Enrolment, error) {
	s, err := a.openSession(p.Session)
	if err != nil {
		return nil, err
	}
	ak, err := tpm.ParsePublic(s.AK)
	if err != nil {
		return nil, badKey("attestation", err)
	}
	key, err := a.prove(s, ak, p)
	if err != nil {
		return nil, err
	}
	tlsHash, err := keyHash(key)
	if err != nil {
		return nil, badKey("TLS", err)
	}
	now := a.now()
	rec := store.Enrolment{
		Token: s.Token, Session: s.ID, Until: s.Until, Now: now,
		Node: store.Node{
			Name: s.Node, EK: [32]byte(s.EK), EKCert: s.EKCert, Software: s.Software, AKPublic: s.AK, TLSKey: tlsHash, Agent: s.Agent, Enrolled: now,
			State: store.State{Trust: protocol.Unknown, Reason: "enrolled; no evidence yet", Since: now, Watermark: now.UnixNano() - 1},
		},
	}
	n, err := a.bind(ctx, rec)
	if err != nil {
		return nil, bindingProblem(err, s.Node)
	}
	return a.certify(n, key, ak)
}

func (a *Authority) openSession(text string) (*session, error) {
	bad := refuse(http.StatusForbidden, "session", "this is no enrolment session, or it has expired", "", "begin again with "+protocol.PathEnrol)
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, bad
	}
	plain, err := unseal(a.sessions, sealed, "enrolment")
	if err != nil {
		return nil, bad
	}
	s := &session{}
	if err := cbor.Unmarshal(plain, s); err != nil {
		return nil, fmt.Errorf("own session: %w", err)
	}
	if !a.now().Before(s.Until) || len(s.EK) != 32 {
		return nil, bad
	}
	return s, nil
}

// prove checks secret, certification and certificate request, and returns the TLS key.
func (a *Authority) prove(s *session, ak *tpm.Public, p *protocol.EnrolProof) (crypto.PublicKey, error) {
	no := func(kind, what string, err error) error {
		detail := ""
		if err != nil {
			detail = err.Error()
		}
		return refuse(http.StatusForbidden, kind, what, detail, "begin again with "+protocol.PathEnrol)
	}
	sum := sha256.Sum256(p.Secret)
	if subtle.ConstantTimeCompare(sum[:], s.Secret) != 1 {
		return nil, no("credential", "the secret is not the one in the credential: the attestation key is not in the TPM of the endorsement key", nil)
	}
	sig, err := tpm.ParseSignature(p.Signature)
	if err != nil {
		return nil, no("certification", "the certification of the TLS key cannot be read", err)
	}
	if err := ak.Verify(p.Certify, sig); err != nil {
		return nil, no("certification", "the certification of the TLS key is not signed by the attestation key", err)
	}
	cert, err := tpm.ParseCertify(p.Certify)
	if err != nil {
		return nil, no("certification", "the certification of the TLS key cannot be read", err)
	}
	if subtle.ConstantTimeCompare(cert.ExtraData, sum[:]) != 1 {
		return nil, no("certification", "the certification of the TLS key is not of this enrolment", nil)
	}
	public, err := tpm.ParsePublic(s.TLS)
	if err != nil {
		return nil, badKey("TLS", err)
	}
	if !bytes.Equal(cert.Name, public.Name()) {
		return nil, no("certification", "the attestation key certified another key than the TLS key", nil)
	}
	if err := checkRequest(p.CSR, public.Key); err != nil {
		return nil, no("certificate-request", "the certificate request does not prove the TLS key", err)
	}
	return public.Key, nil
}

// checkRequest checks that a PKCS #10 request is signed by key and asks for it.
func checkRequest(der []byte, key crypto.PublicKey) error {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return err
	}
	if k, ok := key.(interface{ Equal(crypto.PublicKey) bool }); !ok || !k.Equal(csr.PublicKey) {
		return errors.New("it asks for another key")
	}
	return nil
}

// bind writes the enrolment and puts the node into memory. Another enrolment or step of the same name waits.
func (a *Authority) bind(ctx context.Context, e store.Enrolment) (*node, error) {
	own := &a.binding[maphash.String(a.names, e.Node.Name)%uint64(len(a.binding))]
	own.Lock()
	defer own.Unlock()
	old := a.node(e.Node.Name)
	if old != nil {
		if err := old.lock(ctx); err != nil && !errors.Is(err, errGone) {
			return nil, err
		} else if err == nil {
			defer old.unlock()
		}
	}
	rec, change, err := a.store.Enrol(ctx, e)
	if err != nil {
		return nil, err
	}
	n, err := a.newNode(rec)
	if err != nil {
		return nil, err
	}
	if n.tag, err = a.loadTag(ctx, n.name); err != nil {
		return nil, err
	}
	if old != nil && old.id == n.id {
		n.watch = old.watch // the same TPM: what its events showed stays
	}
	signed, err := a.storedResult(ctx, n) // the same TPM goes on with what it had
	if err != nil {
		return nil, err
	}
	a.feed.step(protocol.NodeResult{Node: n.name, Result: signed, Trust: n.trust, Reason: n.reason}, func() { a.put(n, old) })
	a.log.Info("node enrolled", "node", n.name, "ek", hex.EncodeToString(n.ek[:]), "recognised", n.ekCert, "softwareTPM", n.software)
	if n.software {
		a.log.Warn("this node's TPM is a program: softwareTPMRoots vouch for it", "node", n.name)
	}
	if change != nil {
		a.changes.signal()
	}
	return n, nil
}

// certify issues the certificates of an enrolled node.
func (a *Authority) certify(n *node, key crypto.PublicKey, ak *tpm.Public) (*protocol.Enrolment, error) {
	client, err := a.ca.agent(n.name, key, time.Duration(a.cfg.CertificateLifetime))
	if err != nil {
		return nil, err
	}
	akCert, err := a.ca.attestationKey(n.name, ak.Key)
	if err != nil {
		return nil, err
	}
	a.metrics.enrolments.Inc()
	return &protocol.Enrolment{
		Node: n.name, Certificate: pemCerts(client, a.ca.issuing), AKCertificate: pemCerts(akCert, a.ca.issuing), CA: pemCerts(a.ca.root),
		Challenge: a.challenge(n, true),
	}, nil
}

// renew issues a new client certificate for the key of the present one.
func (a *Authority) renew(n *node, key [32]byte, r *protocol.RenewRequest) (*protocol.Renewal, error) {
	bad := func(err error) error {
		return refuse(http.StatusForbidden, "certificate-request", "the certificate request does not prove the TLS key", err.Error(),
			"renew with the key of the present certificate, or enrol again for another one")
	}
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, bad(err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, bad(err)
	}
	if h, err := keyHash(csr.PublicKey); err != nil || h != key {
		return nil, bad(errors.New("it asks for another key"))
	}
	var cert *x509.Certificate
	if r.Boot {
		cert, err = a.ca.bootAgent(n.name, csr.PublicKey)
	} else {
		cert, err = a.ca.agent(n.name, csr.PublicKey, time.Duration(a.cfg.CertificateLifetime))
	}
	if err != nil {
		return nil, err
	}
	return &protocol.Renewal{Certificate: pemCerts(cert, a.ca.issuing), CA: pemCerts(a.ca.root), Expires: cert.NotAfter}, nil
}
