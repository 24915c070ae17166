package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	_ "embed"

	"touchstone.dev/touchstone/internal/authority"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
	"touchstone.dev/touchstone/test/boots"
)

//go:embed policy.yaml
var policyYAML []byte

const (
	startTime = 30 * time.Second // until AIAS must be ready
	stopTime  = 15 * time.Second // until it must have ended, before it is killed
	maxShown  = 2000             // bytes of its log in an error
)

// server is `aias serve` as a process of its own, with a data folder that goes with it.
type server struct {
	dir    string
	idle   time.Duration // of its connections
	cmd    *exec.Cmd
	ended  chan error
	log    tail
	bundle *protocol.OperatorBundle
}

// startServer starts program on a free loopback port. TPMs that maker certified may enrol; limits on single nodes do not hold.
func startServer(ctx context.Context, program string, idle time.Duration, maker *softtpm.CA) (*server, error) {
	dir, err := os.MkdirTemp("", "touchstone-fleet-")
	if err != nil {
		return nil, fmt.Errorf("make the folder of AIAS: %w", err)
	}
	s := &server{dir: dir, idle: idle, ended: make(chan error, 1)}
	if err := s.start(ctx, program, maker); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *server) start(ctx context.Context, program string, maker *softtpm.CA) error {
	config, err := s.configure(ctx, maker)
	if err != nil {
		return err
	}
	s.cmd = exec.Command(program, "serve", "--config", config) //nolint:gosec,noctx // the operator's own program; stop ends it in order
	s.cmd.Stderr = &s.log
	s.cmd.SysProcAttr = own()
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return fmt.Errorf("start AIAS: %w: name the program with --aias", err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	return s.ready(ctx)
}

// configure lays out the folder and returns the path of the configuration.
func (s *server) configure(ctx context.Context, maker *softtpm.CA) (string, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return "", err
	}
	at := func(name string) string { return filepath.Join(s.dir, name) }
	c := authority.DefaultConfig()
	c.Listen, c.Address, c.Data, c.ServerNames = address, address, at("data"), []string{"127.0.0.1"}
	c.References, c.SoftwareTPMRoots, c.PolicyFile = at("references"), at("tpm-roots"), at("policy.yaml")
	c.Limits.PerNode, c.Limits.PerNodeBurst, c.Limits.Enrolments = 1e6, 1_000_000, 1e6
	c.Limits.Connections, c.Limits.Idle, c.Log.Level = 2*MaxNodes, authority.Duration(s.idle), "warn"
	text, err := json.Marshal(c) // JSON is YAML
	if err != nil {
		return "", err
	}
	issuer := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: maker.Issuer.Raw})
	files := map[string][]byte{
		at("aias.yaml"): text, c.PolicyFile: policyYAML,
		filepath.Join(c.SoftwareTPMRoots, "root.pem"): maker.RootPEM(), filepath.Join(c.SoftwareTPMRoots, "issuer.pem"): issuer,
	}
	err = fs.WalkDir(boots.Files, "references", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := boots.Files.ReadFile(name)
		files[filepath.Join(c.References, filepath.Base(name))] = data
		return err
	})
	for name, data := range files {
		err = errors.Join(err, os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, data, 0o600))
	}
	if err != nil {
		return "", fmt.Errorf("write the configuration of AIAS: %w", err)
	}
	return at("aias.yaml"), nil
}

// freeAddress names a loopback port that nobody listens on.
func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// ready waits until AIAS answers.
func (s *server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		if b, err := readBundle(filepath.Join(s.dir, "data", authority.OperatorFile)); err == nil {
			c, err := operator.New(*b)
			if err != nil {
				return err
			}
			err = c.Ready(ctx)
			c.Close()
			if err == nil {
				s.bundle = b
				return nil
			}
		}
		select {
		case err := <-s.ended:
			s.ended <- err
			return fmt.Errorf("AIAS ended before it was ready (%w): %s", err, s.log.String())
		case <-ctx.Done():
			return fmt.Errorf("AIAS is not ready: %w: %s", ctx.Err(), s.log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends AIAS and removes its folder.
func (s *server) stop() error {
	var err error
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err = <-s.ended:
		case <-time.After(stopTime):
			err = errors.Join(errors.New("AIAS did not stop when asked to"), s.cmd.Process.Kill(), <-s.ended)
		}
		if err != nil {
			err = fmt.Errorf("stop AIAS: %w: %s", err, s.log.String())
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

func readBundle(name string) (*protocol.OperatorBundle, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the operator bundle: %w", err)
	}
	b := &protocol.OperatorBundle{}
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("operator bundle %s: %w", name, err)
	}
	return b, nil
}

// tail keeps the end of what a program writes.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// Write keeps the end of b.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-maxShown):]
	return len(b), nil
}

// String returns what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.text))
}
