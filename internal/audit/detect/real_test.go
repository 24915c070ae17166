package detect

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/internal/audit/audittest"
	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/record"
	auditrules "touchstone.dev/touchstone/internal/audit/rules"
	"touchstone.dev/touchstone/internal/audit/source"
)

// deed is misuse that is really done, in a way that harms nothing.
type deed struct {
	rule  string // that finds it
	where chain.Context
	do    func(*ground)
}

// ground is where deeds are done.
type ground struct {
	*testing.T
	dir  string
	self string // a program of the test's own, a copy of true
	pids []uint32
}

// run runs a program to its end.
func (g *ground) run(name string, args ...string) {
	g.Helper()
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		g.Fatal(err)
	}
	g.pids = append(g.pids, uint32(cmd.Process.Pid))
	_ = cmd.Wait()
}

// victim starts a program that sleeps, under a name.
func (g *ground) victim(name string) *exec.Cmd {
	g.Helper()
	file := g.copyOf("/bin/sleep", filepath.Join(g.dir, name))
	cmd := exec.Command(file, "60")
	if err := cmd.Start(); err != nil {
		g.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // until it has begun its program, whose name counts
	return cmd
}

func (g *ground) copyOf(from, to string) string {
	g.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { os.Remove(to) })
	return to
}

// open opens a file and closes it.
func (g *ground) open(name string, flags int) {
	g.Helper()
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		g.Fatal(err)
	}
	f.Close()
}

// make opens a file for writing that may not be there, and leaves things as they were.
func (g *ground) make(name string) {
	g.Helper()
	_, err := os.Stat(name)
	g.open(name, os.O_WRONLY|os.O_CREATE)
	if err != nil {
		os.Remove(name)
	}
}

// try makes a system call whatever comes of it.
func try(nr uintptr, args ...uintptr) {
	args = append(args, make([]uintptr, 6)...)
	_, _, _ = syscall.Syscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
}

const invalid = ^uintptr(0)

// dial connects to a port of this machine where nobody listens: the kernel's record is the same.
func dial(port uint16) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		_ = unix.Connect(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}})
		_ = unix.Close(fd)
	}
}

// folders are those of a worker that the audit rules watch; the test makes those that this machine lacks, and removes them.
var folders = []string{"/opt/cni/bin", "/etc/kubernetes/manifests", "/etc/kubernetes/pki", "/var/lib/kubelet/pki", "/var/lib/trust-agent", keys, podVolumes}

// keys is the folder with the keys of root.
var keys = filepath.Join("/", "root", ".ssh")

const podVolumes = "/var/lib/kubelet/pods/touchstone-test/volumes/kubernetes.io~projected"

func folder(t *testing.T, name string) {
	t.Helper()
	if name == "/" {
		return
	}
	folder(t, filepath.Dir(name))
	if err := os.Mkdir(name, 0o755); err == nil {
		t.Cleanup(func() { os.Remove(name) }) // only when it is empty
	} else if !os.IsExist(err) {
		t.Fatal(err)
	}
}

// TestDeeds does what the rules look for, with the shipped audit rules in the kernel and the real auditd, and expects each rule to find its deed.
func TestDeeds(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	agent, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		folder(t, f)
	}
	if _, err := auditrules.Install(t.Context(), auditrules.Auditctl, agent, "", auditrules.DefaultControl); err != nil {
		t.Fatal(err)
	}
	r, err := source.Open(t.Context(), source.Config{Log: a.Log})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	dir, err := os.MkdirTemp("/dev/shm", "touchstone")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // another user runs what is in it
		t.Fatal(err)
	}
	l, err := net.Listen("unix", dir+"/containerd.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	set := shippedSet(t)
	// What the shipped rules tell of on workers that have it.
	a.Ctl("-w", dir, "-p", "r", "-k", "ts-test")
	a.Ctl("-w", podVolumes, "-p", "r", "-k", "ts-test")
	a.Ctl("-a", "always,exit", "-F", "arch=b64", "-S", "connect", "-F", "path="+dir+"/containerd.sock", "-F", "key=ts-runtime-socket")
	for _, d := range deeds {
		t.Run(d.rule, func(t *testing.T) {
			g := &ground{T: t, dir: dir, pids: []uint32{uint32(os.Getpid())}}
			g.self = g.copyOf("/bin/true", filepath.Join(dir, "self"))
			if d.rule == "suid-unknown" {
				if err := os.Chmod(g.self, 0o755|os.ModeSetuid); err != nil {
					t.Fatal(err)
				}
			}
			for r.Queued() > 0 {
				_, _ = r.Next(t.Context())
			}
			done := make(chan struct{})
			go func() { defer close(done); d.do(g) }()
			<-done
			if t.Failed() {
				return
			}
			g.finds(set, r, d)
		})
	}
}

// finds reads events until the deed was found.
func (g *ground) finds(set *Set, r *source.Reader, d deed) {
	g.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	n := set.NewNode()
	var seen []string
	for {
		it, err := r.Next(ctx)
		if err != nil {
			g.Errorf("not found; found were %q", seen)
			return
		}
		if it.Event == nil || !g.mine(it.Event) {
			continue
		}
		for _, got := range n.Event(it.Event, &d.where, it.At).Detections {
			if got.Rule.Doc.Name == d.rule {
				return
			}
			seen = append(seen, got.Rule.Doc.Name)
		}
	}
}

// mine reports whether an event is of this test: others work on the machine, too. Records of auditctl's requests have no process.
func (g *ground) mine(e *record.Event) bool {
	p, ok := e.Process()
	return !ok || slices.Contains(g.pids, p.PID) || slices.Contains(g.pids, p.PPID)
}
