package device

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/tpm"
)

func TestCertify(t *testing.T) {
	dev := open(t)
	key, err := dev.TLSKey()
	if err != nil {
		t.Fatalf("TLSKey: %v", err)
	}
	ak := mustAK(t, dev, "ecc")
	msg, sig, err := dev.Certify(ak, key, []byte("nonce"))
	if err != nil {
		t.Fatalf("Certify: %v", err)
	}
	checkSigned(t, ak, msg, sig)
	c, err := tpm.ParseCertify(msg)
	if err != nil {
		t.Fatal(err)
	}
	public := mustPublic(t, key.Area())
	if !bytes.Equal(c.Name, public.Name()) || string(c.ExtraData) != "nonce" {
		t.Errorf("Certify: got Name %x with %q, want %x", c.Name, c.ExtraData, public.Name())
	}
	if err := public.CheckResidentKey(); err != nil {
		t.Errorf("CheckResidentKey: %v", err)
	}
	if err := public.CheckAttestationKey(); err == nil {
		t.Error("CheckAttestationKey(TLS key): got nil, want restricted missing")
	}
	if bytes.Equal(key.Name(), ak.Name()) || public.Key == mustPublic(t, ak.Public()).Key {
		t.Error("TLSKey: the same as the attestation key")
	}
	if _, err := key.Sign(nil, make([]byte, 48), crypto.SHA384); err == nil {
		t.Error("Sign(SHA-384): got nil, want an error")
	}
	if _, _, err := dev.Certify(nil, key, nil); err == nil {
		t.Error("Certify without key: got nil")
	}
}

// TestHandshake runs mutual TLS with a client whose key is in the TPM.
func TestHandshake(t *testing.T) {
	dev := open(t)
	key, err := dev.TLSKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"}, DNSNames: []string{"node"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IsCA:        true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key) // signed in the TPM as well
	if err != nil {
		t.Fatalf("CreateCertificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, ServerName: "node",
	}
	a, b := net.Pipe()
	server, client := tls.Server(a, config), tls.Client(b, config)
	result := make(chan error, 1)
	go func() {
		err := server.Handshake()
		if err == nil {
			_, err = server.Write([]byte("hello"))
		}
		result <- err
	}()
	got := make([]byte, 5)
	if _, err := client.Read(got); err != nil || string(got) != "hello" {
		t.Errorf("client: got %q, %v", got, err)
	}
	if err := <-result; err != nil {
		t.Errorf("server: %v", err)
	}
}
