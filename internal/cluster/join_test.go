package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/internal/kubetest"
	"touchstone.dev/touchstone/internal/result"
)

// request asks for a certificate as a kubelet does, and returns its name and the hash of its key.
func (w *world) request(name string, change func(*x509.CertificateRequest, *certificatesv1.CertificateSigningRequest)) (key string) {
	w.t.Helper()
	return w.requestBy(w.Client, name, change)
}

// requestBy is request by somebody else than the admin.
func (w *world) requestBy(c client.Client, name string, change func(*x509.CertificateRequest, *certificatesv1.CertificateSigningRequest)) (key string) {
	w.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}}
	csr := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "csr-" + name}}
	csr.Spec.SignerName = certificatesv1.KubeAPIServerClientKubeletSignerName
	csr.Spec.Usages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
	if change != nil {
		change(template, csr)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, private)
	if err != nil {
		w.t.Fatal(err)
	}
	csr.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	if err := c.Create(context.Background(), csr); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = w.Delete(context.Background(), csr) })
	spki, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		w.t.Fatal(err)
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// decision is the first condition of a request, "" while there is none.
func (w *world) decision(name string) (string, string) {
	w.t.Helper()
	var csr certificatesv1.CertificateSigningRequest
	if err := w.Get(context.Background(), types.NamespacedName{Name: "csr-" + name}, &csr); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range csr.Status.Conditions {
		return string(c.Type), c.Message
	}
	return "", ""
}

func (w *world) decided(name, want, message string) {
	w.t.Helper()
	w.eventually(name+" is "+want, func() bool { d, _ := w.decision(name); return d != "" })
	if d, m := w.decision(name); d != want || !strings.Contains(m, message) {
		w.t.Errorf("request of %s: got %s because %q, want %s because %q", name, d, m, want, message)
	}
}

// TestJoin: only the kubelet of a node that attested gets a certificate; what may still come is waited for.
func TestJoin(t *testing.T) {
	w := newWorld(t)
	w.run()
	attest := func(name string, key string, change ...func(*result.Result)) {
		w.aias.say(w.aias.trusted(name, append(change, func(r *result.Result) { r.Machine.KubeletKeys = []string{key} })...))
	}
	key := w.request("late", nil)
	time.Sleep(500 * time.Millisecond)
	if d, m := w.decision("late"); d != "" {
		t.Errorf("request before the agent reported: got %s because %q, want it left open", d, m)
	}
	start := time.Now()
	attest("late", key)
	w.decided("late", "Approved", "is attested")
	t.Logf("from the result to the approval: %s", time.Since(start).Round(time.Millisecond))

	w.request("never", nil)
	w.decided("never", "Denied", "enrol it")
	attest("other", strings.Repeat("0", 64))
	w.request("other", nil)
	w.decided("other", "Denied", "has not reported this key")
	attest("fallen", strings.Repeat("0", 64), fallen(3, "other boot loader"))
	w.request("fallen", nil)
	w.decided("fallen", "Denied", "other boot loader")
	// A key of one node does not open the name of another.
	stolen := w.request("victim", nil)
	attest("thief", stolen)
	w.decided("victim", "Denied", "AIAS has no result for node victim")

	w.request("names", func(r *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequest) {
		r.DNSNames = []string{"kubernetes"}
	})
	w.decided("names", "Denied", "names besides its subject")
	w.request("masters", func(r *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequest) {
		r.Subject.Organization = []string{"system:nodes", "system:masters"}
	})
	w.decided("masters", "Denied", "organization")
	w.request("server", func(_ *x509.CertificateRequest, c *certificatesv1.CertificateSigningRequest) {
		c.Spec.Usages = append(c.Spec.Usages, certificatesv1.UsageServerAuth)
	})
	w.decided("server", "Denied", "usage")
	w.request("admin", func(r *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequest) {
		r.Subject.CommonName = "admin"
	})
	w.decided("admin", "Denied", "common name")
	w.request("alone", func(_ *x509.CertificateRequest, c *certificatesv1.CertificateSigningRequest) {
		c.Spec.SignerName, c.Spec.Usages = certificatesv1.KubeletServingSignerName, []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth}
	})
	time.Sleep(time.Second)
	if d, _ := w.decision("alone"); d != "" {
		t.Errorf("request for another signer: got %s, want it left alone", d)
	}
}

// kubelet is a client with a kubelet's certificate, and the hash of that certificate.
func (w *world) kubelet(name string) (c client.Client, certificate string) {
	w.t.Helper()
	text, key, err := kubetest.Start(w.t).Certificate("system:node:"+name, "system:nodes")
	if err != nil {
		w.t.Fatal(err)
	}
	config := rest.CopyConfig(w.config)
	config.CertFile, config.KeyFile, config.CertData, config.KeyData = "", "", text, key
	if c, err = client.New(config, client.Options{Scheme: w.Scheme()}); err != nil {
		w.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	sum := sha256.Sum256(block.Bytes)
	return c, hex.EncodeToString(sum[:])
}

// TestRenewal: a kubelet renews the certificate that lies on its attested machine. Another certificate for its name, wherever it came from, renews nothing.
func TestRenewal(t *testing.T) {
	w := newWorld(t)
	w.run()
	attest := func(name, certificate string, change ...func(*result.Result)) {
		w.aias.say(w.aias.trusted(name, append(change, func(r *result.Result) { r.Machine.KubeletKeys = []string{certificate} })...))
	}
	own, certificate := w.kubelet("renews")
	attest("renews", certificate)
	w.requestBy(own, "renews", nil)
	w.decided("renews", "Approved", "renews the certificate that lies on it")

	stray, _ := w.kubelet("stray")
	_, other := w.kubelet("stray")
	attest("stray", other)
	w.requestBy(stray, "stray", nil)
	w.decided("stray", "Denied", "has not reported this key")

	down, certificate := w.kubelet("down")
	attest("down", certificate, fallen(4, "another kernel"))
	w.requestBy(down, "down", nil)
	w.decided("down", "Denied", "another kernel")

	// An admin who writes the API server's words into the request is not believed: the API server writes its own.
	attest("forged", certificate)
	w.request("forged", func(_ *x509.CertificateRequest, c *certificatesv1.CertificateSigningRequest) {
		c.Spec.Username, c.Spec.Groups = "system:node:forged", []string{"system:nodes"}
		c.Spec.Extra = map[string]certificatesv1.ExtraValue{"authentication.kubernetes.io/credential-id": {"X509SHA256=" + certificate}}
	})
	w.decided("forged", "Denied", "has not reported this key")
}
