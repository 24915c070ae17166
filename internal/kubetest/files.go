package kubetest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const validity = 24 * time.Hour // of certificates: longer than any test

// authority signs the certificates of one server.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// writeFiles makes everything that the server and the admin need.
func (s *Server) writeFiles() error {
	var err error
	if s.authority, s.CA, err = newAuthority(); err != nil {
		return err
	}
	serving := &x509.Certificate{
		Subject: pkix.Name{CommonName: "kube-apiserver"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)},
	}
	certificate, key, err := s.authority.sign(serving)
	if err != nil {
		return err
	}
	tokens, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := keyPEM(tokens)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&tokens.PublicKey)
	if err != nil {
		return err
	}
	if s.Kubeconfig, err = s.WriteKubeconfig("admin", "system:masters"); err != nil {
		return err
	}
	s.CAFile = filepath.Join(s.Dir, "ca.crt")
	for name, content := range map[string][]byte{
		"ca.crt": s.CA, "server.crt": certificate, "server.key": key, "sa.key": private,
		"sa.pub": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
	} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), content, 0o600); err != nil {
			return err
		}
	}
	s.admin, err = s.HTTP("admin", "system:masters")
	return err
}

// Certificate makes a client certificate for a user and groups, with its key; both PEM.
func (s *Server) Certificate(user string, groups ...string) (certificate, key []byte, err error) {
	return s.authority.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: user, Organization: groups}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// WriteKubeconfig writes a kubeconfig for a user and groups, and returns its path.
func (s *Server) WriteKubeconfig(user string, groups ...string) (string, error) {
	certificate, key, err := s.Certificate(user, groups...)
	if err != nil {
		return "", err
	}
	b64 := base64.StdEncoding.EncodeToString
	var b bytes.Buffer
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Config\ncurrent-context: kubetest\ncontexts: [{name: kubetest, context: {cluster: kubetest, user: %q}}]\n", user)
	fmt.Fprintf(&b, "clusters: [{name: kubetest, cluster: {server: %q, certificate-authority-data: %s}}]\n", s.URL, b64(s.CA))
	fmt.Fprintf(&b, "users: [{name: %q, user: {client-certificate-data: %s, client-key-data: %s}}]\n", user, b64(certificate), b64(key))
	f, err := os.CreateTemp(s.Dir, "kubeconfig")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b.Bytes())
	return f.Name(), errors.Join(err, f.Close())
}

func newAuthority() (*authority, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	root := &x509.Certificate{
		Subject: pkix.Name{CommonName: "kubetest"}, SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return &authority{certificate, key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

// sign completes a template and returns the certificate with a new key.
func (a *authority) sign(t *x509.Certificate) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	t.NotBefore, t.NotAfter, t.KeyUsage = time.Now().Add(-time.Hour), time.Now().Add(validity), x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = keyPEM(private)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key, err
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
