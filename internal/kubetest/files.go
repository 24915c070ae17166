package kubetest

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"
)

const validity = 24 * time.Hour // of certificates: longer than any test

// writeFiles makes everything that the server and the admin need.
func (s *Server) writeFiles() error {
	var err error
	if s.authority, err = NewAuthority("kubetest", validity); err != nil {
		return err
	}
	s.CA = s.authority.PEM
	serving := &x509.Certificate{
		Subject: pkix.Name{CommonName: "kube-apiserver"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)},
	}
	certificate, key, err := s.authority.Sign(serving)
	if err != nil {
		return err
	}
	private, public, err := TokenKey()
	if err != nil {
		return err
	}
	if s.Kubeconfig, err = s.WriteKubeconfig("admin", "system:masters"); err != nil {
		return err
	}
	s.CAFile = filepath.Join(s.Dir, "ca.crt")
	for name, content := range map[string][]byte{
		"ca.crt": s.CA, "server.crt": certificate, "server.key": key, "sa.key": private, "sa.pub": public,
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
	return s.authority.Sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: user, Organization: groups}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// WriteKubeconfig writes a kubeconfig for a user and groups, and returns its path.
func (s *Server) WriteKubeconfig(user string, groups ...string) (string, error) {
	certificate, key, err := s.Certificate(user, groups...)
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(s.Dir, "kubeconfig")
	if err != nil {
		return "", err
	}
	_, err = f.Write(s.authority.Kubeconfig(s.URL, CertificateCredentials(certificate, key)))
	return f.Name(), errors.Join(err, f.Close())
}
