package authority

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

// without clears attributes of a TPMT_PUBLIC (type and name algorithm come before them).
func without(area []byte, attributes uint32) []byte {
	out := append([]byte(nil), area...)
	binary.BigEndian.PutUint32(out[4:], binary.BigEndian.Uint32(out[4:])&^attributes)
	return out
}

func TestEnrolCertificates(t *testing.T) {
	w := newWorld(t)
	m := w.machine("worker-1")
	ch, err := m.begin(m.request(w.token(protocol.TokenRequest{})))
	if err != nil {
		t.Fatal(err)
	}
	out := &protocol.Enrolment{}
	if err := w.call(m.http, http.MethodPost, protocol.PathActivate, m.proof(ch), out); err != nil {
		t.Fatal(err)
	}
	parse := func(text string) *x509.Certificate {
		block, _ := pem.Decode([]byte(text))
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	client, ak := parse(out.Certificate), parse(out.AKCertificate)
	roots, links := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(w.ca.root)
	links.AddCert(w.ca.issuing)
	verify := func(c *x509.Certificate, use x509.ExtKeyUsage) error {
		_, err := c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: links, KeyUsages: []x509.ExtKeyUsage{use}, CurrentTime: w.clock.Now()})
		return err
	}
	if err := verify(client, x509.ExtKeyUsageClientAuth); err != nil {
		t.Errorf("client certificate: %v", err)
	}
	if verify(client, x509.ExtKeyUsageServerAuth) == nil || verify(ak, x509.ExtKeyUsageClientAuth) == nil || verify(ak, x509.ExtKeyUsageServerAuth) == nil {
		t.Error("client certificate as server, or AK certificate on TLS: got accepted, want refused")
	}
	if life := client.NotAfter.Sub(w.clock.Now()); life > time.Duration(w.cfg.CertificateLifetime) {
		t.Errorf("client certificate lives %v, want at most %v", life, time.Duration(w.cfg.CertificateLifetime))
	}
}

func TestEnrolRefusesKeys(t *testing.T) {
	w := newWorld(t)
	other := softtpm.New([]byte("other"))
	tests := []struct {
		name   string
		change func(*machine, *protocol.EnrolRequest)
		status int
		kind   string
	}{
		{"AK without restricted", func(_ *machine, r *protocol.EnrolRequest) { r.AKPublic = without(r.AKPublic, tpm.AttrRestricted) }, 400, "key"},
		{"AK without fixedTPM", func(_ *machine, r *protocol.EnrolRequest) { r.AKPublic = without(r.AKPublic, tpm.AttrFixedTPM) }, 400, "key"},
		{"AK without fixedParent", func(_ *machine, r *protocol.EnrolRequest) { r.AKPublic = without(r.AKPublic, tpm.AttrFixedParent) }, 400, "key"},
		{"AK without sensitiveDataOrigin", func(_ *machine, r *protocol.EnrolRequest) {
			r.AKPublic = without(r.AKPublic, tpm.AttrSensitiveDataOrigin)
		}, 400, "key"},
		{"AK without sign", func(_ *machine, r *protocol.EnrolRequest) { r.AKPublic = without(r.AKPublic, tpm.AttrSign) }, 400, "key"},
		{"TLS key that can leave the TPM", func(_ *machine, r *protocol.EnrolRequest) { r.TLSPublic = without(r.TLSPublic, tpm.AttrFixedTPM) }, 400, "key"},
		{"EK that is a signing key", func(m *machine, r *protocol.EnrolRequest) { r.EKPublic = m.tpm.AKArea() }, 400, "key"},
		{"garbage for a key", func(_ *machine, r *protocol.EnrolRequest) { r.AKPublic = []byte("garbage") }, 400, "key"},
		{"EK of another certificate", func(_ *machine, r *protocol.EnrolRequest) { r.EKPublic = other.EKArea() }, 403, "ek"},
		{"no EK certificate", func(_ *machine, r *protocol.EnrolRequest) { r.EKCerts = nil }, 403, "ek"},
		{"garbage for a certificate", func(_ *machine, r *protocol.EnrolRequest) { r.EKCerts = [][]byte{{1, 2, 3}} }, 403, "ek"},
		{"upper case name", func(_ *machine, r *protocol.EnrolRequest) { r.Node = "Worker-1" }, 400, "node-name"},
		{"name with a slash", func(_ *machine, r *protocol.EnrolRequest) { r.Node = "a/b" }, 400, "node-name"},
		{"empty name", func(_ *machine, r *protocol.EnrolRequest) { r.Node = "" }, 400, "node-name"},
		{"no token", func(_ *machine, r *protocol.EnrolRequest) { r.Token = "" }, 403, "token"},
		{"wrong token", func(_ *machine, r *protocol.EnrolRequest) { r.Token += "X" }, 403, "token"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := w.machine("worker-1")
			r := m.request(w.token(protocol.TokenRequest{}))
			tt.change(m, r)
			_, err := m.begin(r)
			wantProblem(t, tt.name, err, tt.status, tt.kind)
		})
	}
}

