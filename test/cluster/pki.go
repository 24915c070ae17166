package cluster

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"touchstone.dev/touchstone/internal/kubetest"
)

const validity = 7 * 24 * time.Hour // of certificates: longer than anybody keeps a cluster

// issuer signs certificates and keeps them, with keys, as NAME.crt and NAME.key in its folder.
type issuer struct {
	*kubetest.Authority
	dir string
}

func newIssuer(dir, name string) (*issuer, error) {
	a, err := kubetest.NewAuthority(name, validity)
	if err != nil {
		return nil, err
	}
	key, err := a.KeyPEM()
	if err != nil {
		return nil, err
	}
	return &issuer{a, dir}, writeFiles(dir, map[string][]byte{name + ".crt": a.PEM, name + ".key": key})
}

// subject is what a certificate says; hosts are names and addresses of a server.
type subject struct {
	user   string
	groups []string
	hosts  []string
}

// issue makes a certificate for servers and clients, and its key.
func (a *issuer) issue(file string, s subject) error {
	certificate, key, err := a.sign(s)
	if err != nil {
		return err
	}
	return writeFiles(a.dir, map[string][]byte{file + ".crt": certificate, file + ".key": key})
}

func (a *issuer) sign(s subject) (certificate, key []byte, err error) {
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: s.user, Organization: s.groups}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, h := range s.hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return a.Sign(t)
}

// kubeconfig returns the text of a kubeconfig for a user of the cluster.
func (a *issuer) kubeconfig(server string, s subject) ([]byte, error) {
	certificate, key, err := a.sign(s)
	if err != nil {
		return nil, err
	}
	return a.Kubeconfig(server, kubetest.CertificateCredentials(certificate, key)), nil
}

// writeFiles writes files into a folder, which is made when it is missing.
func writeFiles(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// caHash pins a certificate (PEM) the way agents do.
func caHash(text []byte) (string, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return "", errors.New("AIAS gave no certificate")
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(block.Bytes)), nil
}
