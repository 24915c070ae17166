package vm

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Key is a code-signing key of the lab, with its self-signed certificate.
type Key struct {
	Name        string
	Certificate *x509.Certificate
	keyFile     string // PEM, as sbsign wants it
	certFile    string // PEM
}

// Keys are the keys that the lab signs with. They are made once and kept in the cache, so that measurements repeat.
type Keys struct {
	Owner *Key // the machine's owner: in PK, KEK and db with OwnKeys
	MOK   *Key // enrolled in shim's list with MOKEnrolled
	Rogue *Key // nobody trusts it
}

func (l *Lab) openKeys(ctx context.Context) error {
	for _, k := range []struct {
		name string
		to   **Key
	}{{"owner", &l.Keys.Owner}, {"mok", &l.Keys.MOK}, {"rogue", &l.Keys.Rogue}} {
		dir, err := l.cached(ctx, "keys", k.name, func(_ context.Context, dir string) error { return makeKey(k.name, dir) })
		if err != nil {
			return err
		}
		if *k.to, err = loadKey(k.name, dir); err != nil {
			return err
		}
	}
	return nil
}

func loadKey(name, dir string) (*Key, error) {
	k := &Key{Name: name, keyFile: filepath.Join(dir, "key.pem"), certFile: filepath.Join(dir, "cert.pem")}
	b, err := os.ReadFile(k.certFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM certificate: remove the folder and try again", k.certFile)
	}
	k.Certificate, err = x509.ParseCertificate(block.Bytes)
	return k, err
}

// makeKey makes an RSA-2048 key, the only kind that every shim and firmware takes.
func makeKey(name, dir string) error {
	priv, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Touchstone lab " + name},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().AddDate(20, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, priv.Public(), priv)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(dir, "key.pem"), "PRIVATE KEY", keyDER, 0o600); err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, "cert.pem"), "CERTIFICATE", der, 0o644)
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

// sign returns the PE image with all its signatures removed and one by k added.
func (l *Lab) sign(ctx context.Context, image string, k *Key) (string, error) {
	in, err := os.ReadFile(image)
	if err != nil {
		return "", err
	}
	dir, err := l.cached(ctx, "signed", digest([]byte("sign 1"), in, k.Certificate.Raw), func(ctx context.Context, dir string) error {
		out := filepath.Join(dir, "image.efi")
		if err := os.WriteFile(out, in, 0o644); err != nil {
			return err
		}
		// shim carries two signatures; sbattach takes one at a time and fails when none is left.
		for range 4 {
			if l.run(ctx, dir, "sbattach", "--remove", out) != nil {
				break
			}
		}
		return l.run(ctx, dir, "sbsign", "--key", k.keyFile, "--cert", k.certFile, "--output", out, out)
	})
	return filepath.Join(dir, "image.efi"), err
}
