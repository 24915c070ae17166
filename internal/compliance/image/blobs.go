package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ContainerdStore is where containerd keeps blobs by digest, below its root folder. An OCI layout has the same folder below its own.
const ContainerdStore = "io.containerd.content.v1.content"

// FromBlobs finds an image in a folder of blobs by digest (DIR/blobs/sha256/HEX): containerd's content store, or an OCI layout. digest is that of a
// manifest, or of an index, of which the image for the platform is taken. When only layers are absent it returns the image, to say which one it is, with
// an error that is ErrAbsent.
func FromBlobs(dir string, digest v1.Hash, platform v1.Platform) (*Image, error) {
	b := blobs(filepath.Join(dir, "blobs", "sha256"))
	for range maxDepth {
		raw, err := b.read(digest, maxManifest)
		if err != nil {
			return nil, err
		}
		t, err := kind(raw)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", digest, err)
		}
		if !t.IsIndex() {
			return b.image(raw, digest)
		}
		if digest, err = member(raw, platform); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("indexes in more than %d others", maxDepth)
}

// ErrAbsent says that an image, or a layer of it, is not in the store: a runtime may throw away what it has unpacked.
var ErrAbsent = errors.New("it is not in the store")

type blobs string

func (b blobs) path(h v1.Hash) (string, error) {
	if h.Algorithm != "sha256" || len(h.Hex) != 64 {
		return "", fmt.Errorf("%.80q is no SHA-256 digest", h.String())
	}
	return filepath.Join(string(b), h.Hex), nil
}

func (b blobs) open(h v1.Hash) (*os.File, error) {
	p, err := b.path(h)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", h, ErrAbsent)
	}
	return f, err
}

// read reads a small blob, which has its digest.
func (b blobs) read(h v1.Hash, limit int64) ([]byte, error) {
	f, err := b.open(h)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was read
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit || hashOf(raw) != h {
		return nil, fmt.Errorf("%s: %w", h, ErrDigest)
	}
	return raw, nil
}

func (b blobs) image(raw []byte, digest v1.Hash) (*Image, error) {
	config, err := configOf(raw)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", digest, err)
	}
	c, err := b.read(config, maxConfig)
	if err != nil {
		return nil, err
	}
	img, err := parse(raw, c, digest, func(d v1.Descriptor) func(context.Context) (io.ReadCloser, error) {
		return func(context.Context) (io.ReadCloser, error) { return b.open(d.Digest) }
	})
	if err != nil {
		return nil, err
	}
	for _, l := range img.Layers { // before anything is unpacked
		p, err := b.path(l.Stored)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(p); err != nil {
			return img, fmt.Errorf("layer %s: %w", l.Stored, ErrAbsent)
		}
	}
	return img, nil
}

// kind tells an index from a manifest by what it has: a media type inside is optional.
func kind(raw []byte) (types.MediaType, error) {
	m, err := parseAny(raw)
	switch {
	case err != nil:
		return "", err
	case len(m.Manifests) > 0 && len(m.Layers) > 0:
		return "", errors.New("it has manifests and layers: it can be read in two ways")
	case len(m.Manifests) > 0:
		return types.OCIImageIndex, nil
	}
	return types.OCIManifestSchema1, nil
}
