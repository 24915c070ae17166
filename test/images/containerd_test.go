//go:build images

package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"touchstone.dev/touchstone/internal/runtimeconf"
)

// runtimeCRI is the worker's containerd, as a kubelet speaks to it.
type runtimeCRI struct {
	images  runtime.ImageServiceClient
	runtime runtime.RuntimeServiceClient
	n       int
}

// machineShell runs a program where the runtime's folders of the worker are in the place of the machine's: what `trust-agent image-provider` writes and
// reads has its real names, and this machine keeps its own.
const machineShell = `set -e
mount --bind "$HOST/etc" /etc/containerd
mount --bind "$HOST/bin" /usr/local/bin
exec "$@"`

// onWorker is a command as it runs on the worker.
func (w *world) onWorker(args ...string) *exec.Cmd {
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", machineShell, "sh"}, args...)...)
	cmd.Env = append(os.Environ(), "HOST="+filepath.Join(w.dir, "host"), "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
	return cmd
}

// imageProvider runs a command of `trust-agent image-provider`.
func (w *world) imageProvider(args ...string) (string, error) {
	out, err := w.onWorker(append([]string{filepath.Join(w.dir, "programs", "trust-agent"), "image-provider", "--socket", w.cfg.ImageProvider.Socket}, args...)...).CombinedOutput()
	return string(out), err
}

// layOutWorker puts the runtime where it is looked for: Debian's, or the one of $CONTAINERD, a folder.
func (w *world) layOutWorker() {
	t, host := w.t, filepath.Join(w.dir, "host")
	must(t, os.MkdirAll("/etc/containerd", 0o755))
	for _, dir := range []string{"etc", "bin"} {
		must(t, os.MkdirAll(filepath.Join(host, dir), 0o755))
	}
	for _, name := range []string{"trust-agent", "ctd-decoder"} {
		build(t, name, filepath.Join(w.dir, "programs", name))
	}
	from := os.Getenv("CONTAINERD")
	if from == "" {
		from = "/usr/bin"
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2"} {
		copyFile(t, filepath.Join(from, name), filepath.Join(host, "bin", name), 0o755)
	}
	text, err := w.onWorker("containerd", "--version").Output()
	must(t, err)
	t.Logf("%s", strings.TrimSpace(string(text)))
	w.version, err = runtimeconf.ParseVersion(string(text))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(host, "etc", "config.toml"), []byte(w.containerdConfig()), 0o600))
}

// containerdConfig is what the machine's owner wrote, in the form of the version. It imports nothing yet.
func (w *world) containerdConfig() string {
	dir, cri := filepath.Join(w.dir, "c"), "io.containerd.grpc.v1.cri"
	head := fmt.Sprintf("root = %q\nstate = %q\n[grpc]\n  address = %q\n", filepath.Join(dir, "root"), filepath.Join(dir, "state"), w.cfg.ImageProvider.Runtime)
	if w.version.Major < 2 {
		return "version = 2\n" + head + fmt.Sprintf("[plugins.%q]\n  sandbox_image = %q\n  restrict_oom_score_adj = true\n  [plugins.%q.containerd.runtimes.runc]\n    runtime_type = \"io.containerd.runc.v2\"\n",
			cri, w.registry+"/pause:1", cri)
	}
	cri = "io.containerd.cri.v1.runtime"
	return "version = 3\n" + head + fmt.Sprintf("[plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = %q\n[plugins.%q]\n  restrict_oom_score_adj = true\n  [plugins.%q.containerd.runtimes.runc]\n    runtime_type = \"io.containerd.runc.v2\"\n",
		w.registry+"/pause:1", cri, cri)
}

// install has `trust-agent image-provider` prepare containerd, and does what it says.
func (w *world) install() {
	t := w.t
	out, err := w.imageProvider("install")
	if err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	_, line, ok := strings.Cut(out, "above the first [table]: ")
	line, _, _ = strings.Cut(line, " (and keep")
	if !ok || !strings.HasPrefix(line, "imports = [") {
		t.Fatalf("install says %q, want the line to add", out)
	}
	must(t, os.WriteFile(filepath.Join(w.dir, "host", "etc", "config.toml"), []byte(line+"\n"+w.containerdConfig()), 0o600))
	if out, err = w.imageProvider("check"); err != nil {
		t.Fatalf("check after install: %v: %s", err, out)
	}
}

// startContainerd starts the worker's containerd. What it returns stops it; containers and the store stay.
func (w *world) startContainerd() (stop func()) {
	t, dir := w.t, filepath.Join(w.dir, "c")
	must(t, os.MkdirAll(dir, 0o700))
	logFile, err := os.OpenFile(filepath.Join(w.dir, "containerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	cmd := w.onWorker("containerd", "--config", "/etc/containerd/config.toml")
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = logFile.Close()
	})
	conn, err := grpc.NewClient("unix:"+w.cfg.ImageProvider.Runtime, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() {
		w.removePods()
		_ = conn.Close()
		stop()
		for _, m := range mounts(dir) {
			_ = syscall.Unmount(m, syscall.MNT_DETACH)
		}
		if t.Failed() {
			b, _ := os.ReadFile(logFile.Name())
			t.Logf("containerd:\n%s", b[max(0, len(b)-8000):])
		}
	})
	w.cri = &runtimeCRI{images: runtime.NewImageServiceClient(conn), runtime: runtime.NewRuntimeServiceClient(conn)}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		r, err := w.cri.runtime.Status(context.Background(), &runtime.StatusRequest{})
		if err == nil && r.GetStatus() != nil {
			return stop
		}
		if time.Now().After(deadline) {
			t.Fatalf("containerd does not answer: %v", err)
		}
	}
}

