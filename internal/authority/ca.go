package authority

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"touchstone.dev/touchstone/internal/store"
)

const (
	year            = 365 * 24 * time.Hour
	rootLifetime    = 20 * year
	issuingLifetime = 10 * year
	serverLifetime  = 90 * 24 * time.Hour
	operLifetime    = year
	bootLifetime    = 400 * 24 * time.Hour
	backdate        = 5 * time.Minute // for clocks that are behind
)

// oidAK is tcg-kp-AIKCertificate (TCG Credential Profile): the certified key signs attestations, and nothing on a TLS connection.
var oidAK = asn1.ObjectIdentifier{2, 23, 133, 8, 3}

// ca is the root and the issuing CA of AIAS.
type ca struct {
	root    *x509.Certificate
	issuing *x509.Certificate
	key     *ecdsa.PrivateKey // of issuing
	now     func() time.Time
}

// openCA loads both CAs from the vault, or makes them at the first start. The root's key is kept, sealed, for the next issuing CA.
func openCA(ctx context.Context, v *vault, now func() time.Time) (*ca, error) {
	c := &ca{now: now}
	key, err := v.get(ctx, "ca.issuing.key")
	if errors.Is(err, store.ErrNotFound) {
		return c, c.create(ctx, v)
	}
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("key of the issuing CA: %w", err)
	}
	var ok bool
	if c.key, ok = k.(*ecdsa.PrivateKey); !ok {
		return nil, fmt.Errorf("key of the issuing CA is a %T", k)
	}
	for name, cert := range map[string]**x509.Certificate{"ca.root.cert": &c.root, "ca.issuing.cert": &c.issuing} {
		der, err := v.store.Setting(ctx, name)
		if err != nil {
			return nil, err
		}
		if *cert, err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return c, nil
}

func (c *ca) create(ctx context.Context, v *vault) error {
	rootKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return err
	}
	if c.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	root := c.authority("AIAS root CA", rootLifetime, 1)
	if c.root, err = sign(root, root, &rootKey.PublicKey, rootKey); err != nil {
		return err
	}
	if c.issuing, err = sign(c.authority("AIAS issuing CA", issuingLifetime, 0), c.root, &c.key.PublicKey, rootKey); err != nil {
		return err
	}
	secrets := map[string][]byte{}
	for name, k := range map[string]*ecdsa.PrivateKey{"ca.root.key": rootKey, "ca.issuing.key": c.key} {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return err
		}
		secrets[name] = der
	}
	return v.put(ctx, secrets, map[string][]byte{"ca.root.cert": c.root.Raw, "ca.issuing.cert": c.issuing.Raw})
}

func (c *ca) authority(name string, lifetime time.Duration, depth int) *x509.Certificate {
	t := c.template(name, lifetime)
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLen, t.MaxPathLenZero = true, true, depth, depth == 0
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return t
}

func (c *ca) template(name string, lifetime time.Duration) *x509.Certificate {
	serial := new(big.Int).SetBytes(randomBytes(16))
	now := c.now()
	return &x509.Certificate{
		SerialNumber: serial.SetBit(serial, 127, 0), Subject: pkix.Name{Organization: []string{"Touchstone"}, CommonName: name},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(lifetime), KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %q: %w", template.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// agent issues the client certificate of a node.
func (c *ca) agent(node string, public crypto.PublicKey, lifetime time.Duration) (*x509.Certificate, error) {
	return c.client(roleNode, node, public, lifetime)
}

// bootAgent issues a certificate for the initramfs of a node, where nobody renews it. It says no more than the other one of the same key, and is good for less.
func (c *ca) bootAgent(node string, public crypto.PublicKey) (*x509.Certificate, error) {
	return c.client(roleBoot, node, public, bootLifetime)
}

// client issues a client certificate for a role.
func (c *ca) client(r role, name string, public crypto.PublicKey, lifetime time.Duration) (*x509.Certificate, error) {
	t := c.template(name, lifetime)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	t.URIs = []*url.URL{{Scheme: uriScheme, Opaque: string(r) + ":" + name}}
	return sign(t, c.issuing, public, c.key)
}

// attestationKey issues the certificate of an attestation key. It names no client or server use: no TLS peer takes it.
func (c *ca) attestationKey(node string, public crypto.PublicKey) (*x509.Certificate, error) {
	t := c.template(node, issuingLifetime/2)
	t.UnknownExtKeyUsage = []asn1.ObjectIdentifier{oidAK}
	return sign(t, c.issuing, public, c.key)
}

// server issues the certificate of this AIAS for DNS names and IP addresses.
func (c *ca) server(names []string, public crypto.PublicKey) (*x509.Certificate, error) {
	t := c.template("AIAS", serverLifetime)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	return sign(t, c.issuing, public, c.key)
}

// pool holds what client certificates must lead to: the issuing CA itself. Going on to the root would cost each handshake a verification on
// P-384, ten times that of the rest, and prove nothing more: AIAS made both.
func (c *ca) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.issuing)
	return p
}

func pemCerts(certs ...*x509.Certificate) string {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return b.String()
}

// keyHash is how keys are named: the SHA-256 of their SubjectPublicKeyInfo.
func keyHash(public crypto.PublicKey) ([32]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(der), nil
}
