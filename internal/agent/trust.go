package agent

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// serverTrust is how the agent recognises AIAS: a root it has, or the hash of a root that AIAS must show.
type serverTrust struct {
	roots *x509.CertPool
	pin   []byte // SHA-256 of the DER of the root
}

// parsePin reads "sha256:HEX".
func parsePin(s string) ([]byte, error) {
	h, ok := strings.CutPrefix(s, "sha256:")
	if !ok {
		return nil, errors.New("the hash of the root must begin with \"sha256:\" and nothing before it")
	}
	pin, err := hex.DecodeString(h)
	if err != nil || len(pin) != sha256.Size {
		return nil, errors.New("the hash of the root must be sha256: and 64 hexadecimal digits")
	}
	return pin, nil
}

// trustFrom chooses the trust for the configuration: the root of the enrolment when there is one, else the file, else the pin.
func trustFrom(cfg *Config, id *Identity) (serverTrust, error) {
	pool := x509.NewCertPool()
	switch {
	case cfg.CAFile != "":
		data, err := readBounded(cfg.CAFile, maxConfig)
		if err != nil {
			return serverTrust{}, fmt.Errorf("read the root of AIAS: %w", err)
		}
		if !pool.AppendCertsFromPEM(data) {
			return serverTrust{}, fmt.Errorf("read the root of AIAS: no certificate in %s", cfg.CAFile)
		}
	case id == nil && cfg.CAHash != "":
		pin, err := parsePin(cfg.CAHash)
		return serverTrust{pin: pin}, err
	case id == nil:
		return serverTrust{}, errors.New("nothing says which AIAS to trust: give --ca-hash (it comes with the token) or --ca-file, or set caHash or caFile in the configuration")
	}
	if id != nil && !pool.AppendCertsFromPEM([]byte(id.CA)) {
		return serverTrust{}, errors.New("the enrolment holds no root certificate: enrol again")
	}
	return serverTrust{roots: pool}, nil
}

// config returns the TLS configuration of the client. With a pin the standard verification is replaced, not dropped:
// verifyPinned runs the same chain check with the pinned certificate as the only root.
func (t serverTrust) config(host string, key *tls.Certificate) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: t.roots, ServerName: host}
	if t.pin != nil {
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(s tls.ConnectionState) error { return verifyPinned(s.PeerCertificates, host, t.pin) }
	}
	if key != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return key, nil }
	}
	return c
}

// covers checks the root that came with an enrolment: where a root was pinned it must be that one, since from now on it takes the
// place of the pin.
func (t serverTrust) covers(ca string) error {
	if t.pin == nil {
		return nil
	}
	certs, err := parsePEM(ca)
	if err != nil {
		return err
	}
	for _, c := range certs {
		if sum := sha256.Sum256(c.Raw); !bytes.Equal(sum[:], t.pin) {
			return fmt.Errorf("AIAS sent another root (%s) than the pinned one", c.Subject)
		}
	}
	return nil
}

// verifyPinned checks a server chain that contains its root: the root by its hash, the rest by X.509.
func verifyPinned(chain []*x509.Certificate, host string, pin []byte) error {
	if len(chain) == 0 {
		return errors.New("the server showed no certificate")
	}
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, c := range chain[1:] {
		sum := sha256.Sum256(c.Raw)
		if bytes.Equal(sum[:], pin) && c.IsCA {
			roots.AddCert(c)
			found = true
			continue
		}
		inter.AddCert(c)
	}
	if !found {
		return fmt.Errorf("the server is not under the pinned root sha256:%x: check the URL and the hash that came with the token", pin)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: inter})
	return err
}
