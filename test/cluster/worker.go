package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/kubetest"
	"touchstone.dev/touchstone/internal/swtpm/machine"
)

const (
	workerTime  = 60 * time.Second // until the containerd of a worker answers
	serviceTime = 10 * time.Second // until a service of it has ended
)

// Worker is one worker: a captured machine, and namespaces in which containerd, a kubelet and kube-proxy run. What its disk would keep
// (images, the kubelet's certificates) lives through Boot.
type Worker struct {
	*machine.Machine
	IP string

	c       *Cluster
	ns      string
	dir     string
	podCIDR string // once it has joined
	outer   *kubetest.Process
	// Kubelet are further arguments of the kubelet.
	Kubelet []string
}

// newWorker lays out the folder of worker i, counted from 1.
func (c *Cluster) newWorker(i int) *Worker {
	name := fmt.Sprintf("w%d", i)
	dir := filepath.Join(c.dir, name)
	return &Worker{Machine: machine.New(filepath.Join(dir, "machine"), name, c.EKCA()), IP: workerIP(i), c: c, ns: prefix + name, dir: dir}
}

// disk are the folders of the worker's disk: target, and name below its folder.
var disk = map[string]string{
	"/etc/containerd": "etc-containerd", "/var/lib/containerd": "containerd", "/etc/cni/net.d": "cni", "/var/log/pods": "pods", "/var/log/containers": "containers", "/var/lib/touchstone": "touchstone",
}

// Where a worker has the captured machine, for the agent: its root, and the folder of its TPM's socket. The kernel of this machine cannot
// show all of that in the places where a kernel has it; the kubelet finds there what it reports.
const (
	MachineRoot  = "/run/machine"
	SocketFolder = "/run/swtpm"
	kubeletDir   = "/var/lib/kubelet" // also below MachineRoot
)

// Boot boots the worker, which is off or runs: everything that ran is gone, its TPM holds the measurements of the boot, and containerd
// answers when Boot returns. The kubelet and the agent are started again when they had been started before.
func (w *Worker) Boot(ctx context.Context, b *machine.Boot) error {
	w.Off()
	// The TPM lives as long as the context of its first start. A worker that one test switched on is there for the next one.
	if err := w.Machine.Boot(context.WithoutCancel(ctx), b); err != nil {
		return err
	}
	if err := w.layOut(); err != nil {
		return fmt.Errorf("%s: %w", w.Name, err)
	}
	if _, err := os.Stat("/run/netns/" + w.ns); err != nil {
		if err := attach(ctx, w.ns, w.IP); err != nil {
			return err
		}
	}
	p, err := launch(w.ns, w.c.logFile(w.Name+"-init"), os.Args[0], roleArgument, roleOuter, w.file("inside.json"))
	if err != nil {
		return err
	}
	w.outer = p
	return w.startContainerd(ctx)
}

func (w *Worker) startContainerd(ctx context.Context) error {
	if err := w.enable("containerd", service{Args: []string{"containerd"}}); err != nil {
		return err
	}
	return until(ctx, "containerd of "+w.Name, workerTime, w.outer, func(ctx context.Context) error {
		_, err := w.Run(ctx, "ctr", "version")
		return err
	})
}

// RestartContainerd has containerd read its configuration. What it runs goes on.
func (w *Worker) RestartContainerd(ctx context.Context) error {
	if err := w.disable(ctx, "containerd"); err != nil {
		return err
	}
	return w.startContainerd(ctx)
}

func (w *Worker) file(name string) string { return filepath.Join(w.dir, name) }

// kubeletFile returns a path below the kubelet's folder.
func (w *Worker) kubeletFile(name ...string) string {
	return filepath.Join(append([]string{w.Root, kubeletDir}, name...)...)
}

// layOut writes what the first process and containerd read.
func (w *Worker) layOut() error {
	in := inside{Hostname: w.Name, Binds: map[string]string{}, Services: w.file("services"), InitPID: w.file("init.pid"), Cgroups: prefix + w.Name}
	for target, name := range disk {
		in.Binds[target] = w.file(name)
		if err := os.MkdirAll(w.file(name), 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(w.kubeletFile(), 0o755); err != nil {
		return err
	}
	in.Binds[kubeletDir] = w.kubeletFile()
	for _, file := range []string{machine.UUIDFile, machine.BootIDFile} {
		in.Binds["/"+file] = filepath.Join(w.Root, file)
	}
	in.Binds[MachineRoot], in.Binds[SocketFolder] = w.Root, filepath.Dir(w.Socket())
	in.Binds["/etc/machine-id"] = w.file("machine-id")
	text, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(in.Services, 0o700), writeFiles(w.dir, map[string][]byte{
		"inside.json": text, "etc-containerd/config.toml": []byte(containerdConfig),
		"machine-id": []byte(strings.ReplaceAll(machine.SystemUUID(w.Name), "-", "") + "\n"),
	}))
}

// containerdConfig: restrict_oom_score_adj is for machines without CAP_SYS_RESOURCE.
const containerdConfig = `version = 2
imports = ["/etc/containerd/conf.d/*.toml"]
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + PauseImage + `"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
`

// Off switches the worker off: its first process is killed, and all others with it.
func (w *Worker) Off() {
	if w.outer == nil {
		return
	}
	w.outer.Kill() // the kernel kills the first process then
	w.outer = nil
	removeCgroups(prefix + w.Name)
}

// removeCgroups removes control groups, as soon as their processes are gone.
func removeCgroups(pattern string) {
	folders, _ := cgroupFolders(pattern) // the pattern is our own
	for range 50 {
		left := false
		for _, f := range folders {
			found, _ := filepath.Glob(f)
			for _, f := range found {
				_ = exec.Command("find", f, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+").Run() //nolint:gosec,noctx // ours
				_, err := os.Stat(f)
				left = left || err == nil
			}
		}
		if !left {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Run runs a command inside the worker and returns what it writes.
func (w *Worker) Run(ctx context.Context, args ...string) ([]byte, error) {
	pid, err := os.ReadFile(w.file("init.pid"))
	if err != nil {
		return nil, fmt.Errorf("%s is off: %w", w.Name, err)
	}
	return output(ctx, "nsenter", append([]string{"-t", string(pid), "-m", "-u", "-i", "-n", "-p", "-C"}, args...)...)
}

// enable lets a service run until disable, over reboots.
func (w *Worker) enable(name string, s service) error {
	s.Log = w.c.logFile(w.Name + "-" + name)
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	tmp := w.file(name + ".new")
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(w.file("services"), name+".json"))
}

// disable ends a service and waits until it has ended.
func (w *Worker) disable(ctx context.Context, name string) error {
	file := filepath.Join(w.file("services"), name)
	if err := os.Remove(file + ".json"); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return until(ctx, "stop "+name+" on "+w.Name, serviceTime, nil, func(context.Context) error {
		if _, err := os.Stat(file + ".pid"); err == nil && w.outer != nil {
			return errors.New("it still runs")
		}
		return nil
	})
}

// close switches the worker off and stops its TPM.
func (w *Worker) close() error {
	w.Off()
	return w.Machine.Close()
}