func TestEnrolChainBringsItsOwnRoot(t *testing.T) {
	w := newWorld(t)
	stranger, err := softtpm.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	m := w.machine("worker-1")
	cert, err := m.tpm.EKCertificate(stranger)
	if err != nil {
		t.Fatal(err)
	}
	m.certs = [][]byte{cert, stranger.Issuer.Raw, stranger.Root.Raw}
	wantProblem(t, "chain with its own root", m.enrol(), http.StatusForbidden, "ek")
}

func TestEnrolIntermediatesFromHost(t *testing.T) {
	w := newWorld(t)
	stranger, err := softtpm.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	w.roots.AddCert(stranger.Root) // its issuer is known to the host only
	m := w.machine("worker-1")
	cert, err := m.tpm.EKCertificate(stranger)
	if err != nil {
		t.Fatal(err)
	}
	m.certs = [][]byte{cert}
	wantProblem(t, "chain with a gap", m.enrol(), http.StatusForbidden, "ek")
	m.certs = [][]byte{cert, stranger.Issuer.Raw}
	if err := m.enrol(); err != nil {
		t.Errorf("chain with the host's intermediate: %v", err)
	}
}

func TestEnrolAllowList(t *testing.T) {
	w := newWorld(t)
	m := w.machine("worker-1")
	m.certs = nil
	ek, err := tpm.ParsePublic(m.tpm.EKArea())
	if err != nil {
		t.Fatal(err)
	}
	hash, err := keyHash(ek.Key)
	if err != nil {
		t.Fatal(err)
	}
	ctx, name := context.Background(), hex.EncodeToString(hash[:])
	if err := w.admin.AllowEK(ctx, protocol.EK{SHA256: name, Note: "rack 3"}); err != nil {
		t.Fatal(err)
	}
	if err := m.enrol(); err != nil {
		t.Fatalf("enrol with an allowed EK: %v", err)
	}
	if n := m.node(); n.EKCert != "allow-list" || n.EKSHA256 != name {
		t.Errorf("node: got EK %s by %q, want %s by the allow-list", n.EKSHA256, n.EKCert, name)
	}
	if err := w.admin.DisallowEK(ctx, name); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, "enrol with an EK that is allowed no more", m.enrol(), http.StatusForbidden, "ek")
}

func TestEnrolSoftwareTPM(t *testing.T) {
	maker, err := softtpm.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	issuer := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: maker.Issuer.Raw})
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), append(maker.RootPEM(), issuer...), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(w *world) { w.cfg.SoftwareTPMRoots = dir })
	m := w.machine("worker-1")
	cert, err := m.tpm.EKCertificate(maker)
	if err != nil {
		t.Fatal(err)
	}
	m.certs = [][]byte{cert}
	if err := m.enrol(); err != nil {
		t.Fatalf("enrol with a software TPM: %v", err)
	}
	if !m.node().SoftwareTPM {
		t.Error("node: not marked as software TPM")
	}
	if w.enrolled("worker-2").node().SoftwareTPM {
		t.Error("node with a genuine TPM: marked as software TPM")
	}
}

