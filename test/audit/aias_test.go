package audit

import (
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"touchstone.dev/touchstone/internal/authority"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/swtpm"
	"touchstone.dev/touchstone/test/boots"
)

// hashFile is where AIAS writes what its agents pin, in its data folder.
const hashFile = "ca-hash"

// runAIAS is the process of AIAS.
func runAIAS(path string) {
	if err := serve(context.Background(), path); err != nil {
		panic(err)
	}
}

func serve(ctx context.Context, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var cfg authority.Config
	if err := json.Unmarshal(b, &cfg); err != nil {
		return err
	}
	policy, err := os.ReadFile(cfg.PolicyFile)
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, filepath.Join(cfg.Data, "aias.db"), nil)
	if err != nil {
		return err
	}
	load := func(p []byte) (*authority.Snapshot, error) {
		if len(p) == 0 {
			p = policy
		}
		return authority.LoadFrom(cfg.References)(p)
	}
	a, err := authority.New(ctx, cfg, authority.Dependencies{Store: db, Load: load, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(cfg.Data, hashFile), []byte(a.CAHash()), 0o600); err != nil {
		return err
	}
	if _, err := a.WriteFirst(); err != nil {
		return err
	}
	return a.Serve(ctx, l)
}

func (w *world) layOutAIAS() {
	t, data := w.t, filepath.Join(w.dir, "aias")
	cfg := authority.DefaultConfig()
	cfg.Data, cfg.References, cfg.SoftwareTPMRoots = data, filepath.Join(data, "references"), filepath.Join(data, "roots")
	cfg.ServerNames = []string{"127.0.0.1"}
	for _, d := range []string{cfg.References, cfg.SoftwareTPMRoots} {
		must(t, os.MkdirAll(d, 0o700))
	}
	for _, from := range []string{swtpm.RootFile(filepath.Join(w.dir, "ca")), swtpm.IssuerFile(filepath.Join(w.dir, "ca"))} {
		b, err := os.ReadFile(from)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(cfg.SoftwareTPMRoots, filepath.Base(from)), b, 0o600))
	}
	must(t, fs.WalkDir(boots.Files, "references", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := boots.Files.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(cfg.References, filepath.Base(name)), b, 0o600)
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	cfg.Listen, cfg.Address = l.Addr().String(), l.Addr().String()
	must(t, l.Close())
	cfg.PolicyFile, err = filepath.Abs("../../internal/demo/policy.yaml")
	must(t, err)
	b, err := json.Marshal(cfg)
	must(t, err)
	must(t, os.WriteFile(w.aiasFile(), b, 0o600))
	w.data, w.bundle = cfg, filepath.Join(data, authority.OperatorFile)
}

func (w *world) aiasFile() string { return filepath.Join(w.dir, "aias.json") }

func (w *world) caHash() string {
	b, err := os.ReadFile(filepath.Join(w.data.Data, hashFile))
	must(w.t, err)
	return string(b)
}

// startAIAS returns when AIAS answers.
func (w *world) startAIAS() {
	w.t.Helper()
	w.aias = w.start("aias.log", aiasConfig+"="+w.aiasFile())
	w.wait("AIAS", time.Minute, func() bool {
		var err error
		if w.client, err = operator.Open(w.bundle); err != nil {
			return false // not written yet
		}
		_, err = w.client.Nodes(context.Background())
		return err == nil
	})
}

// killAIAS ends it with kill -9.
func (w *world) killAIAS() { w.kill(w.aias, "aias.log") }
