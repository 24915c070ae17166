package audit

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
	"touchstone.dev/touchstone/internal/swtpm/machine"
	"touchstone.dev/touchstone/test/boots"
)

const (
	node = "worker-1"
	key  = "e2e-audit"
	// agentConfig and aiasConfig tell the test binary to be the agent or AIAS.
	agentConfig = "AUDIT_AGENT_CONFIG"
	aiasConfig  = "AUDIT_AIAS_CONFIG"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(agentConfig); path != "" {
		runAgent(path)
		return
	}
	if path := os.Getenv(aiasConfig); path != "" {
		runAIAS(path)
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
	data   authority.Config // of AIAS
	bundle string
	client *operator.Client
	aias   *exec.Cmd
	agent  *exec.Cmd
	config string
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
	t.Cleanup(w.killAIAS)
	w.configureAgent()
	w.startAgent()
	t.Cleanup(w.killAgent)
	return w
}

func (w *world) configureAgent() {
	t := w.t
	token, err := w.client.CreateToken(context.Background(), protocol.TokenRequest{Node: node})
	must(t, err)
	cfg := agent.Defaults()
	cfg.Server, cfg.CAHash = "https://"+w.data.Address, w.caHash()
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

func (w *world) startAgent() { w.agent = w.start("agent.log", agentConfig+"="+w.config) }

// start runs the test binary once more, as what env says.
func (w *world) start(log, env string) *exec.Cmd {
	exe, err := os.Executable()
	must(w.t, err)
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), env)
	f, err := os.OpenFile(filepath.Join(w.dir, log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(w.t, err)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // it gets the signal when the thread ends that started it, and deeds end threads
		started <- cmd.Start()
		<-w.t.Context().Done()
	}()
	must(w.t, <-started)
	_ = f.Close()
	return cmd
}

// killAgent ends the agent's process with kill -9.
func (w *world) killAgent() { w.kill(w.agent, "agent.log") }

func (w *world) kill(cmd *exec.Cmd, log string) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if w.t.Failed() {
		b, _ := os.ReadFile(filepath.Join(w.dir, log))
		w.t.Logf("%s:\n%s", log, b[max(0, len(b)-4000):])
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
