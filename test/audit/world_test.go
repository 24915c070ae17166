package audit

import (
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/agent"
	"touchstone.dev/touchstone/internal/audit/audittest"
	"touchstone.dev/touchstone/internal/authority"
	"touchstone.dev/touchstone/internal/cli"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/swtpm"
	"touchstone.dev/touchstone/internal/swtpm/machine"
	"touchstone.dev/touchstone/test/boots"
)

const (
	node = "worker-1"
	key  = "e2e-audit"
	// agentConfig tells the test binary to be the agent.
	agentConfig = "AUDIT_AGENT_CONFIG"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(agentConfig); path != "" {
		runAgent(path)
		return
	}
	os.Exit(m.Run())
}

// runAgent is the agent's process.
func runAgent(path string) {
	cfg, err := agent.LoadConfig(path)
	if err != nil {
		panic(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	a, err := agent.New(cfg, agent.HostAt(cfg.HostRoot), func() (agent.TPM, error) { return agent.OpenTPM(cfg.TPM) }, log)
	if err == nil {
		err = a.Run(context.Background())
	}
	panic(err)
}

// world is AIAS, a worker with auditd, and its agent.
type world struct {
	t      *testing.T
	dir    string
	auditd *audittest.Auditd
	worker *machine.Machine
	data   authority.Config
	bundle string
	client *operator.Client
	agent  *exec.Cmd
	config string
	halt   func() // AIAS
	folder string // what is audited
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "aud") // short: sockets lie in it
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, folder: filepath.Join(dir, "watched")}
	must(t, os.Mkdir(w.folder, 0o700))
	w.auditd = audittest.Start(t, audittest.Options{})
	w.auditd.Ctl("-a", "always,exit", "-F", "arch=b64", "-S", "mkdirat,mkdir", "-F", "dir="+w.folder, "-F", "key="+key)
	w.worker = machine.New(filepath.Join(dir, "w"), node, filepath.Join(dir, "ca"))
	t.Cleanup(func() { _ = w.worker.Close() })
	b, err := machine.Read(boots.Files, "corpus/good", false)
	must(t, err)
	must(t, w.worker.Boot(context.Background(), b))
	w.layOutAIAS()
	w.startAIAS()
	t.Cleanup(func() { w.halt() })
	w.configureAgent()
	w.startAgent()
	t.Cleanup(w.killAgent)
	return w
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
	w.data = cfg
}

// startAIAS begins to serve; halt ends it.
func (w *world) startAIAS() {
	t := w.t
	t.Helper()
	policy, err := os.ReadFile("../../internal/demo/policy.yaml")
	must(t, err)
	var l net.Listener
	for range 50 {
		if l, err = net.Listen("tcp", w.data.Listen); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	db, err := store.Open(ctx, filepath.Join(w.data.Data, "aias.db"), nil)
	must(t, err)
	load := func(p []byte) (*authority.Snapshot, error) {
		if len(p) == 0 {
			p = policy
		}
		return authority.LoadFrom(w.data.References)(p)
	}
	a, err := authority.New(ctx, w.data, authority.Dependencies{Store: db, Load: load, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
	must(t, err)
	if w.bundle == "" {
		_, err = a.WriteFirst()
		must(t, err)
		w.bundle = filepath.Join(w.data.Data, authority.OperatorFile)
		w.config = a.CAHash()
	}
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx, l) }()
	w.halt = func() { cancel(); <-done; _ = db.Close() }
	w.client, err = operator.Open(w.bundle)
	must(t, err)
}

func (w *world) configureAgent() {
	t := w.t
	token, err := w.client.CreateToken(context.Background(), protocol.TokenRequest{Node: node})
	must(t, err)
	cfg := agent.Defaults()
	cfg.Server, cfg.CAHash = "https://"+w.data.Address, w.config
	cfg.Node, cfg.HostRoot, cfg.StateDir, cfg.StatusFile = node, w.worker.Root, filepath.Join(w.dir, "state"), ""
	cfg.TokenFile, cfg.TPM = filepath.Join(w.dir, "token"), w.worker.Address()
	cfg.Audit = agent.AuditConfig{Enabled: true, Log: w.auditd.Log, SpoolBytes: 64 << 20}
	cfg.Backoff.Max = agent.Duration(time.Second)
	must(t, os.WriteFile(cfg.TokenFile, []byte(token.Secret), 0o600))
	b, err := json.Marshal(cfg)
	must(t, err)
	w.config = filepath.Join(w.dir, "agent.yaml")
	must(t, os.WriteFile(w.config, b, 0o600))
}

func (w *world) startAgent() {
	exe, err := os.Executable()
	must(w.t, err)
	w.agent = exec.Command(exe, "-test.run=^$")
	w.agent.Env = append(os.Environ(), agentConfig+"="+w.config)
	log, err := os.OpenFile(filepath.Join(w.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(w.t, err)
	w.agent.Stdout, w.agent.Stderr = log, log
	w.agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(w.t, w.agent.Start())
	_ = log.Close()
}

// killAgent ends the agent's process with kill -9.
func (w *world) killAgent() {
	_ = w.agent.Process.Kill()
	_ = w.agent.Wait()
	if w.t.Failed() {
		b, _ := os.ReadFile(filepath.Join(w.dir, "agent.log"))
		w.t.Logf("agent:\n%s", b[max(0, len(b)-4000):])
	}
}

// wait polls until something is so.
func (w *world) wait(what string, limit time.Duration, so func() bool) {
	w.t.Helper()
	for end := time.Now().Add(limit); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// touchstone runs the command line.
func (w *world) touchstone(args ...string) (string, int) {
	w.t.Helper()
	var out, errOut strings.Builder
	app := &cli.App{Out: &out, Err: &errOut, In: strings.NewReader(""), Now: time.Now}
	code := app.Run(context.Background(), append([]string{"touchstone", "--operator", w.bundle}, args...))
	return out.String() + errOut.String(), code
}
