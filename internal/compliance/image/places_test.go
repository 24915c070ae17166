package image

import (
	"archive/tar"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// TestLikeUmoci: another implementation makes the same of the same layers.
func TestLikeUmoci(t *testing.T) {
	img := imageOf(t,
		packed(t, tarOf(t,
			file{name: "./", kind: tar.TypeDir}, file{name: "./etc/", kind: tar.TypeDir}, file{name: "./etc/passwd", body: "root", mode: 0o644}, file{name: "./etc/shadow", body: "x", mode: 0o640, uid: 42},
			file{name: "./usr/bin/su", body: "elf", mode: 0o4755}, file{name: "./bin", link: "usr/bin", kind: tar.TypeSymlink}, file{name: "./run/", kind: tar.TypeDir},
			file{name: "./var/run", link: "/run", kind: tar.TypeSymlink}, file{name: "./tmp/", kind: tar.TypeDir, mode: 0o1777}, file{name: "./opt/a/b/c", body: "c"},
			file{name: "./hard", link: "./etc/passwd", kind: tar.TypeLink}, file{name: "./odd name\n", body: "o"})),
		packed(t, tarOf(t, file{name: "bin/sh", body: "sh"}, file{name: "var/run/pid", body: "1"}, file{name: "opt/a/.wh.b"}, file{name: "etc/passwd", body: "other"})),
		packed(t, tarOf(t, file{name: "opt/.wh..wh..opq"}, file{name: "opt/new", body: "n"}, file{name: ".wh.hard"})))
	dir := t.TempDir()
	p, err := layout.Write(filepath.Join(dir, "l"), empty.Index)
	if err == nil {
		err = p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "t"}))
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("umoci", "raw", "unpack", "--image", filepath.Join(dir, "l")+":t", filepath.Join(dir, "u")).CombinedOutput(); err != nil {
		t.Fatalf("umoci (scripts/need test installs it): %v: %s", err, out)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := FromBlobs(filepath.Join(dir, "l"), digest, v1.Platform{OS: "linux", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Unpack(context.Background(), ours, Options{Temp: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want, got := contents(t, filepath.Join(dir, "u")), contents(t, r.Dir)
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%q: got %q, umoci has %q", name, got[name], want[name])
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%q is not there for umoci", name)
	}
	if len(want) < 15 {
		t.Errorf("umoci unpacked only %d files", len(want))
	}
}

func TestArchive(t *testing.T) {
	file_ := filepath.Join(t.TempDir(), "a.tar")
	img := imageOf(t, packed(t, tarOf(t, file{name: "a", body: "1"})))
	if err := tarball.WriteToFile(file_, nil, img); err != nil {
		t.Fatal(err)
	}
	back, err := tarball.ImageFromPath(file_, nil)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := FromArchive(back)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Unpack(context.Background(), ours, Options{Temp: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if want, _ := img.ConfigName(); ours.Config != want || ours.Manifest.Hex != "" || ours.ID() != want.String() || names(t, r) != "a" {
		t.Errorf("got %+v with %q", ours, names(t, r))
	}
}

func TestSelect(t *testing.T) {
	amd, arm := imageOf(t, plain(tarOf(t, file{name: "amd"}))), imageOf(t, plain(tarOf(t, file{name: "arm"})))
	add := func(img v1.Image, arch string) mutate.IndexAddendum {
		d, err := partial.Descriptor(img)
		if err != nil {
			t.Fatal(err)
		}
		d.Platform = &v1.Platform{OS: "linux", Architecture: arch}
		return mutate.IndexAddendum{Add: img, Descriptor: *d}
	}
	index := mutate.AppendManifests(empty.Index, add(amd, "amd64"), add(arm, "arm64"))
	img, err := Select(index, v1.Platform{OS: "linux", Architecture: "arm64"})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := img.Digest()
	if want, _ := arm.Digest(); got != want {
		t.Errorf("got %s, want that for arm64", got)
	}
	if _, err := Select(index, v1.Platform{OS: "linux", Architecture: "s390x"}); err == nil || !strings.Contains(err.Error(), "linux/amd64") {
		t.Errorf("got %v, want an error with the platforms there are", err)
	}
}
