package imagecrypt

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"

	"github.com/containers/ocicrypt/blockcipher"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"

	"touchstone.dev/touchstone/internal/imagekey"
)

// Encrypted is what the media type of an encrypted layer ends with.
const Encrypted = "+encrypted"

const ociLayer = "application/vnd.oci.image.layer.v1.tar"

// encryptedTypes maps the media types of layers that can be encrypted to what they are then.
var encryptedTypes = map[types.MediaType]types.MediaType{
	types.OCIUncompressedLayer:    ociLayer + Encrypted,
	types.OCILayer:                ociLayer + "+gzip" + Encrypted,
	types.OCILayerZStd:            ociLayer + "+zstd" + Encrypted,
	types.DockerUncompressedLayer: ociLayer + Encrypted,
	types.DockerLayer:             ociLayer + "+gzip" + Encrypted,
	"application/vnd.docker.image.rootfs.diff.tar.zstd": ociLayer + "+zstd" + Encrypted,
}

// ErrEncrypted says that an image is encrypted already.
var ErrEncrypted = errors.New("it is encrypted already")

// checkLayer says why a layer cannot be encrypted.
func checkLayer(d *v1.Descriptor) error {
	if strings.HasSuffix(string(d.MediaType), Encrypted) {
		return fmt.Errorf("layer %s: %w: encrypt the image that it was made from", d.Digest, ErrEncrypted)
	}
	for name := range d.Annotations {
		if strings.HasPrefix(name, imagekey.AnnotationPrefix) {
			return fmt.Errorf("layer %s has annotation %s: %w, or made by a broken tool", d.Digest, name, ErrEncrypted)
		}
	}
	switch _, ok := encryptedTypes[d.MediaType]; {
	case ok:
		return nil
	case !d.MediaType.IsDistributable():
		return fmt.Errorf("layer %s (%s) is not in the image but at its maker's: it cannot be encrypted", d.Digest, d.MediaType)
	}
	return fmt.Errorf("layer %s has media type %q: only layers of container images can be encrypted (tar, plain or with gzip or zstd)", d.Digest, d.MediaType)
}

// blob is an encrypted layer in a file.
type blob struct {
	path string
	desc v1.Descriptor
}

func (b *blob) Digest() (v1.Hash, error)            { return b.desc.Digest, nil }
func (b *blob) Size() (int64, error)                { return b.desc.Size, nil }
func (b *blob) MediaType() (types.MediaType, error) { return b.desc.MediaType, nil }
func (b *blob) Compressed() (io.ReadCloser, error)  { return os.Open(b.path) }
func (b *blob) Descriptor() (*v1.Descriptor, error) { return &b.desc, nil }
func (b *blob) Uncompressed() (io.ReadCloser, error) {
	return nil, errors.New("the layer is encrypted")
}
func (b *blob) DiffID() (v1.Hash, error) { return v1.Hash{}, errors.New("the layer is encrypted") }

// encryptLayer reads a layer and writes it encrypted to a file. plain is the digest of the layer unpacked.
func (e *Encrypter) encryptLayer(ctx context.Context, l v1.Layer, d v1.Descriptor, plain v1.Hash) (*blob, error) {
	in, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // it was read
	cipher, err := blockcipher.NewLayerBlockCipherHandler()
	if err != nil {
		return nil, err
	}
	encrypted, finish, err := cipher.Encrypt(&counted{r: in, ctx: ctx, add: e.progress}, blockcipher.AES256CTR)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(e.dir, "layer-")
	if err != nil {
		return nil, err
	}
	sum, out := sha256.New(), bufio.NewWriterSize(f, 1<<20)
	size, err := io.CopyBuffer(io.MultiWriter(out, sum), struct{ io.Reader }{encrypted}, make([]byte, 1<<20))
	if err = errors.Join(err, out.Flush(), f.Close()); err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	options, err := finish()
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	options.Private.Digest = digest.Digest(d.Digest.String())
	b := &blob{path: f.Name(), desc: d}
	b.desc.MediaType, b.desc.Size, b.desc.URLs, b.desc.Data = encryptedTypes[d.MediaType], size, nil, nil
	b.desc.Digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	b.desc.Annotations, err = e.annotations(d.Annotations, &options, b.desc.Digest, plain)
	return b, err
}

// annotations adds to those that a layer has what is needed to decrypt it.
func (e *Encrypter) annotations(have map[string]string, o *blockcipher.LayerBlockCipherOptions, layer, plain v1.Hash) (map[string]string, error) {
	private, err := json.Marshal(o.Private)
	if err != nil {
		return nil, err
	}
	public, err := json.Marshal(o.Public)
	if err != nil {
		return nil, err
	}
	sealed, err := imagekey.Seal(e.key, imagekey.Annotation{Key: e.id, Layer: layer.String(), Plain: plain.String()}, private)
	if err != nil {
		return nil, err
	}
	out := map[string]string{
		imagekey.KeysAnnotation: base64.StdEncoding.EncodeToString(sealed),
		imagekey.OptionsName:    base64.StdEncoding.EncodeToString(public),
	}
	maps.Copy(out, have)
	return out, nil
}

// counted counts what is read, and ends when ctx does.
type counted struct {
	r   io.Reader
	ctx context.Context
	add func(n int64)
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.add(int64(n))
	return n, err
}
