package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Limits of what an image may say of itself.
const (
	maxLayers   = 512
	maxConfig   = 4 << 20 // bytes
	maxManifest = 4 << 20 // bytes
	maxEnv      = 64 << 10
)

// encryptedSuffix is what the media type of a layer that ocicrypt encrypted ends with.
const encryptedSuffix = "+encrypted"

// Image is an image for one platform: what it is known by, and where its layers are read.
type Image struct {
	// Manifest is the digest of the manifest; zero when the place has none (an archive of docker). Config is that of the configuration: the image's ID.
	Manifest, Config v1.Hash
	// Env is the environment that the configuration names, "NAME=value" each.
	Env []string
	// Platform is "linux/amd64" or the like.
	Platform string
	Layers   []Layer
}

// Layer is one layer of an image, the lowest first.
type Layer struct {
	// Plain is the digest of the layer unpacked. Stored is that of what Open returns; zero when that is checked otherwise. Size is its number of
	// bytes, or 0.
	Plain, Stored v1.Hash
	Size          int64
	// Encrypted layers are decrypted by what their annotations carry.
	Encrypted   bool
	Annotations map[string]string
	Open        func(ctx context.Context) (io.ReadCloser, error)
}

// ErrDigest says that an image is not what its digest says.
var ErrDigest = errors.New("the image is not what its digest says")

// Bytes returns the number of bytes that reading all layers takes.
func (i *Image) Bytes() (n int64) {
	for _, l := range i.Layers {
		n += l.Size
	}
	return n
}

// ID is the digest that the image is known by: that of its manifest, else of its configuration.
func (i *Image) ID() string {
	if i.Manifest.Hex != "" {
		return i.Manifest.String()
	}
	return i.Config.String()
}

// FromManifest reads an image that has a manifest: one in a registry or an OCI layout.
func FromManifest(img v1.Image) (*Image, error) {
	raw, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	return parse(raw, config, digest, func(d v1.Descriptor) func(context.Context) (io.ReadCloser, error) {
		return func(context.Context) (io.ReadCloser, error) {
			l, err := img.LayerByDigest(d.Digest)
			if err != nil {
				return nil, err
			}
			return l.Compressed()
		}
	})
}

// FromArchive reads an image that has no manifest of its own, as those in an archive of docker.
func FromArchive(img v1.Image) (*Image, error) {
	raw, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	out, plain, err := parseConfig(raw)
	if err != nil {
		return nil, err
	}
	out.Config = hashOf(raw)
	for _, h := range plain {
		out.Layers = append(out.Layers, Layer{Plain: h, Open: func(context.Context) (io.ReadCloser, error) {
			l, err := img.LayerByDiffID(h)
			if err != nil {
				return nil, err
			}
			return l.Uncompressed()
		}})
	}
	return out, nil
}

// parse makes an image of its manifest, which must have the digest, and its configuration, which must be the manifest's.
func parse(raw, config []byte, digest v1.Hash, open func(v1.Descriptor) func(context.Context) (io.ReadCloser, error)) (*Image, error) {
	if len(raw) > maxManifest || hashOf(raw) != digest {
		return nil, fmt.Errorf("manifest %s: %w", digest, ErrDigest)
	}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", digest, err)
	}
	if t := m.Config.MediaType; t != types.OCIConfigJSON && t != types.DockerConfigJSON {
		return nil, fmt.Errorf("its configuration has media type %.100q: this is no container image", t)
	}
	if hashOf(config) != m.Config.Digest {
		return nil, fmt.Errorf("configuration %s: %w", m.Config.Digest, ErrDigest)
	}
	out, plain, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	if len(plain) != len(m.Layers) {
		return nil, fmt.Errorf("its configuration tells of %d layers, its manifest of %d", len(plain), len(m.Layers))
	}
	out.Manifest, out.Config = digest, m.Config.Digest
	for i, d := range m.Layers {
		if d.Size < 0 || d.Digest.Algorithm != "sha256" {
			return nil, fmt.Errorf("layer %d is not named by a SHA-256 digest and a size", i+1)
		}
		if !d.MediaType.IsDistributable() && len(d.URLs) > 0 {
			return nil, fmt.Errorf("layer %s is not in the image but at its maker's: it cannot be looked at", d.Digest)
		}
		out.Layers = append(out.Layers, Layer{
			Plain: plain[i], Stored: d.Digest, Size: d.Size, Annotations: d.Annotations, Open: open(d),
			Encrypted: strings.HasSuffix(string(d.MediaType), encryptedSuffix),
		})
	}
	return out, nil
}

// parseConfig reads what counts of a configuration, and the digests of the layers unpacked.
func parseConfig(raw []byte) (*Image, []v1.Hash, error) {
	if len(raw) > maxConfig {
		return nil, nil, fmt.Errorf("its configuration has more than %d bytes", maxConfig)
	}
	var c v1.ConfigFile
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, nil, errors.New("its configuration cannot be read")
	}
	if c.OS != "linux" {
		return nil, nil, fmt.Errorf("it is for operating system %.40q: only images for linux can be looked at", c.OS)
	}
	if c.RootFS.Type != "layers" || len(c.RootFS.DiffIDs) == 0 || len(c.RootFS.DiffIDs) > maxLayers {
		return nil, nil, fmt.Errorf("its configuration tells of %d layers, want 1 to %d", len(c.RootFS.DiffIDs), maxLayers)
	}
	size := 0
	for _, e := range c.Config.Env {
		if size += len(e) + 1; size > maxEnv || strings.ContainsAny(e, "\x00\n") {
			return nil, nil, fmt.Errorf("its environment has more than %d bytes, or a line break in it", maxEnv)
		}
	}
	for _, h := range c.RootFS.DiffIDs {
		if h.Algorithm != "sha256" {
			return nil, nil, errors.New("a layer is not named by a SHA-256 digest")
		}
	}
	platform := c.OS + "/" + c.Architecture
	if c.Variant != "" {
		platform += "/" + c.Variant
	}
	return &Image{Env: c.Config.Env, Platform: clip(platform)}, c.RootFS.DiffIDs, nil
}

func hashOf(b []byte) v1.Hash {
	sum := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// clip bounds what an image says before it is shown.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "?")
}
