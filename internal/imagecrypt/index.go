package imagecrypt

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	maxDepth  = 3   // of indexes in indexes
	maxImages = 256 // in one index
)

// Plan is what encrypting something means.
type Plan struct {
	Images  int   // one for each platform
	Layers  int   // of all of them, each once
	Bytes   int64 // of those layers, as they are stored
	Skipped int   // attestations of builders about the plain image, which are left out
}

// Look goes through an image or index and says what there is to encrypt, or why it cannot be.
func Look(s *Source) (*Plan, error) {
	p, seen := &Plan{}, map[v1.Hash]bool{}
	add := func(img v1.Image) error {
		m, _, err := manifest(img)
		if err != nil {
			return err
		}
		p.Images++
		for i := range m.Layers {
			if l := &m.Layers[i]; !seen[l.Digest] {
				seen[l.Digest] = true
				p.Layers, p.Bytes = p.Layers+1, p.Bytes+l.Size
			}
		}
		return nil
	}
	if s.Index == nil {
		return p, add(s.Image)
	}
	err := walk(s.Index, 0, func(_ *v1.Descriptor, img v1.Image) error {
		if img == nil {
			p.Skipped++
			return nil
		}
		return add(img)
	})
	if err == nil && p.Images == 0 {
		err = fmt.Errorf("there is no image in the index")
	}
	return p, err
}

// walk visits the images of an index; an attestation of a builder comes without image.
func walk(index v1.ImageIndex, depth int, visit func(*v1.Descriptor, v1.Image) error) error {
	m, err := index.IndexManifest()
	if err != nil {
		return err
	}
	if depth == maxDepth || len(m.Manifests) > maxImages {
		return fmt.Errorf("the index holds more than %d images, or indexes in more than %d others", maxImages, maxDepth)
	}
	for i := range m.Manifests {
		d := &m.Manifests[i]
		switch {
		case isAttestation(d):
			err = visit(d, nil)
		case d.MediaType.IsIndex():
			var inner v1.ImageIndex
			if inner, err = index.ImageIndex(d.Digest); err == nil {
				err = walk(inner, depth+1, visit)
			}
		case d.MediaType.IsImage():
			var img v1.Image
			if img, err = index.Image(d.Digest); err == nil {
				err = visit(d, img)
			}
		default:
			err = fmt.Errorf("%s has media type %q: this is no container image", d.Digest, d.MediaType)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", platform(d), err)
		}
	}
	return nil
}

// isAttestation tells what BuildKit puts beside the images of an index: SBOM and provenance of a plain image.
func isAttestation(d *v1.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] == "attestation-manifest"
}

func platform(d *v1.Descriptor) string {
	if d.Platform != nil {
		return d.Platform.String()
	}
	return d.Digest.String()
}

// Encrypt encrypts an image, or all images of an index.
func (e *Encrypter) Encrypt(ctx context.Context, s *Source) (*Source, error) {
	out, err := &Source{}, error(nil)
	if s.Index == nil {
		out.Image, err = e.image(ctx, s.Image)
		return out, err
	}
	out.Index, err = e.index(ctx, s.Index)
	return out, err
}

func (e *Encrypter) index(ctx context.Context, in v1.ImageIndex) (v1.ImageIndex, error) {
	m, err := in.IndexManifest()
	if err != nil {
		return nil, err
	}
	out, m := &index{images: map[v1.Hash]v1.Image{}, indexes: map[v1.Hash]v1.ImageIndex{}}, m.DeepCopy()
	manifests := m.Manifests
	m.Manifests, m.Subject, m.MediaType = nil, nil, types.OCIImageIndex
	for _, d := range manifests {
		if isAttestation(&d) {
			continue
		}
		var part partial.Describable
		if d.MediaType.IsIndex() {
			part, err = e.inner(ctx, in, d.Digest, out)
		} else {
			part, err = e.member(ctx, in, d.Digest, out)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", platform(&d), err)
		}
		now, err := partial.Descriptor(part)
		if err != nil {
			return nil, err
		}
		d.MediaType, d.Size, d.Digest, d.Data, d.URLs = now.MediaType, now.Size, now.Digest, nil, nil
		m.Manifests = append(m.Manifests, d)
	}
	out.raw, err = json.Marshal(m)
	return out, err
}

func (e *Encrypter) member(ctx context.Context, in v1.ImageIndex, h v1.Hash, out *index) (v1.Image, error) {
	img, err := in.Image(h)
	if err == nil {
		img, err = e.image(ctx, img)
	}
	if err != nil {
		return nil, err
	}
	now, err := img.Digest()
	out.images[now] = img
	return img, err
}

func (e *Encrypter) inner(ctx context.Context, in v1.ImageIndex, h v1.Hash, out *index) (v1.ImageIndex, error) {
	idx, err := in.ImageIndex(h)
	if err == nil {
		idx, err = e.index(ctx, idx)
	}
	if err != nil {
		return nil, err
	}
	now, err := idx.Digest()
	out.indexes[now] = idx
	return idx, err
}

// index is an index of encrypted images: v1.ImageIndex.
type index struct {
	raw     []byte
	images  map[v1.Hash]v1.Image
	indexes map[v1.Hash]v1.ImageIndex
}

func (*index) MediaType() (types.MediaType, error) { return types.OCIImageIndex, nil }
func (i *index) Digest() (v1.Hash, error)          { return partial.Digest(i) }
func (i *index) Size() (int64, error)              { return int64(len(i.raw)), nil }
func (i *index) RawManifest() ([]byte, error)      { return i.raw, nil }

func (i *index) IndexManifest() (*v1.IndexManifest, error) {
	return v1.ParseIndexManifest(bytes.NewReader(i.raw))
}

func (i *index) Image(h v1.Hash) (v1.Image, error) {
	if img := i.images[h]; img != nil {
		return img, nil
	}
	return nil, fmt.Errorf("there is no image %s", h)
}

func (i *index) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	if idx := i.indexes[h]; idx != nil {
		return idx, nil
	}
	return nil, fmt.Errorf("there is no index %s", h)
}
