package imagecrypt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Encrypter encrypts one image, with all of its platforms, under one key.
type Encrypter struct {
	id   string
	key  []byte
	dir  string
	done int64
	// Progress, when set, is told how many bytes of the layers were read.
	Progress func(done int64)

	blobs map[v1.Hash]*blob // encrypted layers, by what they were
}

// New makes an Encrypter for the key of an ID. Encrypted layers are kept in dir until the image was written somewhere.
func New(id string, key []byte, dir string) *Encrypter {
	return &Encrypter{id: id, key: key, dir: dir, blobs: map[v1.Hash]*blob{}}
}

func (e *Encrypter) progress(n int64) {
	e.done += n
	if e.Progress != nil {
		e.Progress(e.done)
	}
}

// manifest reads the manifest of an image and says why it cannot be encrypted.
func manifest(img v1.Image) (*v1.Manifest, []v1.Hash, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, nil, err
	}
	if t := m.Config.MediaType; t != types.OCIConfigJSON && t != types.DockerConfigJSON {
		return nil, nil, fmt.Errorf("its configuration has media type %q: this is no container image", t)
	}
	if len(m.Layers) == 0 {
		return nil, nil, errors.New("it has no layers: there is nothing to encrypt")
	}
	for i := range m.Layers {
		if err := checkLayer(&m.Layers[i]); err != nil {
			return nil, nil, err
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, nil, fmt.Errorf("its configuration: %w", err)
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		return nil, nil, fmt.Errorf("its configuration tells of %d layers, its manifest of %d", len(config.RootFS.DiffIDs), len(m.Layers))
	}
	return m, config.RootFS.DiffIDs, nil
}

// image encrypts the layers of one image. The rest of it stays as it is, in the forms of OCI.
func (e *Encrypter) image(ctx context.Context, img v1.Image) (v1.Image, error) {
	m, plain, err := manifest(img)
	if err != nil {
		return nil, err
	}
	m = m.DeepCopy()
	out := &image{blobs: map[v1.Hash]*blob{}}
	if out.config, err = img.RawConfigFile(); err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	if len(layers) != len(m.Layers) {
		return nil, fmt.Errorf("it has %d layers, its manifest %d", len(layers), len(m.Layers))
	}
	for i, l := range layers {
		was := m.Layers[i].Digest
		b := e.blobs[was]
		if b == nil {
			if b, err = e.encryptLayer(ctx, l, m.Layers[i], plain[i]); err != nil {
				return nil, err
			}
			e.blobs[was] = b
		}
		m.Layers[i] = b.desc
		out.blobs[b.desc.Digest] = b
	}
	m.MediaType, m.Config.MediaType = types.OCIManifestSchema1, types.OCIConfigJSON
	m.Subject = nil // what it refers to is about the plain image
	if out.manifest, err = json.Marshal(m); err != nil {
		return nil, err
	}
	return partial.CompressedToImage(out)
}

// image is an encrypted image: partial.CompressedImageCore.
type image struct {
	config, manifest []byte
	blobs            map[v1.Hash]*blob
}

func (*image) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (i *image) RawManifest() ([]byte, error)      { return i.manifest, nil }
func (i *image) RawConfigFile() ([]byte, error)    { return i.config, nil }
func (i *image) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if b := i.blobs[h]; b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("there is no layer %s", h)
}
