package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

func TestActivateRefuses(t *testing.T) {
	w := newWorld(t)
	other := w.machine("other")
	fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, fresh)
	if err != nil {
		t.Fatal(err)
	}
	_, otherTLS := other.tpm.TLSKey()
	tests := []struct {
		name   string
		change func(*machine, *protocol.EnrolProof)
		kind   string
	}{
		{"wrong secret", func(_ *machine, p *protocol.EnrolProof) { p.Secret[0] ^= 1 }, "credential"},
		{"certification of another key", func(m *machine, p *protocol.EnrolProof) {
			p.Certify, p.Signature = m.tpm.Certify(otherTLS, sha(p.Secret), m.clock)
		}, "certification"},
		{"certification by another TPM", func(m *machine, p *protocol.EnrolProof) {
			_, area := m.tpm.TLSKey()
			p.Certify, p.Signature = other.tpm.Certify(area, sha(p.Secret), m.clock)
		}, "certification"},
		{"certification of another enrolment", func(m *machine, p *protocol.EnrolProof) {
			_, area := m.tpm.TLSKey()
			p.Certify, p.Signature = m.tpm.Certify(area, sha([]byte("old")), m.clock)
		}, "certification"},
		{"certification not made by a TPM", func(m *machine, p *protocol.EnrolProof) {
			p.Certify = softtpm.WithMagic(p.Certify, 0)
			p.Signature = m.tpm.Sign(p.Certify)
		}, "certification"},
		{"quote for a certification", func(m *machine, p *protocol.EnrolProof) {
			p.Certify, p.Signature = m.tpm.Quote(sha(p.Secret), nil, nil, m.clock)
		}, "certification"},
		{"request for another key", func(_ *machine, p *protocol.EnrolProof) { p.CSR = csr }, "certificate-request"},
		{"request with a broken signature", func(_ *machine, p *protocol.EnrolProof) { p.CSR[len(p.CSR)-1] ^= 1 }, "certificate-request"},
		{"session of nobody", func(_ *machine, p *protocol.EnrolProof) { p.Session = "AAAA" + p.Session }, "session"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := w.machine("worker-1")
			ch, err := m.begin(m.request(w.token(protocol.TokenRequest{})))
			if err != nil {
				t.Fatal(err)
			}
			p := m.proof(ch)
			tt.change(m, p)
			wantProblem(t, tt.name, m.finish(p), http.StatusForbidden, tt.kind)
		})
	}
}

func TestSessionOnceAndFresh(t *testing.T) {
	w := newWorld(t)
	m := w.machine("worker-1")
	ch, err := m.begin(m.request(w.token(protocol.TokenRequest{Uses: 5})))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.finish(m.proof(ch)); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, "session used twice", m.finish(m.proof(ch)), http.StatusConflict, "session")
	if ch, err = m.begin(m.request(w.token(protocol.TokenRequest{}))); err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(sessionLifetime + time.Second)
	wantProblem(t, "session that expired", m.finish(m.proof(ch)), http.StatusForbidden, "session")
}

func TestCredentialIsForOneAK(t *testing.T) {
	w := newWorld(t)
	m, other := w.machine("worker-1"), w.machine("worker-2")
	r := m.request(w.token(protocol.TokenRequest{}))
	r.AKPublic = other.tpm.AKArea() // an AK that is not in the TPM of this EK
	ch, err := m.begin(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.tpm.Activate(ch.Credential, ch.Secret); err == nil {
		t.Error("Activate(credential for an AK elsewhere): got a secret, want an error")
	}
}

func TestRenew(t *testing.T) {
	w := newWorld(t)
	m, other := w.enrolled("worker-1"), w.enrolled("worker-2")
	request := func(m *machine) *protocol.RenewRequest {
		key, _ := m.tpm.TLSKey()
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		return &protocol.RenewRequest{CSR: csr}
	}
	out := &protocol.Renewal{}
	if err := w.call(m.http, http.MethodPost, protocol.PathRenew, request(m), out); err != nil {
		t.Fatalf("renew: %v", err)
	}
	m.cert = out.Certificate
	m.connect()
	m.attest()
	wantProblem(t, "renew for another key", w.call(m.http, http.MethodPost, protocol.PathRenew, request(other), nil), http.StatusForbidden, "certificate-request")

	// What an initramfs keeps attests for long, and does nothing else.
	boot := request(m)
	boot.Boot = true
	if err := w.call(m.http, http.MethodPost, protocol.PathRenew, boot, out); err != nil {
		t.Fatalf("renew for an initramfs: %v", err)
	}
	if life := out.Expires.Sub(w.clock.Now()); life < 399*24*time.Hour || life > 400*24*time.Hour {
		t.Errorf("renew for an initramfs: valid for %v, want 400 days", life)
	}
	running := m.cert
	m.cert = out.Certificate
	m.connect()
	m.again()
	for _, r := range w.routes() {
		if r.for_ != nodesOnly || r.path == protocol.PathChallenge || r.path == protocol.PathAttest {
			continue
		}
		wantProblem(t, "initramfs on "+r.path, w.call(m.http, r.method, r.path, nil, nil), http.StatusForbidden, "boot-certificate")
	}
	_, err := m.begin(m.request(""))
	wantProblem(t, "enrolment by an initramfs", err, http.StatusForbidden, "token") // the certificate does not stand for one
	m.cert = running
	m.connect()

	// The other way: a whole new enrolment, for which the certificate stands instead of a token.
	r := m.request("")
	ch, err := m.begin(r)
	if err != nil {
		t.Fatalf("enrol with a certificate: %v", err)
	}
	if err := m.finish(m.proof(ch)); err != nil {
		t.Fatalf("enrol with a certificate: %v", err)
	}
	if a := m.attest(); !a.Trusted {
		t.Errorf("attestation after renewal: got %+v, want trusted", a)
	}
	r.Node = "worker-2"
	_, err = m.begin(r)
	wantProblem(t, "certificate for another name", err, http.StatusForbidden, "other-node")
}
