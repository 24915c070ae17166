//go:build cluster

package cluster

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// sealed is what the scenario of encrypted images works with.
type sealed struct {
	*world
	registry string // host:port, as the workers and the machine see it
	program  string // touchstone
	layers   string // chain ID of the unpacked layers of the ledger, by which containerd knows them
}

// TestS6 follows an encrypted image: from the registry to a worker that may open it, and not to those that may not.
func TestS6(t *testing.T) {
	s := &sealed{world: installed(t)}
	ctx, w2 := t.Context(), s.Workers[1]
	must(t, s.Step("S6 registry", func() (err error) {
		s.registry = s.openRegistry(t)
		return errors.Join(s.pushPlain(ctx, "ledger"), s.pushPlain(ctx, "moon"), s.pushPlain(ctx, "late"))
	}))
	must(t, s.Step("S6 containerd decrypts by the agent", func() error { return s.prepare(ctx, w2) }))
	began := time.Now()
	image := s.encrypt(t, "ledger", "--trust-class", "regulated")
	s.logf("S6 image encrypted in %.2f s", time.Since(began).Seconds())

	n := s.newTenant(t, "vault", "regulated")
	p := n.pod("ledger", secretive(image), onWorker(w2)) // only its containerd decrypts
	began = time.Now()
	must(t, n.alice.Create(ctx, p))
	must(t, s.says(ctx, p, secretOf("ledger")))
	s.logf("S6 a pod of class regulated runs from the encrypted image on %s after %.2f s", w2.Name, time.Since(began).Seconds())

	t.Run("another class's key", func(t *testing.T) {
		must(t, writeFiles(s.dir, map[string][]byte{"moon.json": []byte(`{"softwareTPM":"Allow","tags":{"site":["moon"]}}`)}))
		moon := s.encrypt(t, "moon", "--conditions", filepath.Join(s.dir, "moon.json"))
		p := s.stray(t, "moon", w2, moon) // the worker is trusted, but its tag is another
		event, err := s.event(ctx, p.Namespace, p.Name, "tag site", "moon")
		must(t, err)
		s.logf("S6 refused: ... %s", event[max(0, len(event)-250):])
	})
	t.Run("a result older than the key allows", func(t *testing.T) { s.late(t, w2) })
	t.Run("a stale worker", func(t *testing.T) {
		late := s.encrypt(t, "late", "--trust-class", "regulated")
		s.scaleAIAS(t, 0)
		must(t, until(ctx, w2.Name+" falls", maxAge+15*time.Second, nil, func(ctx context.Context) error {
			tr, err := s.Trust(ctx, w2.Name)
			if err == nil && !tr.Fallen() {
				err = errors.New("it is still trusted")
			}
			return err
		}))
		p := s.stray(t, "late", w2, late)
		event, err := s.event(ctx, p.Namespace, p.Name, "cannot attest")
		must(t, err)
		s.logf("S6 refused: ... %s", event[max(0, len(event)-250):])
		s.scaleAIAS(t, 1)
		must(t, s.PodsReady(ctx, Namespace, "aias-0"))
		_, err = s.Until(ctx, w2.Name, "trusted", (*Trust).Trusted)
		must(t, err)
		must(t, s.says(ctx, p, secretOf("late"))) // the kubelet tries again by itself
		s.logf("S6 AIAS is back: what waited for the key runs")
	})
	t.Run("the worker falls", func(t *testing.T) {
		began := time.Now()
		must(t, w2.Execute("/var/tmp/m", []byte("run beside a secret")))
		_, err := s.Until(ctx, w2.Name, "fallen", (*Trust).Fallen)
		must(t, err)
		s.leaves(t, w2.Name)
		must(t, until(ctx, "the decrypted image is removed", podTime, nil, func(ctx context.Context) error {
			list, err := w2.Run(ctx, "ctr", "-n", "k8s.io", "images", "ls", "-q")
			if err == nil && strings.Contains(string(list), s.registry+"/ledger-encrypted") {
				err = errors.New("it is still there")
			}
			return err
		}))
		s.logf("S6 %s fell: its pods and the image that it had decrypted are gone after %.2f s", w2.Name, time.Since(began).Seconds())
		// Until its ended containers are gone the runtime keeps the layers, and asks for no key: the agent removes them (docs/images.md, "When trust is lost").
		must(t, until(ctx, "the decrypted layers are gone", podTime, nil, func(ctx context.Context) error {
			list, err := w2.Run(ctx, "ctr", "-n", "k8s.io", "snapshots", "ls")
			if err == nil && strings.Contains(string(list), s.layers) {
				err = errors.New("they are still there")
			}
			return err
		}))
		s.logf("S6 %s fell: the layers are gone after %.2f s", w2.Name, time.Since(began).Seconds())
		p := s.stray(t, "stray", w2, image)
		event, err := s.event(ctx, p.Namespace, p.Name, "level 5")
		must(t, err)
		s.logf("S6 refused: ... %s", event[max(0, len(event)-250):])
		s.recovers(t, w2)
		must(t, s.says(ctx, p, secretOf("ledger"))) // the kubelet tries again by itself
		s.logf("S6 trust is back: what waited for the key runs")
	})
}

