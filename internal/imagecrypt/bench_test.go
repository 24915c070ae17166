package imagecrypt

import (
	"bytes"
	"io"
	"testing"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/config"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"touchstone.dev/touchstone/internal/imagekey"
	"touchstone.dev/touchstone/internal/layercrypt"
)

// BenchmarkDecrypt compares the decoder's way with the stock library that has the key at hand, over a layer of 64 MiB.
func BenchmarkDecrypt(b *testing.B) {
	plain := archive(b, "file", 64<<20)
	diff, _, err := v1.SHA256(bytes.NewReader(plain))
	if err != nil {
		b.Fatal(err)
	}
	img, err := mutate.Append(empty.Image, mutate.Addendum{Layer: layer{static.NewLayer(plain, types.OCIUncompressedLayer), diff}, MediaType: types.OCIUncompressedLayer})
	if err != nil {
		b.Fatal(err)
	}
	out := encrypt(b, &Source{Image: img})
	m, err := out.Image.Manifest()
	if err != nil {
		b.Fatal(err)
	}
	layers, err := out.Image.Layers()
	if err != nil {
		b.Fatal(err)
	}
	secret, annotations := bytesOf(b, layers[0]), m.Layers[0].Annotations
	drain := func(b *testing.B, r io.Reader, err error) {
		b.Helper()
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 1<<20))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Run("decoder", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			packets, err := layercrypt.Packets(annotations)
			if err != nil {
				b.Fatal(err)
			}
			o, _, _, err := imagekey.Read(packets[0])
			if err != nil {
				b.Fatal(err)
			}
			private, err := o.Open(testKey)
			if err != nil {
				b.Fatal(err)
			}
			r, err := layercrypt.Decrypt(bytes.NewReader(secret), annotations, private)
			drain(b, r, err)
		}
	})
	b.Run("ocicrypt", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			r, _, err := ocicrypt.DecryptLayer(&config.DecryptConfig{}, bytes.NewReader(secret), ocispec.Descriptor{Annotations: annotations}, false)
			drain(b, r, err)
		}
	})
}
