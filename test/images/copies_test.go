//go:build images

package images

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// copies: others carry an encrypted image from place to place as it is, and what they carried decrypts. skopeo of Debian cannot decrypt: it need not.
func (w *world) copies() {
	t, registry := w.t, "docker://"+w.registry+"/"
	// Two platforms, from a registry into an OCI layout, and by skopeo into the registry and out of it again.
	var adds []mutate.IndexAddendum
	for _, arch := range []string{runtime.GOARCH, "riscv64"} {
		img := image(t, arch, "the secret of "+arch, nil, types.OCILayer, types.OCILayerZStd)
		adds = append(adds, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	must(t, remote.WriteIndex(w.reference("multi:1"), mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), adds...)))
	first, second := "oci:"+filepath.Join(w.dir, "first")+":1", "oci:"+filepath.Join(w.dir, "second")+":1"
	w.encryptAt(w.registry+"/multi:1", first, "lax")
	w.skopeo("copy", "--all", "--dest-tls-verify=false", first, registry+"multi-carried:1")
	w.skopeo("copy", "--all", "--src-tls-verify=false", registry+"multi-carried:1", second)
	want := w.manifests(first)
	for _, at := range []string{registry + "multi-carried:1", second} {
		if got := w.manifests(at); !slices.Equal(got, want) || len(got) != 2 {
			t.Errorf("%s has manifests %q, encrypted were %q", at, got, want)
		}
	}
	w.runs(w.registry+"/multi-carried:1", "/file-1", "the secret of "+runtime.GOARCH)

	// An archive of docker, which skopeo makes.
	archive := "docker-archive:" + filepath.Join(w.dir, "app.tar")
	w.push("archived:1", "the secret of the archive", nil, types.OCILayer, types.OCILayer)
	w.skopeo("copy", "--src-tls-verify=false", registry+"archived:1", archive+":app:1")
	w.encryptAt(archive, w.registry+"/archived-encrypted:1", "lax")
	w.runs(w.registry+"/archived-encrypted:1", "/file-1", "the secret of the archive")
	w.removePods()
}

// manifests are the digests in an index. (That of the index changes: skopeo 1.9 writes indexes anew.)
func (w *world) manifests(at string) (digests []string) {
	w.t.Helper()
	var index v1.IndexManifest
	must(w.t, json.Unmarshal(w.skopeo("inspect", "--raw", "--tls-verify=false", at), &index))
	for _, m := range index.Manifests {
		digests = append(digests, m.Digest.String())
	}
	return digests
}

func (w *world) skopeo(args ...string) []byte {
	w.t.Helper()
	cmd := exec.Command("skopeo", append([]string{"--insecure-policy"}, args...)...)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("skopeo %q: %v: %s", args, err, errOut.String())
	}
	return out
}

// runs pulls an image, which a container then says a secret from.
func (w *world) runs(image, file, secret string) {
	w.t.Helper()
	must(w.t, w.cri.pull(image))
	if _, out, err := w.run(image, "/bin/busybox", "cat", file); err != nil || !strings.Contains(out, secret) {
		w.t.Errorf("%s: got %q, %v, want %q", image, out, err, secret)
	}
}
