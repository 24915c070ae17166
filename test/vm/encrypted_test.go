//go:build vm

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/nbde"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/swtpm"
	"touchstone.dev/touchstone/internal/tpm"
)

// encryptedLine is the command line of a worker with an encrypted root: the network comes up in the initramfs, IMA measures there. On a busy host an
// emulated timer can be so late that the kernel would take it for broken, and panic: no_timer_check. Not quiet: the prompt for the
// passphrase ends no line, and is recorded with what follows it.
const encryptedLine = "root=/dev/mapper/root ro net.ifnames=0 ip=:::::eth0:dhcp console=ttyS0,115200 ima_policy=tcb module.sig_enforce=1 no_timer_check panic=-1"

const passphrase = "correct horse battery staple"

// What the console shows.
const (
	saysAttests = "trust-agent: attesting to"
	saysOpen    = "trust-agent: AIAS opens the disks"
	saysRefused = "trust-agent: AIAS does not open the disks"
	saysAway    = "trust-agent: no verdict in time"
	prompt      = "Please unlock disk root"
)

// screen keeps what a console shows.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) clear() { s.mu.Lock(); s.b.Reset(); s.mu.Unlock() }

func (s *screen) shows(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Contains(s.b.Bytes(), []byte(text))
}

// vault is a worker whose root disk is encrypted and opens by attestation.
type vault struct {
	lab     *Lab
	aias    *aias
	machine *Machine
	screen  *screen
	line    string  // command line
	boot    *coming // the latest
}

const vaultName = "vault"

// TestEncryptedRoot boots a worker with measured boot and an encrypted root, with Debian's initramfs, unmodified clevis, and what `trust-agent initramfs
// install` puts there. Its disk opens after it attested; while AIAS does not know its firmware, with another command line, or without AIAS, it does not.
func TestEncryptedRoot(t *testing.T) {
	v := newVault(t, initramfsTools)
	up := v.start(t, "first boot")
	v.await(t, saysRefused)
	v.aias.capture(t, vaultName)
	v.aias.reload(t)
	up.opened(t) // the agent goes on attesting: no reboot is needed
	v.checkOpened(t)
	v.stop(t)

	up = v.start(t, "good boot")
	v.await(t, saysAttests)
	since := time.Now()
	v.await(t, saysOpen)
	t.Logf("good boot: attested and judged within %.1f s, the network's start included", time.Since(since).Seconds())
	up.opened(t)
	v.checkOpened(t)
	v.checkLatched(t)
	v.checkStage(t)
	v.checkKexec(t)

	v.change(t, func(o *Options) { o.CommandLine += " mitigations=off" })
	up = v.start(t, "command line changed")
	v.await(t, "trust-agent:   level 4, kernel.command-line: ")
	v.await(t, "what to do: ")
	v.await(t, prompt)
	eventually(t, "clevis was refused", func() bool {
		l := v.disk(t).Last
		return l != nil && !l.Released && strings.Contains(l.Reason, "level 4 is fail")
	})
	v.checkLedger(t, ledger.KeyReleased, string(nbde.GrantBinding))
	v.checkLedger(t, ledger.KeyRefused, "level 4 is fail")
	up.end(t)
	if v.screen.shows(saysOpen) {
		t.Error("command line changed: the console says that the disk opens")
	}

	v.change(t, func(o *Options) { o.CommandLine = v.line })
	v.aias.stop()
	up = v.start(t, "AIAS is down")
	v.await(t, saysAway)
	v.await(t, prompt)
	if err := v.machine.Type(passphrase + "\n"); err != nil {
		t.Fatal(err)
	}
	up.opened(t)
	v.stop(t)
}

// TestDracutRoot: the same with dracut, whose initramfs has systemd in it.
func TestDracutRoot(t *testing.T) {
	v := newVault(t, dracut)
	up := v.start(t, "first boot")
	v.await(t, saysRefused)
	v.aias.capture(t, vaultName)
	v.aias.reload(t)
	up.opened(t)
	v.checkOpened(t)
	v.checkLatched(t)
	v.stop(t)

	up = v.start(t, "good boot")
	v.await(t, saysOpen)
	up.opened(t)
	v.checkOpened(t)
	v.stop(t)
}

