package attribution

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/record"
)

const (
	uid  = "6f1c2d3e-4a5b-4c6d-8e7f-0123456789ab"
	flat = "6f1c2d3e4a5b4c6d8e7f0123456789ab" // of a static pod
)

var id = strings.Repeat("0123456789abcdef", 4)

func TestParseCgroups(t *testing.T) {
	under := strings.ReplaceAll(uid, "-", "_")
	for name, c := range map[string]struct {
		text string
		want place
	}{
		"v2, systemd, containerd":        {"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-" + id + ".scope\n", place{pod: uid, container: id}},
		"v2, systemd, CRI-O":             {"0::/kubepods.slice/kubepods-pod" + under + ".slice/crio-" + id + ".scope\n", place{pod: uid, container: id}},
		"v2, CRI-O, below its own":       {"0::/kubepods.slice/kubepods-pod" + under + ".slice/crio-" + id + ".scope/container\n", place{pod: uid, container: id}},
		"v2, cgroupfs":                   {"0::/kubepods/besteffort/pod" + uid + "/" + id + "\n", place{pod: uid, container: id}},
		"v2, cgroupfs, CRI-O":            {"0::/kubepods/pod" + uid + "/crio-" + id + "\n", place{pod: uid, container: id}},
		"static pod":                     {"0::/kubepods/burstable/pod" + flat + "/" + id + "\n", place{pod: flat, container: id}},
		"with colons":                    {"0::/system.slice/containerd.service/kubepods-burstable-pod" + under + ".slice:cri-containerd:" + id + "\n", place{pod: uid, container: id}},
		"v1":                             {"12:pids:/kubepods/burstable/pod" + uid + "/" + id + "\n1:name=systemd:/kubepods/burstable/pod" + uid + "/" + id + "\n0::/\n", place{pod: uid, container: id}},
		"systemd within a pod":           {"0::/kubepods/pod" + uid + "/" + id + "/system.slice/cron.service\n", place{pod: uid, container: id}},
		"seen from another cgroup":       {"0::/../../kubepods-pod" + under + ".slice/cri-containerd-" + id + ".scope\n", place{pod: uid, container: id}},
		"the pod's own cgroup":           {"0::/kubepods/pod" + uid + "\n", place{pod: uid}},
		"docker":                         {"0::/system.slice/docker-" + id + ".scope\n", place{container: id}},
		"the monitor of a container":     {"0::/system.slice/crio-conmon-" + id + ".scope\n", place{unit: "crio-conmon-" + id + ".scope"}},
		"service":                        {"0::/system.slice/kubelet.service\n", place{unit: "kubelet.service"}},
		"login":                          {"0::/user.slice/user-1000.slice/session-3.scope\n", place{unit: "session-3.scope"}},
		"user's service":                 {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/x\n", place{unit: "user@1000.service"}},
		"root":                           {"0::/\n", place{unit: "/"}},
		"v1, host":                       {"3:cpu:/\n1:name=systemd:/system.slice/ssh.service\n", place{unit: "ssh.service"}},
		"a unit that calls itself a pod": {"0::/system.slice/pod-of-mine.service\n", place{unit: "pod-of-mine.service"}},
		"nothing":                        {"", place{}},
		"broken":                         {"x\n0:\n::", place{unit: "/"}},
	} {
		if got := parseCgroups([]byte(c.text)); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func FuzzParseCgroups(f *testing.F) {
	f.Add([]byte("0::/kubepods.slice/kubepods-pod" + uid + ".slice:cri-containerd:" + id + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := parseCgroups(b)
		if len(p.pod) > 36 || len(p.container) > 64 || p.pod+p.container != "" && p.unit != "" {
			t.Errorf("parseCgroups(%q): got %+v", b, p)
		}
	})
}

// fakeProc is a /proc that tests write.
type fakeProc struct {
	t    *testing.T
	dir  string
	now  time.Time
	asks int
	*Resolver
}

func newFakeProc(t *testing.T, ask func(id string) (Container, error)) *fakeProc {
	p := &fakeProc{t: t, dir: t.TempDir(), now: time.Unix(1795000000, 0)}
	p.Resolver = New(Config{Proc: p.dir, PodLogs: filepath.Join(p.dir, "pods"), Now: func() time.Time { return p.now },
		Ask: func(_ context.Context, id string) (Container, error) { p.asks++; return ask(id) }})
	return p
}

func (p *fakeProc) write(pid int, cgroup string) {
	p.t.Helper()
	dir := filepath.Join(p.dir, fmt.Sprint(pid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup"), []byte("0::"+cgroup+"\n"), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *fakeProc) end(pid int) {
	if err := os.RemoveAll(filepath.Join(p.dir, fmt.Sprint(pid))); err != nil {
		p.t.Fatal(err)
	}
}

func event(t testing.TB, pid, ppid int, more string) *record.Event {
	t.Helper()
	e, err := record.Parse(fmt.Appendf(nil, "type=SYSCALL msg=audit(1795000000.000:1): arch=c000003e syscall=59 success=yes ppid=%d pid=%d uid=0 %s", ppid, pid, more))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

const nobody = "auid=4294967295 ses=4294967295"

var inPod = "/kubepods/pod" + uid + "/" + id

func TestOf(t *testing.T) {
	known := Container{Namespace: "shop", Pod: "web-1", PodUID: uid, Name: "web", Image: "shop/web:1", ImageDigest: "sha256:ab"}
	p := newFakeProc(t, func(string) (Container, error) { return known, nil })
	p.write(10, inPod)
	p.write(20, "/system.slice/containerd.service")
	want := chain.Context{Namespace: "shop", Pod: "web-1", PodUID: uid, Container: "web", ContainerID: id, Image: "shop/web:1", ImageDigest: "sha256:ab"}
	for range 3 {
		if got := p.Of(event(t, 10, 20, nobody)); got != want {
			t.Fatalf("a process in a pod: got %+v, want %+v", got, want)
		}
	}
	if p.asks != 1 {
		t.Errorf("the runtime was asked %d times, want once", p.asks)
	}
	p.end(10)
	if got := p.Of(event(t, 10, 20, nobody)); got != want {
		t.Errorf("after its end: got %+v, want what was known", got)
	}
	p.write(10, inPod)
	if got := p.Of(event(t, 11, 10, nobody)); got != want {
		t.Errorf("a short-lived child in the pod: got %+v, want the pod of its parent", got)
	}
	// A child of the runtime may be a container's first process: it is not known, and not of the host.
	if got := p.Of(event(t, 21, 20, nobody)); got != (chain.Context{}) {
		t.Errorf("a short-lived child of the runtime: got %+v, want nothing", got)
	}
	p.end(10)
	p.now = p.now.Add(gone + time.Second)
	if got := p.Of(event(t, 10, 1, nobody)); got != (chain.Context{}) {
		t.Errorf("long after its end: got %+v, want nothing", got)
	}
	got := p.Of(event(t, 20, 1, "auid=0 ses=7 tty=pts3"))
	if want := (chain.Context{Unit: "containerd.service", User: "root", Session: "7", Terminal: "pts3"}); got != want {
		t.Errorf("on the host: got %+v, want %+v", got, want)
	}
}

// TestRuntimeDoesNotAnswer: pods are named from their log folders, and the runtime is asked again only after a while.
func TestRuntimeDoesNotAnswer(t *testing.T) {
	p := newFakeProc(t, func(string) (Container, error) { return Container{}, errors.New("no") })
	p.write(10, inPod)
	if err := os.MkdirAll(filepath.Join(p.dir, "pods", "shop_web-1_"+uid), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		got := p.Of(event(t, 10, 1, nobody))
		if want := (chain.Context{Namespace: "shop", Pod: "web-1", PodUID: uid, ContainerID: id}); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
	if p.asks != 1 {
		t.Errorf("the runtime was asked %d times, want once", p.asks)
	}
	p.now = p.now.Add(askAgain + time.Second)
	p.Of(event(t, 10, 1, nobody))
	if p.asks != 2 {
		t.Errorf("the runtime was asked %d times, want twice", p.asks)
	}
}

// TestRuntimeMeansAnother: an answer about another pod than the cgroup's is not taken.
func TestRuntimeMeansAnother(t *testing.T) {
	p := newFakeProc(t, func(string) (Container, error) {
		return Container{Namespace: "kube-system", Pod: "good", PodUID: "other"}, nil
	})
	p.write(10, inPod)
	if got := p.Of(event(t, 10, 1, nobody)); got.Pod != "" || got.PodUID != uid {
		t.Errorf("got %+v, want the UID of the cgroup and no name", got)
	}
}

func TestBounded(t *testing.T) {
	p := newFakeProc(t, func(string) (Container, error) { return Container{}, errors.New("no") })
	for i := range maxProcesses + 100 {
		p.processes.put(uint32(i), process{})
	}
	if n := len(p.processes.items); n != maxProcesses || p.processes.recent.Len() != n {
		t.Errorf("%d processes remembered, want %d", n, maxProcesses)
	}
}

// TestRealProcess: this process, by the machine's own /proc.
func TestRealProcess(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	got := New(Config{}).Of(event(t, cmd.Process.Pid, os.Getpid(), nobody))
	if got.Unit == "" && got.ContainerID == "" && got.PodUID == "" {
		t.Errorf("a process of this machine: got nothing")
	}
}

// TestRuntimeMovesAProcess: what was the host's becomes the pod's when the runtime has moved it and it begins the pod's program.
func TestRuntimeMovesAProcess(t *testing.T) {
	p := newFakeProc(t, func(string) (Container, error) { return Container{}, errors.New("no") })
	p.write(10, "/system.slice/containerd.service")
	if got := p.Of(event(t, 10, 1, nobody+` exe="/usr/sbin/runc"`)); got.Unit != "containerd.service" {
		t.Fatalf("got %+v, want containerd.service", got)
	}
	p.write(10, inPod)
	if got := p.Of(event(t, 10, 1, nobody+` exe="/app"`)); got.PodUID != uid {
		t.Errorf("got %+v, want the pod", got)
	}
}

// BenchmarkOf is a process that is seen again and again; BenchmarkOfNew one that has to be looked up each time.
func BenchmarkOf(b *testing.B) { bench(b, ` exe="/bin/x"`) }

func BenchmarkOfNew(b *testing.B) { bench(b, "") }

func bench(b *testing.B, exe string) {
	r := New(Config{})
	e := event(b, os.Getpid(), 1, nobody+exe)
	b.ReportAllocs()
	for b.Loop() {
		r.Of(e)
	}
}