func secretOf(image string) string { return "the secret of " + image }

// secretive has a pod run an image for the file in it.
func secretive(image string) func(*core.Pod) {
	return func(p *core.Pod) {
		c := &p.Spec.Containers[0]
		c.Image, c.ImagePullPolicy, c.Command = image, core.PullAlways, []string{"sh", "-c", "cat /secret.txt; trap exit TERM; while :; do sleep 1; done"}
	}
}

// stray makes a pod of no class that tolerates everything and insists on a worker: only the key is between it and the image.
func (s *sealed) stray(t *testing.T, name string, w *Worker, image string) *core.Pod {
	t.Helper()
	n := &tenant{world: s.world, name: "default"}
	p := n.pod(name, secretive(image), func(p *core.Pod) {
		delete(p.Labels, v1alpha1.ClassLabel)
		p.Spec.ServiceAccountName, p.Spec.NodeName = "", w.Name
		p.Spec.Tolerations = []core.Toleration{{Operator: core.TolerationOpExists}}
	})
	must(t, s.Client.Create(t.Context(), p))
	t.Cleanup(func() { _ = s.Client.Delete(context.Background(), p, client.GracePeriodSeconds(0)) })
	return p
}

// says waits until a pod has printed a text.
func (s *sealed) says(ctx context.Context, p *core.Pod, text string) error {
	return until(ctx, "pod "+p.Name+" prints its secret", 2*podTime, nil, func(ctx context.Context) error {
		out, err := s.Set.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &core.PodLogOptions{}).DoRaw(ctx)
		if err == nil && !strings.Contains(string(out), text) {
			err = fmt.Errorf("it prints %q", out)
		}
		return err
	})
}

// openRegistry serves a registry on the machine, without TLS, until the test ends.
func (s *world) openRegistry(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", machineIP+":0")
	must(t, err)
	server := httptest.NewUnstartedServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	_ = server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	return l.Addr().String()
}

// pushPlain puts an image with a secret of its own into the registry. (Were it the secret of another image, whose layers lie unpacked on a worker, no key
// would be asked for: docs/images.md.)
func (s *sealed) pushPlain(ctx context.Context, image string) error {
	programs, err := busyboxLayer()
	if err != nil {
		return err
	}
	secret, err := layerOf(entry{tar.Header{Typeflag: tar.TypeReg, Name: "secret.txt", Mode: 0o644}, []byte(secretOf(image) + "\n")})
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(empty.Image, programs, secret)
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	if image == "ledger" {
		d := config.RootFS.DiffIDs
		s.layers = digest.FromString(d[0].String() + " " + d[1].String()).String() // OCI image specification, "Layer ChainID"
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config = "linux", runtime.GOARCH, v1.Config{Entrypoint: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return err
	}
	tag, err := name.NewTag(s.registry+"/"+image+":plain", name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(tag, img, remote.WithContext(ctx))
}

// pullsFrom has the containerd of a worker ask a registry without TLS.
func (w *Worker) pullsFrom(registry string) error {
	hosts := fmt.Sprintf("[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", registry)
	return writeFiles(w.file("etc-containerd/certs.d/"+registry), map[string][]byte{"hosts.toml": []byte(hosts)})
}

// prepare has the containerd of a worker decrypt images, as the documents tell.
func (s *sealed) prepare(ctx context.Context, w *Worker) error {
	agent, err := s.Build(ctx, "trust-agent")
	if err != nil {
		return err
	}
	if _, err := s.Build(ctx, "ctd-decoder"); err != nil { // beside it
		return err
	}
	if s.program, err = s.Build(ctx, "touchstone"); err != nil {
		return err
	}
	if err := w.pullsFrom(s.registry); err != nil {
		return err
	}
	if err := s.setUp(ctx, w); err != nil {
		return err
	}
	_, err = w.Run(ctx, agent, "image-provider", "check", "--socket", "/run/trust-agent/keyprovider.sock")
	return err
}

// encrypt encrypts the plain image under a new key, and returns its name by digest.
func (s *sealed) encrypt(t *testing.T, name string, more ...string) string {
	t.Helper()
	args := []string{"--operator", s.aias.Bundle, "image", "encrypt", "--plain-http", "-o", "json", s.registry + "/" + name + ":plain", s.registry + "/" + name + "-encrypted:1"}
	var text []byte
	must(t, until(t.Context(), "AIAS knows the class", podTime, nil, func(ctx context.Context) (err error) {
		text, err = output(ctx, s.program, append(args, more...)...)
		return err
	}))
	var out struct {
		Image string `json:"image"`
	}
	must(t, json.Unmarshal(text, &out))
	if !strings.Contains(out.Image, "@sha256:") {
		t.Fatalf("touchstone image encrypt: got %s, want an image with its digest in it", text)
	}
	return out.Image
}
