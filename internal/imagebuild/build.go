package imagebuild

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Source is what images are made from.
type Source struct {
	// Root is the folder of the repository.
	Root string
	// Version is stamped into the programs and the labels.
	Version string
	// URL is where the source can be had; a label.
	URL string
}

// stamp is the variable that holds the version of a program.
const stamp = "touchstone.dev/touchstone/internal/version.version="

// Programs compiles programs of cmd/ for an architecture: static, without paths or state of this machine inside.
func (s Source) Programs(ctx context.Context, arch string, names []string) (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "touchstone-images-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid= -X " + stamp + s.Version, "-o", dir + "/"}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // the programs are those of Specs
	cmd.Dir = s.Root
	// The machine's settings for processor variants and tags would change the bytes.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=-mod=readonly", "GOEXPERIMENT=", "GOFIPS140=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build for %s: %w\n%s", arch, err, bytes.TrimSpace(out))
	}
	programs := map[string][]byte{}
	for _, name := range names {
		if programs[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return programs, nil
}

// Image assembles the image of spec for an architecture.
func (s Source) Image(spec Spec, arch string, programs map[string][]byte) (v1.Image, error) {
	files := make([]file, 0, len(spec.Programs))
	for _, name := range spec.Programs {
		files = append(files, file{Entry: Entry{Path: "usr/bin/" + name}, regular: true, content: programs[name]})
	}
	rootfs := slices.Clone(base)
	for _, e := range spec.Entries {
		rootfs = append(rootfs, file{Entry: e})
	}
	license, err := os.ReadFile(filepath.Join(s.Root, "LICENSE"))
	if err != nil {
		return nil, err
	}
	rootfs = append(rootfs, file{Entry: Entry{Path: "usr/share/doc/touchstone/LICENSE", Mode: 0o644}, regular: true, content: license})
	return s.assemble(spec, arch, rootfs, files)
}

// assemble makes an image of two layers: the first is the same for every version.
func (s Source) assemble(spec Spec, arch string, rootfs, programs []file) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, part := range []struct {
		files []file
		made  string
	}{{rootfs, "folders and users"}, {programs, strings.Join(spec.Programs, ", ")}} {
		l, err := layer(part.files)
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: types.OCILayer,
			History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "make images: " + part.made}})
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", spec.Name, err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", spec.Name, err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: epoch}
	config.Config = v1.Config{
		User:       fmt.Sprintf("%d:%d", nonroot, nonroot),
		Env:        []string{"PATH=/usr/bin"},
		Entrypoint: []string{"/usr/bin/" + spec.Programs[0]},
		WorkingDir: "/",
		Labels:     s.labels(spec),
	}
	img, err = mutate.ConfigFile(img, config)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", spec.Name, err)
	}
	return img, nil
}

func (s Source) labels(spec Spec) map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":    spec.Title,
		"org.opencontainers.image.version":  s.Version,
		"org.opencontainers.image.source":   s.URL,
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
}

// Built is one image for all architectures.
type Built struct {
	Spec   Spec
	Index  v1.ImageIndex
	Images map[string]v1.Image // by architecture
	// Digests of the programs by architecture and path in the image: SHA-256, hexadecimal.
	Digests map[string]map[string]string
}

// Build makes all images for the architectures.
func (s Source) Build(ctx context.Context, specs []Spec, architectures []string) ([]Built, error) {
	var names []string
	built := make([]Built, len(specs))
	for i, spec := range specs {
		names = append(names, spec.Programs...)
		built[i] = Built{Spec: spec, Images: map[string]v1.Image{}, Digests: map[string]map[string]string{}}
	}
	for _, arch := range architectures {
		programs, err := s.Programs(ctx, arch, names)
		if err != nil {
			return nil, err
		}
		for _, b := range built {
			if b.Images[arch], err = s.Image(b.Spec, arch, programs); err != nil {
				return nil, err
			}
			b.Digests[arch] = digests(b.Spec, programs)
		}
	}
	for i := range built {
		built[i].Index = index(built[i].Images)
	}
	return built, nil
}

// index lists images by architecture, sorted.
func index(images map[string]v1.Image) v1.ImageIndex {
	list := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range slices.Sorted(maps.Keys(images)) {
		list = mutate.AppendManifests(list, mutate.IndexAddendum{Add: images[arch],
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	return list
}

// digests of the programs of an image by path.
func digests(spec Spec, programs map[string][]byte) map[string]string {
	out := map[string]string{}
	for _, name := range spec.Programs {
		sum := sha256.Sum256(programs[name])
		out["/usr/bin/"+name] = hex.EncodeToString(sum[:])
	}
	return out
}
