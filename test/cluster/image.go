package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Images that every worker has. No registry is asked: pods use them with imagePullPolicy Never.
const (
	PauseImage   = "cluster.test/pause:1"
	BusyboxImage = "cluster.test/busybox:1"
)

const busybox = "/bin/busybox" // static: Debian's busybox-static

// applets are the commands of the busybox image.
var applets = []string{"sh", "sleep", "cat", "ls", "ps", "id", "echo", "nc", "httpd", "ip", "ping", "true", "false", "env", "grep", "mount"}

// writeImages writes the archive of our own images.
func writeImages(file string) error {
	layer, err := busyboxLayer()
	if err != nil {
		return err
	}
	base, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	images := map[name.Tag]v1.Image{}
	for tag, entry := range map[string][]string{PauseImage: {busybox, "sleep", "999999999"}, BusyboxImage: {"/bin/sh"}} {
		file, err := base.ConfigFile()
		if err != nil {
			return err
		}
		file = file.DeepCopy()
		file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, v1.Config{Entrypoint: entry, Env: []string{"PATH=/bin"}}
		image, err := mutate.ConfigFile(base, file)
		if err != nil {
			return err
		}
		t, err := name.NewTag(tag)
		if err != nil {
			return err
		}
		images[t] = image
	}
	return tarball.MultiWriteToFile(file, images)
}

func busyboxLayer() (v1.Layer, error) {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, fmt.Errorf("read the static busybox: %w", err)
	}
	var all []entry
	for _, dir := range []string{"bin/", "tmp/", "etc/", "www/"} {
		all = append(all, entry{tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil})
	}
	all = append(all, entry{tar.Header{Typeflag: tar.TypeReg, Name: busybox[1:], Mode: 0o755}, program})
	for _, a := range applets {
		all = append(all, entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox"}, nil})
	}
	return layerOf(all...)
}

// entry is a file, folder or link of a layer.
type entry struct {
	tar.Header
	data []byte
}

func layerOf(entries ...entry) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size = int64(len(e.data))
		if err := w.WriteHeader(&e.Header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}

// Import gives the worker the images in an archive.
func (w *Worker) Import(ctx context.Context, archive string) error {
	_, err := w.Run(ctx, "ctr", "-n", "k8s.io", "images", "import", archive)
	return err
}

// importOwn gives the worker our own images, unless its disk has them. The busybox image gets a second name with its digest.
func (w *Worker) importOwn(ctx context.Context) error {
	mark := w.file("imported")
	if _, err := os.Stat(mark); err == nil {
		return nil
	}
	if err := w.Import(ctx, filepath.Join(w.c.dir, "images.tar")); err != nil {
		return err
	}
	list, err := w.Run(ctx, "ctr", "-n", "k8s.io", "images", "ls", "name=="+BusyboxImage)
	if err != nil {
		return err
	}
	digest := regexp.MustCompile(`sha256:[0-9a-f]{64}`).Find(list)
	if digest == nil {
		return fmt.Errorf("%s has no image %s: %s", w.Name, BusyboxImage, list)
	}
	w.c.Busybox = strings.TrimSuffix(BusyboxImage, ":1") + "@" + string(digest)
	if _, err := w.Run(ctx, "ctr", "-n", "k8s.io", "images", "tag", "--force", BusyboxImage, w.c.Busybox); err != nil {
		return err
	}
	return os.WriteFile(mark, nil, 0o600)
}