func newVault(t *testing.T, m *initramfs) *vault {
	t.Helper()
	l := openLab(t)
	v := &vault{lab: l, aias: startAIAS(t, l), screen: &screen{}}
	v.machine = newMachine(t, l, Options{Name: vaultName, CommandLine: encryptedLine, MemoryMB: 1024, Console: v.screen, BootTimeout: 12 * time.Minute})
	k, err := l.Kernel("")
	if err != nil {
		t.Fatal(err)
	}
	cached, err := l.debianRoot(t.Context(), k, m)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root := filepath.Join(dir, "debian")
	if err := l.run(t.Context(), "", "cp", "-a", "--reflink=auto", cached, root); err != nil {
		t.Fatal(err)
	}
	v.installAgent(t, root)
	initrd, err := l.debianInitrd(t.Context(), root, k, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("initrd of %d bytes", len(initrd))
	disk := v.bind(t, dir, root)
	v.line = encryptedLine
	if m.open != "" {
		uuid, err := l.output(t.Context(), dir, "cryptsetup", "luksUUID", disk)
		if err != nil {
			t.Fatal(err)
		}
		v.line = fmt.Sprintf(m.open, strings.TrimSpace(string(uuid))) + encryptedLine
	}
	v.change(t, func(o *Options) { o.Initrd, o.RootDisk, o.CommandLine = initrd, disk, v.line })
	v.aias.importPackages(t, l.Packages("")...)
	v.aias.importMachine(t, v.machine)
	v.aias.reload(t)
	return v
}

// installAgent enrols the machine, by its TPM, and installs the agent in root as an administrator does.
func (v *vault) installAgent(t *testing.T, root string) {
	t.Helper()
	program, err := v.lab.BuildStatic(t.Context(), "./cmd/trust-agent")
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(root, name) }
	for name, f := range v.aias.agentFiles(t, vaultName) {
		if err := os.MkdirAll(filepath.Dir(in(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in(name), f.Data, os.FileMode(f.Mode)); err != nil {
			t.Fatal(err)
		}
	}
	agent := in("usr/bin/trust-agent")
	if err := os.WriteFile(agent, program, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "vm-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Symlink(v.machine.path("tpm"), filepath.Join(dir, "state")); err != nil {
		t.Fatal(err)
	}
	p, err := swtpm.Start(t.Context(), swtpm.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop() //nolint:errcheck // the boots will tell
	for _, args := range [][]string{
		{"enrol", "--config", in(ConfigPath), "--server", fmt.Sprintf("https://127.0.0.1:%d", v.aias.port), "--tpm", p.Address(), "--state", in("var/lib/trust-agent"),
			"--token-file", in("etc/trust-agent/token"), "--ca-file", in("etc/trust-agent/ca.pem")},
		{"initramfs", "install", "--root", root},
	} {
		if out, err := exec.CommandContext(t.Context(), agent, args...).CombinedOutput(); err != nil {
			t.Fatalf("trust-agent %q: %v\n%s", args, err, out)
		}
	}
}

// bind makes the encrypted disk, bound as `touchstone disk bind` says.
func (v *vault) bind(t *testing.T, dir, root string) string {
	t.Helper()
	_, err := v.aias.BindDisk(t.Context(), vaultName, protocol.DiskPolicy{Mode: "attested", Conditions: []byte(`{"levels":[1,2,3,4],"softwareTPM":"Allow"}`), AnySource: true})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/n/%s/adv", v.aias.disks, vaultName)) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	adv, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "adv.jws")
	if err := os.WriteFile(file, adv, 0o644); err != nil {
		t.Fatal(err)
	}
	busybox, err := os.ReadFile(filepath.Join(v.lab.packages["busybox-static"].Root, "bin", "busybox"))
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + net.JoinHostPort(HostAddress, strconv.Itoa(v.aias.disks)) + "/n/" + vaultName
	files := map[string]File{
		"/sbin/init": {Mode: 0o755, Data: v.lab.init}, busyboxPath: {Mode: 0o755, Data: busybox},
		"/etc/os-release": {Mode: 0o644, Data: []byte("ID=vault\n")}, // systemd moves to no root without one
	}
	// The installed agent, its configuration and enrolment, for who looks at it in the running machine; agentPath is none that /init starts.
	for name, at := range map[string]string{"usr/bin/trust-agent": agentPath, ConfigPath: ConfigPath, "etc/trust-agent/ca.pem": "/etc/trust-agent/ca.pem"} {
		files[at] = File{Mode: 0o755, Data: readTestFile(t, filepath.Join(root, name))}
	}
	state, err := filepath.Glob(filepath.Join(root, "var/lib/trust-agent/*"))
	if err != nil || len(state) == 0 {
		t.Fatalf("enrolment: got %q, %v", state, err)
	}
	for _, f := range state {
		files["/var/lib/trust-agent/"+filepath.Base(f)] = File{Mode: 0o600, Data: readTestFile(t, f)}
	}
	disk, err := v.lab.encryptedDisk(t.Context(), dir, files, passphrase, url, file)
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

func (v *vault) change(t *testing.T, change func(*Options)) {
	t.Helper()
	if err := v.machine.Change(change); err != nil {
		t.Fatal(err)
	}
}

// disk is what an operator sees.
func (v *vault) disk(t *testing.T) protocol.Disk {
	t.Helper()
	all, err := v.aias.Disks(t.Context())
	if err != nil || len(all.Nodes) != 1 {
		t.Fatalf("Disks(): %+v, %v", all, err)
	}
	return all.Nodes[0]
}

// coming is a boot that goes on beside the test.
type coming struct {
	what  string
	since time.Time
	stop  context.CancelFunc
	ended chan struct{} // closed when the machine is up, or off again
	err   error         // valid then
}

func (v *vault) start(t *testing.T, what string) *coming {
	t.Helper()
	v.screen.clear()
	ctx, stop := context.WithCancel(t.Context())
	c := &coming{what: what, since: time.Now(), stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		_, c.err = v.machine.Start(ctx)
	}()
	t.Cleanup(func() { stop(); <-c.ended })
	v.boot = c
	return c
}

// opened waits until the init on the encrypted root answers.
func (c *coming) opened(t *testing.T) {
	t.Helper()
	if <-c.ended; c.err != nil {
		t.Fatalf("%s: %v", c.what, c.err)
	}
	t.Logf("%s: the root is open %.1f s after power on", c.what, time.Since(c.since).Seconds())
}

// end switches a machine off that did not come up.
func (c *coming) end(t *testing.T) {
	t.Helper()
	c.stop()
	var e *BootError
	if <-c.ended; !errors.As(c.err, &e) {
		t.Errorf("%s: the machine came up, or failed otherwise: %v", c.what, c.err)
	}
	t.Logf("%s: refused, %.1f s after power on", c.what, time.Since(c.since).Seconds())
}

// await waits until the console shows a text.
func (v *vault) await(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the console shows "+text, func() bool {
		select {
		case <-v.boot.ended:
			if v.boot.err != nil {
				t.Fatalf("%s, waiting for %q: %v", v.boot.what, text, v.boot.err)
			}
		default:
		}
		return v.screen.shows(text)
	})
}

// checkOpened looks at a machine whose root is open: it is the encrypted one, clevis got the key, and the latch is closed.
func (v *vault) checkOpened(t *testing.T) {
	t.Helper()
	g := v.machine.Guest()
	mounts, err := g.ReadFile(t.Context(), "/proc/mounts")
	if err != nil || !strings.Contains(string(mounts), "/dev/mapper/root / ext4") {
		t.Errorf("mounts: got %q, %v, want the encrypted root", mounts, err)
	}
	if d := v.disk(t); d.Last == nil || !d.Last.Released {
		t.Errorf("last recovery: got %+v, want a release", d.Last)
	}
	pcrs, err := g.PCRs(t.Context(), "sha256")
	if err != nil {
		t.Fatal(err)
	}
	if got := tpm.Latch(tpm.AlgSHA256, pcrs[tpm.LatchPCR]); got != tpm.LatchClosed {
		t.Errorf("latch: got %q, want %q", got, tpm.LatchClosed)
	}
	if !v.screen.shows(saysOpen) {
		t.Errorf("the console does not say %q", saysOpen)
	}
	n, err := v.aias.Node(t.Context(), vaultName)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("AIAS: %s, %+v", n.Trust, n.Levels)
}

// checkLedger wants an entry on the disk of the machine in the ledger of AIAS.
func (v *vault) checkLedger(t *testing.T, kind ledger.Kind, reason string) {
	t.Helper()
	l := v.aias.Ledger()
	key, err := l.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := ledger.NewReader(l, key)
	if err != nil {
		t.Fatal(err)
	}
	// AIAS gathers entries for a moment before it signs them.
	eventually(t, fmt.Sprintf("the ledger has %s, %s", kind, reason), func() bool {
		cp, err := r.Checkpoint(t.Context())
		if err != nil {
			return false
		}
		for e, err := range r.Entries(t.Context(), cp, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind == kind && e.Node == vaultName && strings.HasPrefix(e.Subject, "disk-key:") && strings.Contains(e.Reason, reason) {
				return true
			}
		}
		return false
	})
}

func (v *vault) stop(t *testing.T) {
	t.Helper()
	if err := v.machine.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}
