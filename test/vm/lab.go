package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"touchstone.dev/touchstone/test/vm/control"
)

// File is a file that a machine gets, by absolute path.
type File = control.File

// Config says where a Lab keeps its things and where it reports.
type Config struct {
	// Cache is the folder for everything that is downloaded or built; "" means $XDG_CACHE_HOME/touchstone/vm, or
	// .cache/vm in the repository when that variable is not set.
	Cache string
	// Log receives one line for each step that takes time; nil is silence. It may be called from several goroutines.
	Log func(format string, a ...any)
}

// Lab holds what all machines share: packages, keys, the TPM manufacturer's CA, /init.
// Its methods may be called from several goroutines.
type Lab struct {
	Keys Keys

	root  string // of the repository
	cache string
	log   func(format string, a ...any)

	packages map[string]*Package
	kernel   string // package name of the current kernel
	other    string // of another one, or ""
	init     []byte
}

// Open makes the lab ready: it installs the Debian packages that are missing, downloads those that machines boot from,
// and builds /init. The first time takes a minute or two, later ones a few seconds.
func Open(ctx context.Context, c Config) (*Lab, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	l := &Lab{root: root, cache: c.Cache, log: c.Log, packages: map[string]*Package{}}
	if l.log == nil {
		l.log = func(string, ...any) {}
	}
	if l.cache == "" {
		l.cache = filepath.Join(root, ".cache", "vm")
		if x := os.Getenv("XDG_CACHE_HOME"); x != "" {
			l.cache = filepath.Join(x, "touchstone", "vm")
		}
	}
	if err := l.prune("disks", "signed"); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{l.installTools, l.openPackages, l.openKeys, l.openCA, l.buildInit} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// repository returns the folder of the go.mod that the tests run in.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no go.mod above %s: run this inside the repository", dir)
		}
	}
}

// buildInit builds the static /init of the machines. The Go command's own cache makes this cheap; the bytes depend on the sources only.
func (l *Lab) buildInit(ctx context.Context) (err error) {
	l.init, err = l.BuildStatic(ctx, "./test/vm/init")
	return err
}

// BuildStatic builds a program of this repository as the machines need it: without C, reproducibly.
func (l *Lab) BuildStatic(ctx context.Context, pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "vm-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, pkg)
	cmd.Dir = l.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", pkg, err, b)
	}
	return os.ReadFile(out)
}

// cached returns the folder of the thing with that key, built when it is not there. A build that fails leaves nothing behind.
func (l *Lab) cached(ctx context.Context, kind, key string, build func(ctx context.Context, dir string) error) (string, error) {
	final := filepath.Join(l.cache, kind, key)
	now := time.Now()
	if err := os.Chtimes(final, now, now); err == nil { // it is there, and prune sees that it is in use
		return final, nil
	}
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(filepath.Dir(final), ".building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := build(ctx, dir); err != nil {
		return "", fmt.Errorf("make %s: %w", kind, err)
	}
	if err := os.Rename(dir, final); err != nil {
		if _, there := os.Stat(final); there == nil {
			return final, nil // somebody else made the same in the meantime
		}
		return "", err
	}
	l.log("made %s %.12s in %.1f s", kind, key, time.Since(now).Seconds())
	return final, nil
}

// keep is for how long things that change with every build of the agent stay in the cache unused.
const keep = 12 * time.Hour

// prune removes what was not used for long.
func (l *Lab) prune(kinds ...string) error {
	for _, kind := range kinds {
		entries, err := os.ReadDir(filepath.Join(l.cache, kind))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || time.Since(info.ModTime()) < keep {
				continue
			}
			if err := os.RemoveAll(filepath.Join(l.cache, kind, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// run runs a tool with its working folder; its output appears in the error only.
func (l *Lab) run(ctx context.Context, dir, name string, args ...string) error {
	_, err := l.output(ctx, dir, name, args...)
	return err
}

// output is run for a tool whose standard output is wanted.
func (l *Lab) output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", "MTOOLS_SKIP_CHECK=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%s is not installed: %w", name, err)
		}
		return out, fmt.Errorf("%s %q: %w: %s%s", name, args, err, out, stderr.Bytes())
	}
	return out, nil
}

// digest returns a key for the cache; the parts' lengths count, so that no two lists of parts share a key by their joints.
func digest(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(p))))
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
