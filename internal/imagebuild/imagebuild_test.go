package imagebuild

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"sigs.k8s.io/yaml"
)

// root is the folder of the repository.
const root = "../.."

// agent returns the spec of the trust agent.
func agent(t *testing.T) Spec {
	t.Helper()
	i := slices.IndexFunc(Specs, func(s Spec) bool { return s.Name == "trust-agent" })
	if i < 0 {
		t.Fatal("Specs has no trust-agent")
	}
	return Specs[i]
}

// fake assembles all images of programs that are a few bytes, which is all that the file formats care about.
func fake(t *testing.T) []Built {
	t.Helper()
	s := Source{Root: root, Version: "v1", URL: "https://source.example"}
	var built []Built
	for _, spec := range Specs {
		b := Built{Spec: spec, Images: map[string]v1.Image{}}
		for _, arch := range Architectures {
			programs := map[string][]byte{}
			for _, p := range spec.Programs {
				programs[p] = []byte(p + arch)
			}
			img, err := s.Image(spec, arch, programs)
			if err != nil {
				t.Fatal(err)
			}
			b.Images[arch] = img
		}
		b.Index = index(b.Images)
		built = append(built, b)
	}
	return built
}

// entries lists the root file system of an image: name, type, mode, target.
func entries(t *testing.T, img v1.Image) []string {
	t.Helper()
	var all []string
	r := mutate.Extract(img)
	defer r.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(epoch) {
			t.Errorf("%s: owner %d:%d, time %v; want root and %v", h.Name, h.Uid, h.Gid, h.ModTime, epoch)
		}
		line := fmt.Sprintf("%c %04o %s", h.Typeflag, h.Mode, h.Name)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		all = append(all, line)
	}
}

func TestRootfs(t *testing.T) {
	built := fake(t)
	got := entries(t, built[1].Images["amd64"])
	slices.Sort(got)
	want := []string{
		"0 0644 etc/group", "0 0644 etc/nsswitch.conf", "0 0644 etc/passwd", "0 0644 usr/share/doc/touchstone/LICENSE", "0 0755 usr/bin/trust-agent", "0 0755 usr/bin/tpm-device-plugin", "0 0755 usr/bin/ctd-decoder",
		"2 0777 host/proc -> /proc", "2 0777 host/sys/class -> /sys/class", "2 0777 host/sys/module -> /sys/module",
		"5 0700 var/lib/trust-agent", "5 0755 etc",
		"5 0755 host", "5 0755 host/sys", "5 0755 host/sys/firmware", "5 0755 host/sys/firmware/efi", "5 0755 host/sys/firmware/efi/efivars",
		"5 0755 host/sys/kernel", "5 0755 host/sys/kernel/security",
		"5 0755 host/var", "5 0755 host/var/lib", "5 0755 host/var/lib/kubelet", "5 0755 host/var/lib/kubelet/pki",
		"5 0755 run", "5 0755 run/trust-agent",
		"5 0755 usr", "5 0755 usr/bin", "5 0755 usr/share", "5 0755 usr/share/doc", "5 0755 usr/share/doc/touchstone",
		"5 0755 var", "5 0755 var/lib", "5 1777 tmp",
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files of trust-agent (-want +got):\n%s", diff)
	}
}

func TestConfig(t *testing.T) {
	for _, b := range fake(t) {
		for arch, img := range b.Images {
			c, err := img.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			if c.Architecture != arch || c.OS != "linux" || c.Config.User != "65532:65532" || !c.Created.Equal(epoch) {
				t.Errorf("%s: %s/%s, user %q, created %v", b.Spec.Name, c.OS, c.Architecture, c.Config.User, c.Created)
			}
			if got, want := c.Config.Entrypoint, []string{"/usr/bin/" + b.Spec.Programs[0]}; !slices.Equal(got, want) {
				t.Errorf("%s: entry point %q, want %q", b.Spec.Name, got, want)
			}
			for label, want := range map[string]string{"version": "v1", "source": "https://source.example", "title": b.Spec.Title} {
				if got := c.Config.Labels["org.opencontainers.image."+label]; got != want {
					t.Errorf("%s: label %s %q, want %q", b.Spec.Name, label, got, want)
				}
			}
		}
	}
}

