package agent

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// ErrNotEnrolled means that the state folder holds no enrolment.
var ErrNotEnrolled = errors.New("not enrolled: run `trust-agent enrol --server URL --token TOKEN --ca-hash HASH`")

// errExpired means that the worker was away for so long that its certificate ended.
var errExpired = errors.New("the client certificate has expired: enrol again with a new token and --force")

// enrolmentFile is the one file of the state folder. One file, so that it is replaced as a whole or not at all.
const enrolmentFile = "enrolment.json"

// maxEnrolment bounds the enrolment file and every JSON answer of AIAS in bytes.
const maxEnrolment = 1 << 20

// Identity is what an enrolled worker keeps: certificates and names. The keys stay in the TPM.
type Identity struct {
	Node          string    `json:"node"`
	Server        string    `json:"server"`
	Certificate   string    `json:"certificate"`   // client certificate with its chain, PEM
	AKCertificate string    `json:"akCertificate"` // PEM
	CA            string    `json:"ca"`            // root certificate of AIAS, PEM
	Enrolled      time.Time `json:"enrolled"`
}

// newIdentity keeps what an Enrolment says, after it was found to make sense.
func newIdentity(server string, e *protocol.Enrolment, now time.Time) (*Identity, error) {
	id := &Identity{
		Node: e.Node, Server: server, Certificate: e.Certificate, AKCertificate: e.AKCertificate, CA: e.CA, Enrolled: now.UTC(),
	}
	if id.Node == "" {
		return nil, errors.New("the enrolment names no node")
	}
	if _, err := id.chain(); err != nil {
		return nil, err
	}
	if _, err := parsePEM(id.CA); err != nil {
		return nil, fmt.Errorf("root certificate of the enrolment: %w", err)
	}
	return id, nil
}

// chain returns the client certificate and its intermediates, DER, the leaf first.
func (id *Identity) chain() ([][]byte, error) {
	certs, err := parsePEM(id.Certificate)
	if err != nil {
		return nil, fmt.Errorf("client certificate of the enrolment: %w", err)
	}
	out := make([][]byte, len(certs))
	for i, c := range certs {
		out[i] = c.Raw
	}
	return out, nil
}

// Validity returns the life time of the client certificate.
func (id *Identity) Validity() (notBefore, notAfter time.Time, err error) {
	certs, err := parsePEM(id.Certificate)
	if err != nil {
		return time.Time{}, time.Time{}, err
	}
	return certs[0].NotBefore, certs[0].NotAfter, nil
}

// expired returns errExpired when the client certificate is of no use any more.
func (id *Identity) expired(now time.Time) error {
	_, until, err := id.Validity()
	if err == nil && now.After(until) {
		err = errExpired
	}
	return err
}

// renewAt is the moment from which the client certificate should be renewed: after two thirds of its life.
func (id *Identity) renewAt() (time.Time, error) {
	from, until, err := id.Validity()
	if err != nil {
		return time.Time{}, err
	}
	return from.Add(until.Sub(from) * 2 / 3), nil
}

// LoadIdentity reads the enrolment of a state folder. It returns ErrNotEnrolled when there is none.
func LoadIdentity(dir string) (*Identity, error) {
	data, err := readBounded(filepath.Join(dir, enrolmentFile), maxEnrolment)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotEnrolled
	}
	if err != nil {
		return nil, fmt.Errorf("read the enrolment: %w", err)
	}
	id := &Identity{}
	if err := json.Unmarshal(data, id); err != nil {
		return nil, fmt.Errorf("read the enrolment: %w: remove %s and enrol again", err, filepath.Join(dir, enrolmentFile))
	}
	if _, err := id.chain(); err != nil {
		return nil, fmt.Errorf("%w: remove %s and enrol again", err, filepath.Join(dir, enrolmentFile))
	}
	return id, nil
}

// Save writes the enrolment into a state folder, as a whole or not at all.
func (id *Identity) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	data, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the enrolment: %w", err)
	}
	return writeAtomic(filepath.Join(dir, enrolmentFile), append(data, '\n'), 0o600)
}

// parsePEM reads the certificates of a PEM text; one at least.
func parsePEM(text string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate in the PEM text")
	}
	return out, nil
}

// writeAtomic replaces a file so that a reader, or a crash, sees the old or the new content and nothing between.
func writeAtomic(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone already when all went well
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		dir.Sync() //nolint:errcheck // some file systems cannot sync a folder; the rename stands all the same
		dir.Close()
	}
	return nil
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, nil
}
