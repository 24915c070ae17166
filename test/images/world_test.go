//go:build images

package images

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/admission/images/imagetest"
	"touchstone.dev/touchstone/internal/agent"
	"touchstone.dev/touchstone/internal/authority"
	"touchstone.dev/touchstone/internal/cli"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/runtimeconf"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/swtpm"
	"touchstone.dev/touchstone/internal/swtpm/machine"
	"touchstone.dev/touchstone/test/boots"
)

// world is everything on one machine: AIAS, a worker with its agent, a registry, and the worker's containerd.
type world struct {
	t        *testing.T
	dir      string
	registry string // host:port
	aias     *operator.Client
	server   *authority.Authority
	bundle   string
	worker   *machine.Machine
	cfg      agent.Config
	reports  chan agent.Report
	ask      func()
	stop     func()
	stopAIAS func()
	cri      *runtimeCRI
	version  runtimeconf.Version // of containerd
	pods     []string            // sandboxes that were made
	tpmTime  atomic.Int64        // that the agent waited for its TPM
}

const node = "worker-1"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	need(t)
	dir, err := os.MkdirTemp("", "img") // short: sockets lie in it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, reports: make(chan agent.Report, 1000)}
	w.registry = imagetest.NewStock(t).Host
	w.startWorker()
	w.startAIAS()
	w.startAgent()
	w.layOutWorker()
	return w
}

// need installs what is missing.
func need(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("containers are run: use root")
	}
	var missing []string
	for probe, name := range map[string]string{"/usr/bin/containerd": "containerd", "/usr/sbin/runc": "runc", "/bin/busybox": "busybox-static", "/usr/bin/swtpm": "swtpm", "/usr/bin/swtpm_setup": "swtpm-tools",
		"/usr/bin/docker-registry": "docker-registry", "/usr/bin/skopeo": "skopeo"} {
		if _, err := os.Stat(probe); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return
	}
	out, err := exec.Command("apt-get", append([]string{"install", "-qq", "-y", "--no-install-recommends"}, missing...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("install %v: %v\n%s", missing, err, out)
	}
}

func (w *world) boot(name string) {
	w.t.Helper()
	b, err := machine.Read(boots.Files, "corpus/"+name, false)
	must(w.t, err)
	must(w.t, w.worker.Boot(context.Background(), b))
}

func (w *world) startWorker() {
	w.worker = machine.New(filepath.Join(w.dir, "w"), node, filepath.Join(w.dir, "ca"))
	w.t.Cleanup(func() { _ = w.worker.Close() })
	w.boot("good")
}

