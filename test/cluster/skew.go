package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"touchstone.dev/touchstone/internal/imagebuild"
)

// ImportSkewed gives a worker an image of AIAS whose clock is off, and returns the name of it. The kernel has one clock for all namespaces, and
// the programs are static: so AIAS is compiled against a time package that adds the difference, and is else as it always is.
func (c *Cluster) ImportSkewed(ctx context.Context, w *Worker, off time.Duration) (string, error) {
	overlay, err := c.skewedTime(ctx, off)
	if err != nil {
		return "", err
	}
	spec := imagebuild.Specs[0]
	programs := map[string][]byte{}
	for _, program := range spec.Programs {
		out := filepath.Join(c.dir, "skewed", program)
		if err := run(ctx, "env", "CGO_ENABLED=0", "go", "-C", c.root, "build", "-trimpath", "-ldflags=-s -w", "-overlay", overlay, "-o", out, "./cmd/"+program); err != nil {
			return "", err
		}
		if programs[program], err = os.ReadFile(out); err != nil {
			return "", err
		}
	}
	source := imagebuild.Source{Root: c.root, Version: "skewed"}
	img, err := source.Image(spec, "amd64", programs)
	if err != nil {
		return "", err
	}
	tag, err := name.NewTag(fmt.Sprintf("touchstone.dev/%s:%d", spec.Name, int64(off/time.Second)&0xffffffff))
	if err != nil {
		return "", err
	}
	archive := filepath.Join(c.dir, "skewed", "image.tar")
	if err := tarball.WriteToFile(archive, tag, img); err != nil {
		return "", err
	}
	return tag.Name(), w.Import(ctx, archive)
}

// skewedTime writes a time package whose time.Now is off, and what the compiler must know of it.
func (c *Cluster) skewedTime(ctx context.Context, off time.Duration) (overlay string, err error) {
	root, err := output(ctx, "go", "env", "GOROOT")
	if err != nil {
		return "", err
	}
	path := filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go")
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	begin := []byte("\nfunc Now() Time {\n\tsec, nsec, mono := runtimeNow()\n")
	if bytes.Count(text, begin) != 1 {
		return "", fmt.Errorf("%s: time.Now of this release of Go begins differently: adapt skewedTime", path)
	}
	text = bytes.Replace(text, begin, fmt.Appendf(begin, "\tsec += %d\n", int64(off/time.Second)), 1)
	dir := filepath.Join(c.dir, "skewed")
	file := filepath.Join(dir, "time.go")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: file}})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "overlay.json"), writeFiles(dir, map[string][]byte{"time.go": text, "overlay.json": list})
}
