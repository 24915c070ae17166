package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"touchstone.dev/touchstone/internal/authority"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/swtpm"
	"touchstone.dev/touchstone/test/boots"
)

//go:embed policy.yaml
var policyYAML []byte

// aias is AIAS in this process, on a loopback port.
type aias struct {
	server string
	caHash string
	bundle string // path of the operator's bundle
	client *operator.Client
	stop   func() error
}

// startAIAS starts AIAS with its data in dir. Software TPMs may enrol when the authority in ekCA certified them.
func startAIAS(ctx context.Context, dir, ekCA string, log *slog.Logger) (*aias, error) {
	cfg, err := configure(dir, ekCA)
	if err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start AIAS: %w", err)
	}
	cfg.Listen, cfg.Address = l.Addr().String(), l.Addr().String()
	db, err := store.Open(ctx, filepath.Join(dir, "aias.db"), nil)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	a, err := authority.New(ctx, cfg, authority.Dependencies{Store: db, Load: load(cfg.References), Log: log})
	if err == nil {
		_, err = a.WriteFirst()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start AIAS: %w", err), l.Close(), db.Close())
	}
	out := &aias{server: "https://" + cfg.Address, caHash: a.CAHash(), bundle: filepath.Join(dir, authority.OperatorFile)}
	if out.client, err = operator.Open(out.bundle); err != nil {
		return nil, errors.Join(err, l.Close(), db.Close())
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // it outlives the workers, which stop when ctx ends
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx, l) }()
	out.stop = func() error {
		out.client.Close()
		cancel()
		return errors.Join(<-done, db.Close())
	}
	return out, nil
}

// load compiles policies as AIAS does; until somebody sets another one, the policy of the demo holds.
func load(dir string) authority.Loader {
	return func(policy []byte) (*authority.Snapshot, error) {
		if len(policy) == 0 {
			policy = policyYAML
		}
		return authority.LoadFrom(dir)(policy)
	}
}

// configure lays out the data folder: policy, references, roots of the software TPMs.
func configure(dir, ekCA string) (authority.Config, error) {
	cfg := authority.DefaultConfig()
	cfg.Data, cfg.References = dir, filepath.Join(dir, "references")
	cfg.SoftwareTPMRoots = filepath.Join(dir, "software-tpm-roots")
	cfg.ServerNames = []string{"127.0.0.1"}
	for _, d := range []string{cfg.References, cfg.SoftwareTPMRoots} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return cfg, fmt.Errorf("make the folder of AIAS: %w", err)
		}
	}
	for _, from := range []string{swtpm.RootFile(ekCA), swtpm.IssuerFile(ekCA)} {
		data, err := os.ReadFile(from)
		if err != nil {
			return cfg, fmt.Errorf("read the certificates of the software TPMs: %w", err)
		}
		if err := os.WriteFile(filepath.Join(cfg.SoftwareTPMRoots, filepath.Base(from)), data, 0o600); err != nil {
			return cfg, fmt.Errorf("write the certificates of the software TPMs: %w", err)
		}
	}
	return cfg, writeReferences(cfg.References)
}

// writeReferences lays out what was imported from the Debian packages that booted, cut down to what the demo's workers load, and the
// firmware and Secure Boot keys captured from the good boot.
func writeReferences(dir string) error {
	return fs.WalkDir(boots.Files, "references", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := boots.Files.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, filepath.Base(name)), data, 0o600)
	})
}

// token makes a join token for one worker.
func (a *aias) token(ctx context.Context, node string) (string, error) {
	t, err := a.client.CreateToken(ctx, protocol.TokenRequest{Node: node, Uses: 1, Seconds: int64((10 * time.Minute).Seconds()), Note: "demo"})
	if err != nil {
		return "", fmt.Errorf("make a join token: %w", err)
	}
	return t.Secret, nil
}
