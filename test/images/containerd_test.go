//go:build images

package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

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

// startContainerd starts Debian's containerd with what `trust-agent image-provider install` writes, in folders of its own.
func (w *world) startContainerd() {
	t, dir := w.t, filepath.Join(w.dir, "c")
	root := filepath.Join(w.dir, "host")
	decoder := filepath.Join(w.dir, "ctd-decoder")
	build(t, "ctd-decoder", decoder)
	program := os.Getenv("CONTAINERD")
	if program == "" {
		program = "/usr/bin/containerd"
	}
	text, err := exec.Command(program, "--version").Output()
	must(t, err)
	version, err := runtimeconf.ParseVersion(string(text))
	must(t, err)
	t.Logf("%s", strings.TrimSpace(string(text)))
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.MkdirAll(root, 0o700))
	conf := filepath.Join(root, "keyprovider.conf")
	dropIn := filepath.Join(root, "images.toml")
	must(t, os.WriteFile(conf, runtimeconf.KeyProvider(w.cfg.ImageProvider.Socket), 0o600))
	must(t, os.WriteFile(dropIn, runtimeconf.Containerd(version, decoder, conf), 0o600))
	cri := "io.containerd.grpc.v1.cri"
	config := fmt.Sprintf(`version = 2
imports = [%q]
root = %q
state = %q
[grpc]
  address = %q
[plugins.%q]
  sandbox_image = %q
  restrict_oom_score_adj = true
  [plugins.%q.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.%q.containerd.runtimes.runc.options]
      SystemdCgroup = false
`, dropIn, filepath.Join(dir, "root"), filepath.Join(dir, "state"), filepath.Join(dir, "c.sock"), cri, w.registry+"/pause:1", cri, cri)
	file := filepath.Join(root, "config.toml")
	must(t, os.WriteFile(file, []byte(config), 0o600))
	dump, err := exec.Command(program, "--config", file, "config", "dump").Output()
	must(t, err)
	problems, err := runtimeconf.CheckContainerd(version, dump, runtimeconf.Host{Socket: w.cfg.ImageProvider.Socket, Read: os.ReadFile, Look: func(p string) error { _, err := os.Stat(p); return err }})
	if err != nil || len(problems) != 0 {
		t.Fatalf("check of the configuration: %q, %v", problems, err)
	}
	logFile, err := os.Create(filepath.Join(w.dir, "containerd.log"))
	must(t, err)
	cmd := exec.Command(program, "--config", file)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		for _, m := range mounts(dir) {
			_ = syscall.Unmount(m, syscall.MNT_DETACH)
		}
		if t.Failed() {
			b, _ := os.ReadFile(logFile.Name())
			t.Logf("containerd:\n%s", b[max(0, len(b)-8000):])
		}
	})
	conn, err := grpc.NewClient("unix:"+filepath.Join(dir, "c.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	w.cri = &runtimeCRI{images: runtime.NewImageServiceClient(conn), runtime: runtime.NewRuntimeServiceClient(conn)}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		_, err := w.cri.runtime.Version(context.Background(), &runtime.VersionRequest{})
		if err == nil {
			return
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

// run runs a command in a container of the image, and returns what it writes.
func (w *world) run(image string, command ...string) (string, error) {
	c, ctx := w.cri, context.Background()
	c.n++
	name := fmt.Sprintf("p%d", c.n)
	logs := filepath.Join(w.dir, "logs", name)
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return "", err
	}
	sandbox := &runtime.PodSandboxConfig{
		Metadata: &runtime.PodSandboxMetadata{Name: name, Uid: name, Namespace: "default"}, LogDirectory: logs,
		Linux: &runtime.LinuxPodSandboxConfig{
			CgroupParent:    "/touchstone-images",
			SecurityContext: &runtime.LinuxSandboxSecurityContext{NamespaceOptions: &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE}},
		},
	}
	pod, err := c.runtime.RunPodSandbox(ctx, &runtime.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		return "", fmt.Errorf("sandbox: %w", err)
	}
	defer func() {
		_, _ = c.runtime.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: pod.PodSandboxId})
		_, _ = c.runtime.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: pod.PodSandboxId})
	}()
	made, err := c.runtime.CreateContainer(ctx, &runtime.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, SandboxConfig: sandbox, Config: &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: "app"}, Image: &runtime.ImageSpec{Image: image}, Command: command, LogPath: "log",
		Linux: &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{NamespaceOptions: &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE}}},
	}})
	if err != nil {
		return "", fmt.Errorf("container: %w", err)
	}
	if _, err := c.runtime.StartContainer(ctx, &runtime.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
		return "", fmt.Errorf("start: %w", err)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		s, err := c.runtime.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: made.ContainerId})
		if err != nil {
			return "", err
		}
		if s.Status.State == runtime.ContainerState_CONTAINER_EXITED {
			b, err := os.ReadFile(filepath.Join(logs, "log"))
			if s.Status.ExitCode != 0 {
				return string(b), fmt.Errorf("exit code %d", s.Status.ExitCode)
			}
			return string(b), err
		}
	}
	return "", fmt.Errorf("the container does not end")
}
