//go:build images

package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/runtimeconf"
)

// layer is a layer of known digest unpacked.
type layer struct {
	v1.Layer
	diff v1.Hash
}

func (l layer) DiffID() (v1.Hash, error) { return l.diff, nil }

func tarOf(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755}))
	for name, content := range files {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}))
		_, err := w.Write(content)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func packed(t *testing.T, plain []byte, kind types.MediaType) v1.Layer {
	t.Helper()
	diff, _, err := v1.SHA256(bytes.NewReader(plain))
	must(t, err)
	out := plain
	switch {
	case strings.HasSuffix(string(kind), "gzip"):
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, err := w.Write(plain)
		must(t, err)
		must(t, w.Close())
		out = b.Bytes()
	case strings.HasSuffix(string(kind), "zstd"):
		w, err := zstd.NewWriter(nil)
		must(t, err)
		out = w.EncodeAll(plain, nil)
	}
	return layer{static.NewLayer(out, kind), diff}
}

// image makes an image with busybox in a layer of each kind's own, and a secret in each.
func image(t *testing.T, arch, secret string, entry []string, kinds ...types.MediaType) v1.Image {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	must(t, err)
	var adds []mutate.Addendum
	for i, kind := range kinds {
		files := map[string][]byte{fmt.Sprintf("file-%d", i): []byte(secret)}
		if i == 0 {
			files["bin/busybox"] = busybox
		}
		adds = append(adds, mutate.Addendum{Layer: packed(t, tarOf(t, files), kind), MediaType: kind})
	}
	img, err := mutate.Append(mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1), adds...)
	must(t, err)
	file, err := img.ConfigFile()
	must(t, err)
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", arch, v1.Config{Entrypoint: entry}
	img, err = mutate.ConfigFile(img, file)
	must(t, err)
	return img
}

func (w *world) reference(image string) name.Reference {
	ref, err := name.ParseReference(w.registry+"/"+image, name.Insecure)
	must(w.t, err)
	return ref
}

// push puts an image into the registry, and returns the digest of its first layer unpacked.
func (w *world) push(name, secret string, entry []string, kinds ...types.MediaType) v1.Hash {
	w.t.Helper()
	img := image(w.t, runtime.GOARCH, secret, entry, kinds...)
	must(w.t, remote.Write(w.reference(name), img))
	file, err := img.ConfigFile()
	must(w.t, err)
	return file.RootFS.DiffIDs[0]
}

func wants(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %q", what, words)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: got %v, want %q", what, err, word)
		}
	}
	t.Logf("%s: %v", what, err)
}

