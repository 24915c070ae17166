package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
	"touchstone.dev/touchstone/internal/cri"
	"touchstone.dev/touchstone/internal/protocol"
)

func (l *fakeLink) ClaimScan(context.Context, *protocol.ScanClaim) (*protocol.ScanLease, error) {
	return &protocol.ScanLease{}, nil
}

func (l *fakeLink) SendScan(context.Context, *protocol.WorkerScan) (*protocol.ScanTaken, error) {
	return &protocol.ScanTaken{}, nil
}

// imagesLink gives out each image once.
type imagesLink struct {
	Link
	claims []*protocol.ScanClaim
	scans  []*protocol.WorkerScan
}

func (l *imagesLink) ClaimScan(_ context.Context, c *protocol.ScanClaim) (*protocol.ScanLease, error) {
	l.claims = append(l.claims, c)
	for _, i := range c.Images {
		if !slices.ContainsFunc(l.scans, func(s *protocol.WorkerScan) bool { return s.Image == i }) {
			return &protocol.ScanLease{Image: i, Until: time.Now().Add(time.Hour)}, nil
		}
	}
	return &protocol.ScanLease{}, nil
}

func (l *imagesLink) SendScan(_ context.Context, s *protocol.WorkerScan) (*protocol.ScanTaken, error) {
	l.scans = append(l.scans, s)
	return &protocol.ScanTaken{}, nil
}

// debian makes an image of a Debian with some packages.
func debian(t *testing.T, arch string, packages ...string) v1.Image {
	t.Helper()
	files := map[string]string{"etc/debian_version": "12.15\n", "usr/lib/os-release": "ID=debian\nVERSION_CODENAME=bookworm\n"}
	for _, p := range packages {
		files["var/lib/dpkg/status"] += "Package: " + p + "\nStatus: install ok installed\nMaintainer: x <x@example.org>\nArchitecture: amd64\nVersion: 1.0-3\nDescription: x\n\n"
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for path, text := range files {
		must(t, w.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(text))}))
		_, err := io.WriteString(w, text)
		must(t, err)
	}
	must(t, w.Close())
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	must(t, err)
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch, RootFS: v1.RootFS{Type: "layers"}})
	must(t, err)
	img, err = mutate.AppendLayers(img, l)
	must(t, err)
	return img
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// containerd is a running containerd with a store of its own.
type containerd struct {
	t           *testing.T
	dir, socket string
}

func startContainerd(t *testing.T, config string) *containerd {
	t.Helper()
	if _, err := exec.LookPath("containerd"); err != nil {
		t.Fatalf("%v: the test needs the real containerd (scripts/need test installs it)", err)
	}
	c := &containerd{t: t, dir: t.TempDir()}
	c.socket = filepath.Join(c.dir, "c.sock")
	file := filepath.Join(c.dir, "config.toml")
	must(t, os.WriteFile(file, fmt.Appendf(nil, "version = 2\nroot = %q\nstate = %q\n[grpc]\n  address = %q\n%s", filepath.Join(c.dir, "root"), filepath.Join(c.dir, "state"), c.socket, config), 0o600))
	var said bytes.Buffer
	cmd := exec.Command("containerd", "--config", file)
	cmd.Stderr = &said // and no Pdeathsig: threads end here with each scan
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("containerd:\n%s", said.Bytes()[max(0, said.Len()-4000):])
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err := cri.NewFinder(c.socket).Images(t.Context()); err == nil {
			return c
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func (c *containerd) ctr(args ...string) {
	c.t.Helper()
	out, err := exec.Command("ctr", append([]string{"--address", c.socket, "--namespace", "k8s.io"}, args...)...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("ctr %v: %v: %s", args, err, out)
	}
}

// load brings an image for two platforms into the store, as a pull does, and returns the digests of the index and of the image for this one.
func (c *containerd) load(name string, here, other v1.Image) (index, manifest v1.Hash) {
	t := c.t
	t.Helper()
	member := func(img v1.Image, arch string) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}}
	}
	both := mutate.AppendManifests(empty.Index, member(other, "s390x"), member(here, hostPlatform().Architecture))
	index, err := both.Digest()
	must(t, err)
	manifest, err = here.Digest()
	must(t, err)
	dir := t.TempDir()
	top := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: both, Descriptor: v1.Descriptor{Annotations: map[string]string{"io.containerd.image.name": name + ":1"}}})
	_, err = layout.Write(dir, top)
	must(t, err)
	file := filepath.Join(c.dir, "image.tar")
	if out, err := exec.Command("tar", "-C", dir, "-cf", file, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	c.ctr("image", "import", "--all-platforms", "--no-unpack", file)
	c.ctr("image", "tag", name+":1", name+"@"+index.String())
	return index, manifest
}

// images waits until CRI knows a number of images by digest.
func (c *containerd) images(n int) {
	c.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		all, err := cri.NewFinder(c.socket).Images(c.t.Context())
		have := 0
		for _, i := range all {
			have += len(i.Digests)
		}
		if have == n {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("CRI has %+v, %v; want %d with a digest", all, err, n)
		}
	}
}

func (c *containerd) scanner() (*imageScanner, *imagesLink) {
	cfg := Defaults()
	cfg.ImageScans.Content, cfg.ImageScans.Runtime = content.Name, c.socket
	cfg.ImageScans.Contents, cfg.ImageScans.Temp = filepath.Join(c.dir, "root", "io.containerd.content.v1.content"), c.t.TempDir()
	s, link := newImageScanner(&cfg, slog.New(slog.DiscardHandler), time.Now), &imagesLink{}
	s.attested(link)
	return s, link
}