// mounts lists what is mounted below a folder, the innermost first.
func mounts(dir string) (out []string) {
	b, _ := os.ReadFile("/proc/self/mounts")
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			out = append([]string{f[1]}, out...)
		}
	}
	return out
}

// pull pulls as the kubelet does; the error is what its event says.
func (c *runtimeCRI) pull(image string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	_, err := c.images.PullImage(ctx, &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: image}})
	return err
}

func (c *runtimeCRI) has(image string) bool {
	r, err := c.images.ImageStatus(context.Background(), &runtime.ImageStatusRequest{Image: &runtime.ImageSpec{Image: image}})
	return err == nil && r.GetImage() != nil
}

// podTime is how long the sandbox, the container and its command may take.
const podTime = 30 * time.Second

// start starts a container of the image. It stays until it is removed, or the test ends.
func (w *world) start(image string, command ...string) (id, log string, err error) {
	c, ctx := w.cri, context.Background()
	c.n++
	name := fmt.Sprintf("p%d", c.n)
	logs := filepath.Join(w.dir, "logs", name)
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return "", "", err
	}
	network := &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE}
	sandbox := &runtime.PodSandboxConfig{
		Metadata: &runtime.PodSandboxMetadata{Name: name, Uid: name, Namespace: "default"}, LogDirectory: logs,
		Linux: &runtime.LinuxPodSandboxConfig{CgroupParent: "/touchstone-images", SecurityContext: &runtime.LinuxSandboxSecurityContext{NamespaceOptions: network}},
	}
	pod, err := c.runtime.RunPodSandbox(ctx, &runtime.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		return "", "", fmt.Errorf("sandbox: %w", err)
	}
	w.pods = append(w.pods, pod.PodSandboxId)
	made, err := c.runtime.CreateContainer(ctx, &runtime.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, SandboxConfig: sandbox, Config: &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: name}, Image: &runtime.ImageSpec{Image: image}, Command: command, LogPath: "log",
		Linux: &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{NamespaceOptions: network}},
	}})
	if err != nil {
		return "", "", fmt.Errorf("container: %w", err)
	}
	if _, err := c.runtime.StartContainer(ctx, &runtime.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
		return "", "", fmt.Errorf("start: %w", err)
	}
	return made.ContainerId, filepath.Join(logs, "log"), nil
}

// removePods removes all sandboxes with what is in them.
func (w *world) removePods() {
	for _, id := range w.pods {
		_, _ = w.cri.runtime.StopPodSandbox(context.Background(), &runtime.StopPodSandboxRequest{PodSandboxId: id})
		_, _ = w.cri.runtime.RemovePodSandbox(context.Background(), &runtime.RemovePodSandboxRequest{PodSandboxId: id})
	}
	w.pods = nil
}

// run runs a command in a container of the image, which it leaves, and returns what it wrote.
func (w *world) run(image string, command ...string) (id, out string, err error) {
	id, log, err := w.start(image, command...)
	if err != nil {
		return "", "", err
	}
	for deadline := time.Now().Add(podTime); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		s, err := w.cri.runtime.ContainerStatus(context.Background(), &runtime.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			return id, "", err
		}
		if s.Status.State == runtime.ContainerState_CONTAINER_EXITED {
			b, err := os.ReadFile(log)
			if s.Status.ExitCode != 0 {
				return id, string(b), fmt.Errorf("exit code %d", s.Status.ExitCode)
			}
			return id, string(b), err
		}
	}
	return id, "", fmt.Errorf("the container does not end")
}

// hasContainer reports whether the runtime has a container, ended or not.
func (c *runtimeCRI) hasContainer(t *testing.T, id string) bool {
	t.Helper()
	list, err := c.runtime.ListContainers(context.Background(), &runtime.ListContainersRequest{Filter: &runtime.ContainerFilter{Id: id}})
	must(t, err)
	return len(list.GetContainers()) > 0
}

// unpacked reports whether containerd keeps a layer unpacked that is the first of an image: it knows it by its digest.
func (w *world) unpacked(first v1.Hash) bool {
	w.t.Helper()
	out, err := exec.Command("ctr", "-a", w.cfg.ImageProvider.Runtime, "-n", "k8s.io", "snapshots", "ls").CombinedOutput()
	if err != nil {
		w.t.Fatalf("ctr: %v: %s", err, out)
	}
	return strings.Contains(string(out), first.String())
}
