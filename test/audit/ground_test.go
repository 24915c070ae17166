package audit

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/internal/audit/audittest"
	"touchstone.dev/touchstone/internal/audit/detect"
	"touchstone.dev/touchstone/internal/audit/rules"
	"touchstone.dev/touchstone/internal/protocol"
)

// ground is where deeds are done.
type ground struct {
	*testing.T
	dir  string
	self string // a program of the test's own, a copy of true
}

// run runs a program to its end.
func (g *ground) run(name string, args ...string) {
	g.Helper()
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		g.Fatal(err)
	}
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

// layGround makes what the deeds need, and loads the shipped audit rules.
func layGround(t *testing.T, a *audittest.Auditd) (dir string) {
	t.Helper()
	for _, f := range folders {
		folder(t, f)
	}
	exe, err := os.Executable()
	must(t, err)
	_, err = rules.Install(t.Context(), rules.Auditctl, exe, "", rules.DefaultControl)
	must(t, err)
	dir, err = os.MkdirTemp("/dev/shm", "touchstone")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755)) //nolint:gosec // another user runs what is in it
	l, err := net.Listen("unix", dir+"/containerd.sock")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	// What the shipped rules tell of on workers that have it.
	a.Ctl("-w", dir, "-p", "r", "-k", "test")
	a.Ctl("-w", podVolumes, "-p", "r", "-k", "test")
	a.Ctl("-a", "always,exit", "-F", "arch=b64", "-S", "connect", "-F", "path="+dir+"/containerd.sock", "-F", "key=test")
	return dir
}

// Where a pod's processes are, as kubelet names it.
const (
	namespace = "shop"
	podName   = "web-1"
	podUID    = "0b7cbf5e-11a5-4d2c-9d3f-6f1d6a1f0c11"
	container = "5f0c3a5d6b1e4f7a8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d"
)

// podOf makes a control group for a pod, in a hierarchy of its own, and returns what moves this process to it and back.
func podOf(t *testing.T) (enter, leave func()) {
	t.Helper()
	top := t.TempDir()
	err := unix.Mount("cgroup", top, "cgroup", 0, "none,name=touchstone-test")
	if err != nil { // a kernel that has version 2 only
		err = unix.Mount("cgroup2", top, "cgroup2", 0, "")
	}
	must(t, err)
	t.Cleanup(func() { _ = unix.Unmount(top, unix.MNT_DETACH) })
	before, ours := top, filepath.Join(top, "kubepods", "pod"+podUID, container)
	must(t, os.MkdirAll(ours, 0o755))
	t.Cleanup(func() {
		for d := ours; d != top; d = filepath.Dir(d) {
			_ = os.Remove(d)
		}
	})
	move := func(to string) func() {
		return func() { must(t, os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte("0"), 0)) }
	}
	return move(ours), move(before)
}

// TestDeeds does what the rules look for, with the shipped audit rules in the kernel, the real auditd, an agent and AIAS: each deed is found, stands in the
// verdict with what the rule says that it costs, and counts no more when an operator has cleared it.
func TestDeeds(t *testing.T) {
	w := newWorld(t)
	// The agent finds out where events come from at the worker's root, whose other files are those of a boot that it pretends. Children are placed by their
	// parent, which is this process.
	self := fmt.Sprintf("/proc/%d", os.Getpid())
	must(t, os.Symlink(self, filepath.Join(w.worker.Root, self)))
	must(t, os.MkdirAll(filepath.Join(w.worker.Root, "var/log/pods", namespace+"_"+podName+"_"+podUID), 0o755))
	dir := layGround(t, w.auditd)
	enter, leave := podOf(t)
	w.wait("the first statement and entries", time.Minute, w.chained)
	for _, where := range []place{host, pod} {
		if where == pod {
			enter()
			defer leave()
		}
		time.Sleep(2 * time.Second) // the agent looks a process up once a second
		for _, d := range deeds {
			if d.where == where {
				t.Run(d.rule, func(t *testing.T) { w.does(t, dir, d) })
			}
		}
	}
}

// does does a deed, and waits until AIAS has found it and judged it.
func (w *world) does(t *testing.T, dir string, d deed) {
	g := &ground{T: t, dir: dir}
	g.self = g.copyOf("/bin/true", filepath.Join(dir, "self"))
	w.clear(t, d.rule)
	if d.rule == "suid-unknown" {
		must(t, os.Chmod(g.self, 0o755|os.ModeSetuid))
	}
	done := make(chan struct{})
	go func() { defer close(done); d.do(g) }()
	<-done
	if t.Failed() {
		return
	}
	var found *protocol.Detection
	var all []string
	until(t, func() bool {
		list, err := w.client.Detections(t.Context(), node)
		must(t, err)
		all = all[:0]
		for i := range list.Detections {
			if found == nil && list.Detections[i].Rule == d.rule {
				found = &list.Detections[i]
			}
			all = append(all, list.Detections[i].Rule)
		}
		return found != nil
	}, func() string { return fmt.Sprintf("found were %q", all) })
	if d.where == pod && (found.Namespace != namespace || found.Pod != podName) {
		t.Errorf("found in pod %q of %q, want %q of %q", found.Pod, found.Namespace, podName, namespace)
	}
	var why string
	until(t, func() bool {
		why, _ = w.touchstone("why", node)
		return strings.Contains(why, found.ID) == (found.Effect != detect.None)
	}, func() string { return fmt.Sprintf("%s (%s) and the verdict:\n%s", found.ID, found.Effect, why) })
	if found.Effect == detect.Fail {
		until(t, func() bool {
			n, err := w.client.Node(t.Context(), node)
			must(t, err)
			why = fmt.Sprintf("%+v", n.Levels)
			return n.Trust == protocol.Untrusted && n.Levels[4].Status == "fail"
		}, func() string { return why })
	}
	t.Logf("%s, %s: %s", found.Rule, found.Effect, found.Who)
}

// until polls until something is so, and says else what is.
func until(t *testing.T, so func() bool, is func() string) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(is())
		}
	}
}

// clear ends what would hide that a rule finds something, or that the verdict falls, and waits until it counts no more. Others work on the machine too,
// and may be found meanwhile.
func (w *world) clear(t *testing.T, rule string) {
	t.Helper()
	list, err := w.client.Detections(t.Context(), node)
	must(t, err)
	hides := func(d protocol.Detection) bool { return d.Rule == rule || d.Effect == detect.Fail }
	if !slices.ContainsFunc(list.Detections, hides) {
		return
	}
	list, err = w.client.ClearDetections(t.Context(), node, "all", "a test")
	must(t, err)
	var why string
	until(t, func() bool {
		why, _ = w.touchstone("why", node)
		return !slices.ContainsFunc(list.Detections, func(d protocol.Detection) bool {
			return d.Effect == detect.Fail && strings.Contains(why, "detection "+d.ID)
		})
	}, func() string { return "cleared:\n" + why })
}