// outcomes are those of the rules in a scan.
func outcomes(t *testing.T, s *protocol.WorkerScan) map[string]xccdf.Outcome {
	t.Helper()
	if s.Report == nil {
		t.Fatalf("image %s: no result: %s", s.Image.Manifest, s.Error)
	}
	z, err := gzip.NewReader(bytes.NewReader(s.Report.TestResult))
	must(t, err)
	raw, err := io.ReadAll(z)
	must(t, err)
	r, err := xccdf.Parse(raw)
	must(t, err)
	if got := r.Fact(xccdf.FactIdentifier); got != protocol.ScanTargetImage(s.Image.Manifest) || s.Report.Manifest != s.Image.Manifest || s.Report.Config != s.Image.Config {
		t.Errorf("the scan is about %s, want %s", got, s.Image.Manifest)
	}
	out := map[string]xccdf.Outcome{}
	for _, x := range r.Rules {
		out[strings.TrimPrefix(x.ID, "xccdf_dev.touchstone_rule_")] = x.Outcome
	}
	return out
}

// TestImageScansFromContainerd: images that a real containerd holds are scanned by the real oscap, from its content store, each once, by the manifest of this
// platform; one whose layers it has thrown away is left to others.
func TestImageScansFromContainerd(t *testing.T) {
	c := startContainerd(t, "")
	_, clean := c.load("registry.example/team/clean", debian(t, hostPlatform().Architecture, "base-files"), debian(t, "s390x", "base-files", "telnet"))
	_, bad := c.load("registry.example/team/bad", debian(t, hostPlatform().Architecture, "base-files", "telnet"), debian(t, "s390x", "base-files"))
	lost := debian(t, hostPlatform().Architecture, "base-files", "lost")
	c.load("registry.example/team/lost", lost, debian(t, "s390x", "base-files"))
	c.images(3)
	layers, err := lost.Layers()
	must(t, err)
	digest, err := layers[0].Digest()
	must(t, err)
	c.ctr("content", "rm", digest.String())
	c.ctr("image", "rm", "--sync", "registry.example/team/lost:1") // collects garbage; the image has another name

	s, link := c.scanner()
	must(t, s.round(t.Context()))
	must(t, s.round(t.Context()))
	if len(link.scans) != 2 || len(link.claims[0].Images) != 2 || link.claims[0].Content != content.Digest() || link.claims[0].Profile != content.Image {
		t.Fatalf("got %d scans, claim %+v; want the two images that are whole, once each, by the baseline", len(link.scans), link.claims[0])
	}
	want := map[string]xccdf.Outcome{clean.String(): xccdf.Pass, bad.String(): xccdf.Fail}
	for _, scan := range link.scans {
		if got := outcomes(t, scan)["no_telnet"]; got != want[scan.Image.Manifest] || got == "" || scan.From != protocol.ScannedLayers {
			t.Errorf("image %s: no_telnet is %q, from %s; want %q, from its layers", scan.Image.Manifest, got, scan.From, want[scan.Image.Manifest])
		}
		delete(want, scan.Image.Manifest)
	}
	if left, err := os.ReadDir(s.temp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestImageScanFails: what cannot be scanned is told as that, and is no result.
func TestImageScanFails(t *testing.T) {
	c := startContainerd(t, "")
	c.load("registry.example/team/odd", debian(t, hostPlatform().Architecture), debian(t, "s390x"))
	c.images(1)
	s, link := c.scanner()
	must(t, s.round(t.Context()))
	if len(link.scans) != 1 || link.scans[0].Report != nil || link.scans[0].Error == "" {
		t.Errorf("an image without packages: got %+v, want why there is no result", link.scans)
	}
	s.cfg.MaxBytes, link.scans = 3, nil
	must(t, s.round(t.Context()))
	if len(link.scans) != 1 || !strings.Contains(link.scans[0].Error, "more than 3 bytes") {
		t.Errorf("an image that is too large: got %+v", link.scans)
	}
}

// TestImageScanSent: a scan is sent until AIAS takes or refuses it.
func TestImageScanSent(t *testing.T) {
	cfg := Defaults()
	s := newImageScanner(&cfg, slog.New(slog.DiscardHandler), time.Now)
	refused := &refusing{err: &Refusal{Problem: protocol.Problem{Status: 409, Title: "no lease"}}}
	s.attested(refused)
	s.send(t.Context(), &protocol.WorkerScan{}, time.Now().Add(time.Hour))
	refused.err = errors.New("AIAS is away")
	s.send(t.Context(), &protocol.WorkerScan{}, time.Now().Add(-time.Second)) // the lease is over: another worker has it
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	s.send(ctx, &protocol.WorkerScan{}, time.Now().Add(time.Hour))
	if refused.times != 3 || ctx.Err() == nil {
		t.Errorf("got %d tries and %v, want 3, the last one waiting for the next", refused.times, ctx.Err())
	}
}

type refusing struct {
	Link
	err   error
	times int
}

func (r *refusing) SendScan(context.Context, *protocol.WorkerScan) (*protocol.ScanTaken, error) {
	r.times++
	return nil, r.err
}
