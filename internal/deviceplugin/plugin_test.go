package deviceplugin

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const patience = 20 * time.Second

// kubelet does what the kubelet's device manager does: it removes the sockets that it finds, takes registrations, and dials back.
type kubelet struct {
	api.UnimplementedRegistrationServer
	folder     string
	registered chan *api.RegisterRequest
	server     *grpc.Server
}

func startKubelet(t *testing.T, folder string) *kubelet {
	t.Helper()
	sockets, err := filepath.Glob(filepath.Join(folder, "*.sock"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sockets {
		_ = os.Remove(s)
	}
	l, err := net.Listen("unix", filepath.Join(folder, kubeletName))
	if err != nil {
		t.Fatal(err)
	}
	k := &kubelet{folder: folder, registered: make(chan *api.RegisterRequest, 1), server: grpc.NewServer()}
	api.RegisterRegistrationServer(k.server, k)
	go func() { _ = k.server.Serve(l) }()
	t.Cleanup(k.server.Stop)
	return k
}

func (k *kubelet) Register(_ context.Context, r *api.RegisterRequest) (*api.Empty, error) {
	k.registered <- r
	return &api.Empty{}, nil
}

// plugin waits for a registration and connects to who registered.
func (k *kubelet) plugin(t *testing.T) api.DevicePluginClient {
	t.Helper()
	select {
	case r := <-k.registered:
		if r.GetResourceName() != "touchstone.dev/tpm" || r.GetVersion() != "v1beta1" {
			t.Errorf("registered: got resource %q, version %q", r.GetResourceName(), r.GetVersion())
		}
		c, err := grpc.NewClient("unix://"+filepath.Join(k.folder, r.GetEndpoint()), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return api.NewDevicePluginClient(c)
	case <-time.After(patience):
		t.Fatal("the plugin does not register")
		return nil
	}
}

// folder is short: the path of a socket has at most 107 bytes.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func run(t *testing.T, p *Plugin) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
}

func healths(r *api.ListAndWatchResponse) []string {
	out := []string{}
	for _, d := range r.GetDevices() {
		out = append(out, d.GetID()+" "+d.GetHealth())
	}
	return out
}

func TestPlugin(t *testing.T) {
	dir := folder(t)
	sysfs := filepath.Join(dir, "tpmrm0")
	if err := os.Mkdir(sysfs, 0o755); err != nil {
		t.Fatal(err)
	}
	k := startKubelet(t, dir)
	run(t, &Plugin{Device: "/dev/tpmrm0", Sysfs: sysfs, Folder: dir, Poll: 10 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := k.plugin(t)
	list, err := c.ListAndWatch(ctx, &api.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want ...string) {
		t.Helper()
		r, err := list.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(append([]string{}, want...), healths(r)); diff != "" {
			t.Errorf("devices (-want +got):\n%s", diff)
		}
	}
	next("tpm Healthy")
	if err := os.Remove(sysfs); err != nil {
		t.Fatal(err)
	}
	next()
	if err := os.Mkdir(sysfs, 0o755); err != nil {
		t.Fatal(err)
	}
	next("tpm Healthy")

	got, err := c.Allocate(ctx, &api.AllocateRequest{ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: []string{"tpm"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.GetContainerResponses()) != 1 || len(got.GetContainerResponses()[0].GetDevices()) != 1 {
		t.Fatalf("Allocate: got %v, want one device", got)
	}
	if d := got.GetContainerResponses()[0].GetDevices()[0]; d.GetHostPath() != "/dev/tpmrm0" || d.GetContainerPath() != "/dev/tpmrm0" || d.GetPermissions() != "rw" {
		t.Errorf("Allocate: got %v, want /dev/tpmrm0 rw", d)
	}
	if _, err := c.Allocate(ctx, &api.AllocateRequest{ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: []string{"other"}}}}); err == nil {
		t.Error("Allocate of another device: got no error")
	}

	k.server.Stop()
	c = startKubelet(t, dir).plugin(t)
	if list, err = c.ListAndWatch(ctx, &api.Empty{}); err != nil {
		t.Fatal(err)
	}
	next("tpm Healthy")
}

// TestKubeletLater: the plugin waits for a kubelet that is not there yet.
func TestKubeletLater(t *testing.T) {
	dir := folder(t)
	run(t, &Plugin{Device: "/dev/x", Sysfs: "/nonexistent", Folder: dir, Poll: 10 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	time.Sleep(50 * time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := startKubelet(t, dir).plugin(t).ListAndWatch(ctx, &api.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := list.Recv()
	if err != nil || len(r.GetDevices()) != 0 {
		t.Errorf("without the device: got %v, %v; want an empty list", r, err)
	}
}

func TestValidate(t *testing.T) {
	if err := (&Plugin{Device: "/dev/x"}).Run(context.Background()); err == nil {
		t.Error("Run of an incomplete plugin: got no error")
	}
}