// TestWritten reads back what was written, and writes twice: the files have the same bytes.
func TestWritten(t *testing.T) {
	built := fake(t)
	first, second := t.TempDir(), t.TempDir()
	for _, dir := range []string{first, second} {
		if err := WriteLayout(filepath.Join(dir, "oci"), "registry.example/team", "v1", built); err != nil {
			t.Fatal(err)
		}
		if err := WriteArchives(dir, "registry.example/team", "v1", built); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := contents(t, first), contents(t, second); !cmp.Equal(a, b) {
		t.Error("what is written differs from one time to the next")
	}
	for _, b := range built {
		for arch, img := range b.Images {
			ref, err := Reference("registry.example/team", b.Spec.Name, "v1")
			if err != nil {
				t.Fatal(err)
			}
			read, err := tarball.ImageFromPath(filepath.Join(first, b.Spec.Name+"-"+arch+".tar"), &ref)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := mustID(t, read), mustID(t, img); got != want {
				t.Errorf("%s-%s.tar: image %s, want %s", b.Spec.Name, arch, got, want)
			}
		}
	}
	l, err := layout.ImageIndexFromPath(filepath.Join(first, "oci"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range m.Manifests {
		names = append(names, d.Annotations["io.containerd.image.name"])
	}
	if want := []string{"registry.example/team/aias:v1", "registry.example/team/trust-agent:v1", "registry.example/team/trust-controller:v1"}; !slices.Equal(names, want) {
		t.Errorf("names in the layout: got %q, want %q", names, want)
	}
}

func mustID(t *testing.T, img v1.Image) string {
	t.Helper()
	h, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// contents reads all files below dir.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		all[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPush(t *testing.T) {
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	repository := strings.TrimPrefix(srv.URL, "http://") + "/team"
	built := fake(t)
	if err := Push(context.Background(), repository, "v1", built); err != nil {
		t.Fatal(err)
	}
	values, err := Values(repository, "v1", built, true)
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Image struct {
			Repository, Tag string
			Digests         map[string]string
		}
	}
	if err := yaml.UnmarshalStrict(values, &v); err != nil {
		t.Fatal(err)
	}
	for _, b := range built {
		ref, err := Reference(v.Image.Repository, b.Spec.Name, v.Image.Tag)
		if err != nil {
			t.Fatal(err)
		}
		for _, arch := range Architectures {
			got, err := remote.Image(ref, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}))
			if err != nil {
				t.Fatal(err)
			}
			if mustID(t, got) != mustID(t, b.Images[arch]) {
				t.Errorf("%s for %s: another image came back", ref, arch)
			}
		}
		d, err := remote.Head(ref)
		if err != nil {
			t.Fatal(err)
		}
		if d.Digest.String() != v.Image.Digests[b.Spec.Name] {
			t.Errorf("%s: digest %s, values say %s", ref, d.Digest, v.Image.Digests[b.Spec.Name])
		}
	}
}

func TestReferenceRefuses(t *testing.T) {
	for _, repository := range []string{"", "registry.example/Upper", "a b"} {
		if ref, err := Reference(repository, "aias", "v1"); err == nil {
			t.Errorf("Reference(%q): got %s, want an error", repository, ref)
		}
	}
}

// TestReproducible builds the agent from two copies of the source, and runs it in the root file system of its image, as the image says.
func TestReproducible(t *testing.T) {
	spec := agent(t)
	elsewhere := copySource(t)
	var digests []string
	var img v1.Image
	var list []byte
	for _, dir := range []string{root, elsewhere} {
		built, err := Source{Root: dir, Version: "v7.7.7-test"}.Build(context.Background(), []Spec{spec}, []string{"amd64"})
		if err != nil {
			t.Fatal(err)
		}
		d, err := built[0].Index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests, img, list = append(digests, d.String()), built[0].Images["amd64"], References(built)
	}
	if digests[0] != digests[1] {
		t.Errorf("digests of the same source in two folders: %q", digests)
	}
	rootfs := unpack(t, img)
	for _, prog := range spec.Programs {
		b, err := os.ReadFile(filepath.Join(rootfs, "usr/bin", prog))
		if err != nil {
			t.Fatal(err)
		}
		if line := fmt.Sprintf("%x  /usr/bin/%s\n", sha256.Sum256(b), prog); !bytes.Contains(list, []byte(line)) {
			t.Errorf("the list for references does not have %q:\n%s", line, list)
		}
		cmd := exec.Command("/usr/bin/"+prog, "--version")
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: rootfs, Credential: &syscall.Credential{Uid: nonroot, Gid: nonroot}}
		cmd.Dir = "/"
		if os.Getuid() != 0 { // root of a user namespace may change its root folder, too
			cmd.SysProcAttr.Credential = nil
			cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "v7.7.7-test") {
			t.Errorf("%s --version in its image: got %q, %v; want v7.7.7-test", prog, out, err)
		}
	}
}

// copySource copies what the agent is built from to another folder.
func copySource(t *testing.T) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "LICENSE", "cmd", "internal", "api", "deploy/initramfs"} {
		err := filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && d.Name() == "testdata" {
				return fs.SkipDir
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			if d.IsDir() {
				return os.MkdirAll(filepath.Join(to, rel), 0o755)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(to, rel), b, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// unpack extracts an image into a folder that everybody can enter.
func unpack(t *testing.T, img v1.Image) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "touchstone-rootfs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := mutate.Extract(img)
	defer r.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, fs.FileMode(h.Mode).Perm())
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, path)
		default:
			var b bytes.Buffer
			if _, err = io.Copy(&b, tr); err == nil {
				err = os.WriteFile(path, b.Bytes(), fs.FileMode(h.Mode).Perm())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