func TestNameTakeover(t *testing.T) {
	w := newWorld(t)
	first := w.enrolled("worker-1")
	thief := w.machine("thief")
	thief.name = "worker-1"
	p := wantProblem(t, "takeover of a name", thief.enrol(), http.StatusConflict, "name-taken")
	if p.Remedy == "" {
		t.Error("takeover of a name: the refusal says no remedy")
	}
	first.attest()
	if err := first.enrol(); err != nil {
		t.Errorf("same TPM under the same name: %v", err)
	}
	first.name = "worker-9"
	wantProblem(t, "same TPM under another name", first.enrol(), http.StatusConflict, "tpm-taken")
}

func TestRebind(t *testing.T) {
	w := newWorld(t)
	old := w.enrolled("worker-1")
	old.attest()
	spare := w.machine("spare")
	spare.name = "worker-1"
	ctx := context.Background()
	if err := w.admin.Rebind(ctx, "worker-1", protocol.RebindRequest{EKSHA256: old.node().EKSHA256}); err != nil {
		t.Fatal(err)
	}
	ch, err := spare.begin(spare.request(w.token(protocol.TokenRequest{})))
	if err != nil {
		t.Fatal(err)
	}
	wantProblem(t, "rebind that names another TPM", spare.finish(spare.proof(ch)), http.StatusConflict, "name-taken")
	if err := w.admin.Rebind(ctx, "worker-1", protocol.RebindRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := spare.enrol(); err != nil {
		t.Fatalf("enrol after a rebind: %v", err)
	}
	if n := spare.node(); n.Trust != protocol.Unknown {
		t.Errorf("node after a rebind: got %q, want %q", n.Trust, protocol.Unknown)
	}
	_, err = old.send(old.document(old.next))
	wantProblem(t, "the old TPM after a rebind", err, http.StatusForbidden, "old-certificate")
	spare.attest()
}

func TestTokens(t *testing.T) {
	w := newWorld(t)
	tries := func(name, token string) error {
		m := w.machine(name)
		ch, err := m.begin(m.request(token))
		if err != nil {
			return err
		}
		return m.finish(m.proof(ch))
	}
	once := w.token(protocol.TokenRequest{})
	if err := tries("worker-1", once); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, "token used twice", tries("worker-2", once), http.StatusForbidden, "token")
	twice := w.token(protocol.TokenRequest{Uses: 2})
	for _, name := range []string{"worker-3", "worker-4"} {
		if err := tries(name, twice); err != nil {
			t.Errorf("token with two uses, %s: %v", name, err)
		}
	}
	wantProblem(t, "token used up", tries("worker-5", twice), http.StatusForbidden, "token")
	wantProblem(t, "token of another node", tries("worker-6", w.token(protocol.TokenRequest{Node: "worker-7"})), http.StatusForbidden, "token")
	ek := hex.EncodeToString(make([]byte, 32))
	wantProblem(t, "token of another EK", tries("worker-6", w.token(protocol.TokenRequest{EKSHA256: ek})), http.StatusForbidden, "token")
	short := w.token(protocol.TokenRequest{Seconds: 60})
	w.clock.Advance(2 * time.Minute)
	wantProblem(t, "token that expired", tries("worker-6", short), http.StatusForbidden, "token")
	list, err := w.admin.Tokens(context.Background())
	if err != nil || len(list) == 0 {
		t.Fatalf("Tokens(): got %v, %v", list, err)
	}
	last := w.token(protocol.TokenRequest{Note: "revoked"})
	if err := w.admin.RevokeToken(context.Background(), last[:10]); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, "token that was revoked", tries("worker-6", last), http.StatusForbidden, "token")
}