func (w *world) startAIAS() {
	t, data := w.t, filepath.Join(w.dir, "aias")
	cfg := authority.DefaultConfig()
	cfg.Data, cfg.References, cfg.SoftwareTPMRoots = data, filepath.Join(data, "references"), filepath.Join(data, "roots")
	cfg.ServerNames = []string{"127.0.0.1"}
	for _, d := range []string{cfg.References, cfg.SoftwareTPMRoots} {
		must(t, os.MkdirAll(d, 0o700))
	}
	for _, from := range []string{swtpm.RootFile(filepath.Join(w.dir, "ca")), swtpm.IssuerFile(filepath.Join(w.dir, "ca"))} {
		copyFile(t, from, filepath.Join(cfg.SoftwareTPMRoots, filepath.Base(from)), 0o600)
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
	policy, err := os.ReadFile("../../internal/demo/policy.yaml")
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	cfg.Listen, cfg.Address = l.Addr().String(), l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	db, err := store.Open(ctx, filepath.Join(data, "aias.db"), nil)
	must(t, err)
	load := func(p []byte) (*authority.Snapshot, error) {
		if len(p) == 0 {
			p = policy
		}
		return authority.LoadFrom(cfg.References)(p)
	}
	a, err := authority.New(ctx, cfg, authority.Dependencies{Store: db, Load: load, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	w.server = a
	_, err = a.WriteFirst()
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx, l) }()
	w.stopAIAS = sync.OnceFunc(func() { cancel(); <-done; _ = db.Close() })
	t.Cleanup(w.stopAIAS)
	w.bundle = filepath.Join(data, authority.OperatorFile)
	w.aias, err = operator.Open(w.bundle)
	must(t, err)
	w.cfg = agent.Defaults()
	w.cfg.Server, w.cfg.CAHash = "https://"+cfg.Address, a.CAHash()
}

func (w *world) startAgent() {
	t := w.t
	token, err := w.aias.CreateToken(context.Background(), protocol.TokenRequest{Node: node})
	must(t, err)
	c := &w.cfg
	c.Node, c.HostRoot, c.StateDir, c.StatusFile = node, w.worker.Root, filepath.Join(w.dir, "state"), ""
	c.TokenFile, c.TPM = filepath.Join(w.dir, "token"), w.worker.Address()
	c.Watch.Interval = agent.Duration(100 * time.Millisecond)
	c.ImageProvider.Socket, c.ImageProvider.Runtime = filepath.Join(w.dir, "kp.sock"), filepath.Join(w.dir, "c", "c.sock")
	must(t, os.WriteFile(c.TokenFile, []byte(token.Secret), 0o600))
	w.runAgent()
	t.Cleanup(func() { w.stop() })
	w.attested()
}

func (w *world) runAgent() {
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("IMAGES_LOG") != "" {
		log = slog.Default()
	}
	a, err := agent.New(w.cfg, agent.HostAt(w.worker.Root), func() (agent.TPM, error) {
		t, err := agent.OpenTPM(w.cfg.TPM)
		return timedTPM{t, &w.tpmTime}, err
	}, log)
	must(w.t, err)
	a.Observe = func(r agent.Report) { w.reports <- r }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	w.ask, w.stop = a.Ask, func() { cancel(); <-done }
}

// attested waits for an attestation that begins now or later.
func (w *world) attested() *protocol.Attestation {
	w.t.Helper()
	for len(w.reports) > 0 {
		<-w.reports
	}
	w.ask()
	since := time.Now().Add(-time.Second)
	for {
		select {
		case r := <-w.reports:
			if r.Err == nil && r.Time.After(since) {
				return r.Attestation
			}
			if r.Err != nil {
				w.t.Logf("attestation: %v", r.Err)
			}
		case <-time.After(60 * time.Second):
			w.t.Fatal("no attestation")
		}
	}
}

func copyFile(t *testing.T, from, to string, mode fs.FileMode) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, mode))
}

// touchstone runs the command line.
func (w *world) touchstone(args ...string) string {
	w.t.Helper()
	var out, errOut strings.Builder
	app := &cli.App{Out: &out, Err: &errOut, In: strings.NewReader(""), Now: time.Now}
	if code := app.Run(context.Background(), append([]string{"touchstone", "--operator", w.bundle}, args...)); code != 0 {
		w.t.Fatalf("touchstone %q: exit code %d: %s", args, code, errOut.String())
	}
	return out.String()
}

// encrypt encrypts an image of the registry, and returns the new one and the ID of its key.
func (w *world) encrypt(from, to, class string) (image, key string) {
	w.t.Helper()
	_, key = w.encryptAt(w.registry+"/"+from, w.registry+"/"+to, class)
	return w.registry + "/" + to, key
}

// encryptAt encrypts an image from place to place, and returns it with its digest, and the ID of its key.
func (w *world) encryptAt(from, to, class string) (image, key string) {
	w.t.Helper()
	var done struct {
		Image string
		Key   struct{ ID string }
	}
	out := w.touchstone("image", "encrypt", from, to, "--trust-class", class, "--plain-http", "-o", "json")
	must(w.t, json.Unmarshal([]byte(out), &done))
	return done.Image, done.Key.ID
}

func (w *world) class(name, conditions string) {
	w.t.Helper()
	file := filepath.Join(w.dir, "class.json")
	must(w.t, os.WriteFile(file, []byte(conditions), 0o600))
	w.touchstone("class", "set", name, file)
}

// build builds a program of the repository.
func build(t *testing.T, name, to string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, "../../cmd/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("build %s: %w\n%s", name, err, out))
	}
}
