package agent

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/version"
)

// enrol makes the worker known to AIAS. The TPM proves three things in it: that the endorsement key is its own
// (only it can open the credential), that the attestation key lives beside it (the credential is bound to that key's Name), and
// that the TLS key does too (TPM2_Certify over it, qualified by the secret that was in the credential).
func enrol(ctx context.Context, c *Client, t TPM, node, token string) (*protocol.Enrolment, error) {
	ek, certs, err := t.Endorsement()
	if err != nil {
		return nil, fmt.Errorf("read the endorsement key: %w", err)
	}
	ch, err := c.Enrol(ctx, &protocol.EnrolRequest{
		Node: node, Token: token, EKPublic: ek, EKCerts: certs,
		AKPublic: t.AKPublic(), TLSPublic: t.TLSPublic(), Agent: version.String(),
	})
	if err != nil {
		return nil, err
	}
	secret, err := t.Activate(ch.Credential, ch.Secret)
	if err != nil {
		return nil, fmt.Errorf("activate the credential: %w", err)
	}
	qualifying := sha256.Sum256(secret)
	attest, sig, err := t.CertifyTLS(qualifying[:])
	if err != nil {
		return nil, fmt.Errorf("certify the TLS key: %w", err)
	}
	csr, err := request(node, t)
	if err != nil {
		return nil, err
	}
	return c.Activate(ctx, &protocol.EnrolProof{
		Session: ch.Session, Secret: secret, Certify: attest, Signature: sig, CSR: csr,
	})
}

// request makes the certificate request for the TLS key, signed inside the TPM.
func request(node string, t TPM) ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: node}}, t.TLSSigner())
	if err != nil {
		return nil, fmt.Errorf("make the certificate request: %w", err)
	}
	return csr, nil
}

// clientKey joins the certificate of the enrolment and the key in the TPM.
func clientKey(id *Identity, t TPM) (*tls.Certificate, error) {
	chain, err := id.chain()
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("parse the client certificate: %w", err)
	}
	signer := t.TLSSigner()
	if pub, ok := leaf.PublicKey.(interface{ Equal(x crypto.PublicKey) bool }); ok && !pub.Equal(signer.Public()) {
		return nil, fmt.Errorf("the client certificate of %s belongs to another TPM key: enrol again", id.Node)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: signer, Leaf: leaf}, nil
}

// EnrolOnce enrols a worker and saves the enrolment into the state folder.
func EnrolOnce(ctx context.Context, cfg *Config, t TPM, token string, now time.Time) (*Identity, *protocol.Challenge, error) {
	return enrolOnce(ctx, cfg, t, token, nil, now)
}

// enrolOnce enrols a worker that may have been enrolled before: then it keeps the name that it has from the host, and the root of AIAS, where the configuration says
// neither.
func enrolOnce(ctx context.Context, cfg *Config, t TPM, token string, before *Identity, now time.Time) (*Identity, *protocol.Challenge, error) {
	node, err := cfg.NodeName()
	if err != nil {
		return nil, nil, err
	}
	if cfg.Node == "" && before != nil {
		node = before.Node
	}
	if cfg.CAFile != "" || cfg.CAHash != "" {
		before = nil
	}
	trust, err := trustFrom(cfg, before)
	if err != nil {
		return nil, nil, err
	}
	c, err := newClient(cfg.Server, trust, nil, time.Duration(cfg.Timeout))
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	e, err := enrol(ctx, c, t, node, token)
	if err != nil {
		return nil, nil, fmt.Errorf("enrol %s: %w", node, err)
	}
	id, err := newIdentity(cfg.Server, e, now)
	if err == nil {
		err = trust.covers(id.CA)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("enrol %s: %w", node, err)
	}
	return id, &e.Challenge, id.Save(cfg.StateDir)
}