// TestImages: a trusted worker pulls, decrypts and runs; one without the tag, of another class, revoked or fallen does not, and the runtime says why; what
// was decrypted goes with the trust.
func TestImages(t *testing.T) {
	w := newWorld(t)
	w.push("pause:1", "", []string{"/bin/busybox", "sleep", "999999"}, types.OCILayer)
	first := w.push("app:1", "the secret of app", nil, types.OCILayer, types.OCIUncompressedLayer, types.OCILayerZStd)
	w.push("tagged:1", "the secret of tagged", nil, types.OCILayer)
	w.class("lax", `{"softwareTPM":"Allow"}`)
	w.class("regulated", `{"softwareTPM":"Allow","tags":{"country":["de"]}}`)
	w.class("hardware", `{}`)
	app, appKey := w.encrypt("app:1", "app-encrypted:1", "lax")
	tagged, _ := w.encrypt("tagged:1", "tagged-encrypted:1", "regulated")
	hardware, _ := w.encrypt("tagged:1", "hardware-encrypted:1", "hardware")
	w.prepare(app)
	must(t, w.cri.pull(w.registry+"/pause:1"))

	wants(t, "without the tag", w.cri.pull(tagged), "trust class regulated", node, "tag country is not proven, want de")
	wants(t, "with a TPM that is a program", w.cri.pull(hardware), "its TPM is a program")
	if a := w.attested(); !a.Trusted {
		t.Fatalf("the worker is not trusted: %+v", a.Levels)
	}
	start, releases := time.Now(), w.releases()
	must(t, w.cri.pull(app))
	t.Logf("pulled and decrypted three layers in %s", time.Since(start).Round(time.Millisecond))
	if n := w.releases() - releases; n != 1 {
		t.Errorf("three layers: %d releases, want one", n)
	}
	if !w.unpacked(first) {
		t.Error("the layers are not known by their digests")
	}
	ended, out, err := w.run(app, "/bin/busybox", "cat", "/file-2")
	if err != nil || !strings.Contains(out, "the secret of app") {
		t.Fatalf("run: %q, %v", out, err)
	}
	w.copies()
	w.touchstone("tag", "set", node, "country=de", "--wait", "30s")
	w.attested()
	must(t, w.cri.pull(tagged))
	running, _, err := w.start(app, "/bin/busybox", "sleep", "1000")
	must(t, err)

	// A key is revoked: the image goes with what has ended of it; what runs goes when it has ended, and then the layers go.
	w.touchstone("image", "key", "revoke", appKey)
	w.gone(app)
	if w.cri.hasContainer(t, ended) || !w.cri.hasContainer(t, running) {
		t.Errorf("the ended container is there: %v, the running one: %v", w.cri.hasContainer(t, ended), w.cri.hasContainer(t, running))
	}
	_, err = w.cri.runtime.StopContainer(t.Context(), &criapi.StopContainerRequest{ContainerId: running})
	must(t, err)
	w.until("the ended container is gone", func() bool { return !w.cri.hasContainer(t, running) })
	w.until("the layers are gone", func() bool { return !w.unpacked(first) })
	w.removePods()
	wants(t, "revoked", w.cri.pull(app), "is revoked")
	w.touchstone("image", "key", "restore", appKey)
	w.attested()
	must(t, w.cri.pull(app))

	// The agent is away: the wait ends, and the event says so. Another secret, so that nothing of the image lies unpacked.
	w.stop()
	w.push("other:1", "another secret", nil, types.OCILayer)
	other, _ := w.encrypt("other:1", "other-encrypted:1", "lax")
	wants(t, "without agent", w.cri.pull(other), "does trust-agent run")

	// The worker boots with another command line: its images go, and none comes.
	w.boot("cmdline")
	w.cfg.TPM = w.worker.Address()
	w.runAgent()
	if a := w.attested(); a.Trusted {
		t.Fatal("the worker is trusted after a bad boot")
	}
	w.gone(app)
	w.gone(tagged)
	wants(t, "fallen", w.cri.pull(app), "level 4 is fail")
	if !w.cri.has(w.registry + "/pause:1") {
		t.Error("an image that was never encrypted is gone, too")
	}

	// AIAS is away: what the worker showed before is worth nothing, and the wait ends with the reason.
	w.stopAIAS()
	wants(t, "without AIAS", w.cri.pull(app), "trust-agent: ", "reach AIAS: ")
}

// prepare has containerd decrypt images: as it comes it does not, a check says why, and what was installed helps.
func (w *world) prepare(image string) {
	t := w.t
	stop := w.startContainerd()
	out, err := w.imageProvider("check")
	wants(t, "check before install", errors.Join(err, errors.New(out)), "exit status 1", "tar+zstd+encrypted")
	if w.version.Major >= 2 && !strings.Contains(out, "use_local_image_pull = true") {
		t.Errorf("check before install: %q, want that images are pulled by the transfer service", out)
	}
	wants(t, "pulled before install", w.cri.pull(image))
	// With all but local pulls containerd 2.1 and later start the decoder, and do not tell it the layer.
	w.install()
	stop()
	dropIn := filepath.Join(w.dir, "host", "etc", "conf.d", filepath.Base(runtimeconf.DropIn))
	if w.version.Major >= 2 {
		good, err := os.ReadFile(dropIn)
		must(t, err)
		must(t, os.WriteFile(dropIn, bytes.ReplaceAll(good, []byte("use_local_image_pull = true"), []byte("use_local_image_pull = false")), 0o600))
		stop = w.startContainerd()
		wants(t, "pulled by the transfer service", w.cri.pull(image))
		if out, err := w.imageProvider("check"); err == nil || !strings.Contains(out, "use_local_image_pull = true") {
			t.Errorf("check without local pulls: %q, %v", out, err)
		}
		stop()
		must(t, os.WriteFile(dropIn, good, 0o600))
	}
	w.startContainerd()
}

// gone waits until the agent has removed an image.
func (w *world) gone(image string) {
	w.t.Helper()
	w.until(image+" is gone", func() bool { return !w.cri.has(image) })
}

// until attests until something is true.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > 30*time.Second {
			w.t.Fatalf("not so: %s", what)
		}
		w.attested()
		time.Sleep(200 * time.Millisecond)
	}
	w.t.Logf("%s after %s", what, time.Since(began).Round(10*time.Millisecond))
}

// releases counts the keys that AIAS gave.
func (w *world) releases() int {
	w.t.Helper()
	r := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(r, httptest.NewRequest(http.MethodGet, protocol.PathMetrics, nil))
	text := r.Body.String()
	var n float64
	for _, line := range strings.Split(text, "\n") {
		if rest, ok := strings.CutPrefix(line, `aias_image_keys_total{outcome="released"} `); ok {
			_, err := fmt.Sscan(rest, &n)
			must(w.t, err)
		}
	}
	return int(n)
}
