package authority

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/verifier"
)

// Appraiser judges Evidence. *verifier.Verifier is one. All methods are safe for concurrent use.
type Appraiser interface {
	Snapshot() string
	Selections() []tpm.Selection
	Appraise(doc *evidence.Document, exp verifier.Expectation) (*verifier.Outcome, error)
}

// Snapshot is one policy with the references of one moment, compiled: what judges all nodes until the next one takes over.
type Snapshot struct {
	Appraiser  Appraiser
	Policy     []byte // YAML
	Lifetime   time.Duration
	Interval   time.Duration
	MaxSilence time.Duration       // of nodes that send audit events; 0: not judged
	Compliance verdict.Rules       // what the policy demands of a compliance scan
	Images     policy.Images       // which scans of images by workers count
	Tailoring  *protocol.Tailoring // for compliance scans; nil: none
	Roots      *x509.CertPool      // for EK certificates, imported by the operator
	Links      []*x509.Certificate
	References []protocol.Reference
	Warnings   []string

	selections []protocol.Selection
	byBoot     []protocol.Selection // those, and tpm.LatchPCR
	loaded     time.Time
}

// Loader compiles a policy (YAML) with the references as they are now.
type Loader func(policy []byte) (*Snapshot, error)

const settingPolicy = "policy"

// policySource returns the policy to compile: the file of the configuration, else what was put through the API, else nil for the default.
func (a *Authority) policySource(ctx context.Context) ([]byte, error) {
	if a.cfg.PolicyFile != "" {
		b, err := os.ReadFile(a.cfg.PolicyFile)
		if err != nil {
			return nil, fmt.Errorf("read the policy: %w", err)
		}
		return b, nil
	}
	b, err := a.store.Setting(ctx, settingPolicy)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return b, err
}

// compile makes a snapshot ready to be used.
func (a *Authority) compile(policy []byte) (*Snapshot, error) {
	s, err := a.load(policy)
	if err != nil {
		return nil, err
	}
	if s.Lifetime <= 0 || s.Interval <= 0 {
		return nil, errors.New("the policy gives no maxAge or interval for attestation")
	}
	for _, sel := range s.Appraiser.Selections() {
		s.selections = append(s.selections, protocol.Selection{Bank: sel.Alg.String(), PCRs: sel.PCRs.Indices()})
		s.byBoot = append(s.byBoot, protocol.Selection{Bank: sel.Alg.String(), PCRs: (sel.PCRs | tpm.PCRs(tpm.LatchPCR)).Indices()})
	}
	s.loaded = a.now()
	return s, nil
}

// Reload reads policy and references again and has nodes judged again from kept Evidence when the snapshot became another one. On an error
// the old snapshot stays in force.
func (a *Authority) Reload(ctx context.Context) (protocol.Snapshot, error) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	policy, err := a.policySource(ctx)
	if err != nil {
		return protocol.Snapshot{}, err
	}
	s, err := a.compile(policy)
	if err != nil {
		return protocol.Snapshot{}, err
	}
	if err := a.loadTrustFiles(); err != nil {
		return protocol.Snapshot{}, err
	}
	if err := a.loadRules(); err != nil {
		return protocol.Snapshot{}, err
	}
	if err := a.disks.Reload(ctx); err != nil {
		return protocol.Snapshot{}, err
	}
	a.adopt(s)
	return a.snapshotInfo(), nil
}

// adopt puts a snapshot in force.
func (a *Authority) adopt(s *Snapshot) {
	old := a.snapshot.Swap(s)
	if old == nil || old.Appraiser.Snapshot() != s.Appraiser.Snapshot() {
		a.log.Info("policy and references in force", "snapshot", s.Appraiser.Snapshot(), "references", len(s.References))
		a.askRejudge()
	}
}

// askRejudge has the nodes judged again that another snapshot judged.
func (a *Authority) askRejudge() {
	select {
	case a.rejudge <- struct{}{}:
	default:
	}
}

func (a *Authority) snapshotInfo() protocol.Snapshot {
	s := a.snapshot.Load()
	return protocol.Snapshot{ID: s.Appraiser.Snapshot(), Loaded: s.loaded, Warnings: s.Warnings, Pending: len(a.outdated(s))}
}

// loadTrustFiles reads the allow-list file and the roots of software TPMs.
func (a *Authority) loadTrustFiles() error {
	eks, err := readAllowList(a.cfg.EKAllowList)
	if err != nil {
		return err
	}
	roots, links, err := readCertificates(a.cfg.SoftwareTPMRoots)
	if err != nil {
		return fmt.Errorf("softwareTPMRoots: %w", err)
	}
	if a.cfg.SoftwareTPMRoots != "" {
		a.log.Warn("softwareTPMRoots is set: TPMs that are programs may enrol; their keys can be copied, so use it for demos and tests only",
			"folder", a.cfg.SoftwareTPMRoots)
	}
	a.trust.Store(&trustFiles{eks: eks, softRoots: roots, softLinks: links})
	return nil
}

// trustFiles are the operator's ways to accept EKs besides the imported roots.
type trustFiles struct {
	eks       map[[32]byte]string // hash to note
	softRoots *x509.CertPool      // nil when none are configured
	softLinks []*x509.Certificate
}

// readAllowList reads lines "SHA256 note"; '#' begins a comment.
func readAllowList(path string) (map[[32]byte]string, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the EK allow-list: %w", err)
	}
	out := map[[32]byte]string{}
	for i, line := range strings.Split(string(data), "\n") {
		line, _, _ = strings.Cut(line, "#")
		hash, note, _ := strings.Cut(strings.TrimSpace(line), " ")
		if hash == "" {
			continue
		}
		h, err := parseHash(hash)
		if err != nil {
			return nil, fmt.Errorf("EK allow-list %s line %d: %w", path, i+1, err)
		}
		out[h] = strings.TrimSpace(note)
	}
	return out, nil
}

func parseHash(s string) ([32]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 32 {
		return [32]byte{}, fmt.Errorf("%q is no SHA-256: want 64 hexadecimal digits", s)
	}
	return [32]byte(b), nil
}

// readCertificates reads the PEM files of a folder: self-signed certificates are roots, others links.
func readCertificates(dir string) (*x509.CertPool, []*x509.Certificate, error) {
	if dir == "" {
		return nil, nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	roots, links, n := x509.NewCertPool(), []*x509.Certificate(nil), 0
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".pem") && !strings.HasSuffix(e.Name(), ".crt") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, nil, err
		}
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "CERTIFICATE" {
				continue
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", e.Name(), err)
			}
			if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
				roots.AddCert(cert)
				n++
			} else {
				links = append(links, cert)
			}
		}
	}
	if n == 0 {
		return nil, nil, fmt.Errorf("no self-signed certificate in the .pem and .crt files of %s", dir)
	}
	return roots, links, nil
}
