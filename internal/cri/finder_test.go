package cri

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// served is a runtime that knows one container and one sandbox. What real runtimes answer, containerd's own part of the test shows.
type served struct {
	runtime.UnimplementedRuntimeServiceServer
}

var (
	aContainer = strings.Repeat("a", 64)
	aSandbox   = strings.Repeat("b", 64)
)

func (served) ListContainers(_ context.Context, r *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	if r.GetFilter().GetId() != aContainer {
		return &runtime.ListContainersResponse{}, nil
	}
	return &runtime.ListContainersResponse{Containers: []*runtime.Container{{
		Id: aContainer, Image: &runtime.ImageSpec{Image: "sha256:" + strings.Repeat("c", 64), UserSpecifiedImage: "shop/web:1"}, ImageRef: "shop/web@sha256:" + strings.Repeat("d", 64),
		Labels: map[string]string{labelPod: "web-1", labelNamespace: "shop", labelPodUID: "6f", labelContainer: "web"},
	}}}, nil
}

func (served) ListPodSandbox(_ context.Context, r *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
	if r.GetFilter().GetId() != aSandbox {
		return &runtime.ListPodSandboxResponse{}, nil
	}
	return &runtime.ListPodSandboxResponse{Items: []*runtime.PodSandbox{{Id: aSandbox, Metadata: &runtime.PodSandboxMetadata{Name: "web-1", Namespace: "shop", Uid: "6f"}}}}, nil
}

func TestFinder(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "cri.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	runtime.RegisterRuntimeServiceServer(s, served{})
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	f := NewFinder("/nonexistent.sock", socket)
	defer f.Close() //nolint:errcheck // of a test
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	want := Container{Namespace: "shop", Pod: "web-1", PodUID: "6f", Name: "web", Image: "shop/web:1", ImageDigest: "sha256:" + strings.Repeat("d", 64)}
	if got, err := f.Container(ctx, aContainer); err != nil || got != want {
		t.Errorf("Container: got %+v, %v, want %+v", got, err, want)
	}
	want = Container{Namespace: "shop", Pod: "web-1", PodUID: "6f"}
	if got, err := f.Container(ctx, aSandbox); err != nil || got != want {
		t.Errorf("Container of a sandbox: got %+v, %v, want %+v", got, err, want)
	}
	if _, err := f.Container(ctx, strings.Repeat("e", 64)); err == nil || !strings.Contains(err.Error(), "does not know") {
		t.Errorf("Container that nobody knows: got %v", err)
	}
	if _, err := NewFinder("/nonexistent.sock").Container(ctx, aContainer); err == nil || !strings.Contains(err.Error(), "no container runtime") {
		t.Errorf("without a runtime: got %v", err)
	}
}

// TestFinderAsksContainerd: the real containerd answers the questions, and says that it does not know the container.
func TestFinderAsksContainerd(t *testing.T) {
	if _, err := exec.LookPath("containerd"); err != nil {
		t.Fatalf("%v: the test needs the real containerd (scripts/need test installs it)", err)
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "c.sock")
	cmd := exec.Command("containerd", "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"), "--address", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	f := NewFinder(socket)
	defer f.Close() //nolint:errcheck // of a test
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err = f.Container(ctx, aContainer)
		cancel()
		if err != nil && strings.Contains(err.Error(), "does not know") {
			return
		}
	}
	t.Errorf("containerd: got %v, want that it does not know the container", err)
}
