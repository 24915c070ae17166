//go:build images

package images

import (
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestStopContainers: when a worker falls, its agent stops what runs of encrypted images where imageProvider.stopContainers says so, and only there; what runs
// of others goes on.
func TestStopContainers(t *testing.T) {
	w := newWorld(t)
	w.push("pause:1", "", []string{"/bin/busybox", "sleep", "999999"}, types.OCILayer)
	w.push("plain:1", "no secret", nil, types.OCILayer)
	w.push("app:1", "the secret of app", nil, types.OCILayer)
	w.class("lax", `{"softwareTPM":"Allow"}`)
	app, _ := w.encrypt("app:1", "app-encrypted:1", "lax")
	w.prepare(app)
	plain := w.registry + "/plain:1"
	must(t, w.cri.pull(w.registry+"/pause:1"))
	must(t, w.cri.pull(plain))
	must(t, w.cri.pull(app))
	other := w.sleeps(plain)
	first := w.sleeps(app)

	w.reboot("cmdline", false)
	w.gone(app)
	for range 3 { // what the agent sees to once an attestation
		w.attested()
	}
	if !w.sleeping(first) {
		t.Error("a container was stopped, which was not asked for")
	}

	w.reboot("good", true)
	must(t, w.cri.pull(app))
	second := w.sleeps(app)
	w.cfg.ImageProvider.StopContainers = true
	w.reboot("cmdline", false)
	began := time.Now()
	w.gone(app)
	w.until("the container is stopped and gone", func() bool { return !w.cri.hasContainer(t, second) })
	t.Logf("stopped %s after the first verdict", time.Since(began).Round(10*time.Millisecond))
	w.until("that of before is gone, too", func() bool { return !w.cri.hasContainer(t, first) })
	if !w.sleeping(other) {
		t.Error("a container of an image that was never encrypted was stopped, too")
	}
}

// sleeps starts a container that does not end by itself.
func (w *world) sleeps(image string) (id string) {
	w.t.Helper()
	id, _, err := w.start(image, "/bin/busybox", "sleep", "100000")
	must(w.t, err)
	if !w.sleeping(id) {
		w.t.Fatalf("the container of %s does not run", image)
	}
	return id
}

// sleeping tells whether a container runs.
func (w *world) sleeping(id string) bool {
	s, err := w.cri.runtime.ContainerStatus(w.t.Context(), &criapi.ContainerStatusRequest{ContainerId: id})
	return err == nil && s.GetStatus().GetState() == criapi.ContainerState_CONTAINER_RUNNING
}

// reboot boots the worker another way, and starts its agent with the configuration that it has now. The container runtime, which is this machine's, runs on.
func (w *world) reboot(boot string, trusted bool) {
	w.t.Helper()
	w.stop()
	w.boot(boot)
	w.cfg.TPM = w.worker.Address()
	w.runAgent()
	if a := w.attested(); a.Trusted != trusted {
		w.t.Fatalf("boot %s: trusted is %v, want %v: %+v", boot, a.Trusted, trusted, a.Levels)
	}
}
