package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"touchstone.dev/touchstone/internal/protocol"
)

// OperatorFile is the name of the first operator's bundle in the data folder.
const OperatorFile = "operator.json"

// CAFile is the name of the root certificate in the data folder, for agents.
const CAFile = "ca.pem"

// Operator makes the bundle of an operator: address, CA, and a client certificate with its key, which is kept nowhere else.
func (a *Authority) Operator(name string) (*protocol.OperatorBundle, error) {
	return a.bundle(roleOperator, name)
}

// RelyingParty makes the bundle of a Relying Party, which may read results and nothing else.
func (a *Authority) RelyingParty(name string) (*protocol.OperatorBundle, error) {
	return a.bundle(roleRelyingParty, name)
}

// Controller makes the bundle of a trust-controller, which may read results and put policy and tags.
func (a *Authority) Controller(name string) (*protocol.OperatorBundle, error) {
	return a.bundle(roleController, name)
}

func (a *Authority) bundle(r role, name string) (*protocol.OperatorBundle, error) {
	if err := checkNodeName(name); err != nil {
		return nil, fmt.Errorf("name %q of %s: %w", name, article(r), err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert, err := a.ca.client(r, name, &key.PublicKey, operLifetime)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &protocol.OperatorBundle{
		Server: "https://" + a.cfg.Address, CA: pemCerts(a.ca.root), Certificate: pemCerts(cert, a.ca.issuing),
		Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	}, nil
}

// WriteBundle writes a bundle to a file that only its owner can read. It never overwrites.
func WriteBundle(b *protocol.OperatorBundle, path string) error {
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	if err := writeNew(path, append(data, '\n')); err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	return nil
}

// writeNew writes a file that only its owner can read. It is there whole and on disk, or not at all, also after a crash; one that is there already
// stays as it is (fs.ErrExist).
func writeNew(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil { // unlike a rename it replaces nothing
		return err
	}
	d, err := os.Open(dir) //nolint:gosec // the folder of the file that was just made
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// WriteFirst writes the first operator's bundle and the root certificate into the data folder, where they are missing. It reports
// whether it made the bundle.
func (a *Authority) WriteFirst() (bool, error) {
	if err := os.WriteFile(filepath.Join(a.cfg.Data, CAFile), []byte(pemCerts(a.ca.root)), 0o644); err != nil { //nolint:gosec // public
		return false, fmt.Errorf("write the root certificate: %w", err)
	}
	b, err := a.Operator("admin")
	if err != nil {
		return false, err
	}
	err = WriteBundle(b, filepath.Join(a.cfg.Data, OperatorFile))
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// CAHash is the SHA-256 of the root certificate, as agents pin it: "sha256:" and hexadecimal digits.
func (a *Authority) CAHash() string { return hashOf(a.ca.root.Raw) }

func hashOf(der []byte) string {
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}
