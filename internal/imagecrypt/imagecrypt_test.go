package imagecrypt

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/config"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"touchstone.dev/touchstone/internal/imagekey"
	"touchstone.dev/touchstone/internal/layercrypt"
)

var testKey, testID = bytes.Repeat([]byte{9}, imagekey.KeySize), imagekey.NewID()

// keyring is a key wrapper of ocicrypt that has testKey: the stock library decrypts by it.
type keyring struct{ provider string }

func (k keyring) GetAnnotationID() string { return imagekey.KeysPrefix + k.provider }
func (keyring) WrapKeys(*config.EncryptConfig, []byte) ([]byte, error) {
	return nil, errors.New("not asked for")
}
func (keyring) UnwrapKey(_ *config.DecryptConfig, annotation []byte) ([]byte, error) {
	o, id, _, err := imagekey.Read(annotation)
	if err != nil {
		return nil, err
	}
	if id != testID {
		return nil, fmt.Errorf("key %s", id)
	}
	return o.Open(testKey)
}
func (keyring) GetPrivateKeys(map[string][][]byte) [][]byte  { return nil }
func (keyring) GetKeyIdsFromPacket(string) ([]uint64, error) { return nil, nil }
func (keyring) GetRecipients(string) ([]string, error)       { return nil, nil }
func (keyring) NoPossibleKeys(map[string][][]byte) bool      { return false }
func init()                                                  { ocicrypt.RegisterKeyWrapper("provider.touchstone", keyring{"touchstone"}) }

// archive is a tar of one file.
func archive(t testing.TB, name string, size int) []byte {
	t.Helper()
	content := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size)})
	_, _ = r.Read(content)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(size)})
	if err == nil {
		_, err = w.Write(content)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// packed compresses as the media type says.
func packed(t testing.TB, plain []byte, kind types.MediaType) []byte {
	t.Helper()
	var b bytes.Buffer
	switch {
	case strings.HasSuffix(string(kind), "gzip"):
		w := gzip.NewWriter(&b)
		_, err := w.Write(plain)
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
	case strings.HasSuffix(string(kind), "zstd"):
		w, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(w.EncodeAll(plain, nil))
	default:
		b.Write(plain)
	}
	return b.Bytes()
}

// layer is a layer whose digest unpacked is known.
type layer struct {
	v1.Layer
	diff v1.Hash
}

func (l layer) DiffID() (v1.Hash, error) { return l.diff, nil }

// plainImage is an image with a layer of each kind.
func plainImage(t testing.TB, arch string, kinds ...types.MediaType) v1.Image {
	t.Helper()
	var adds []mutate.Addendum
	for i, kind := range kinds {
		plain := archive(t, fmt.Sprintf("file-%s-%d", arch, i), 10000+i)
		diff, _, err := v1.SHA256(bytes.NewReader(plain))
		if err != nil {
			t.Fatal(err)
		}
		adds = append(adds, mutate.Addendum{Layer: layer{static.NewLayer(packed(t, plain, kind), kind), diff}, MediaType: kind, Annotations: map[string]string{"note": "kept"}})
	}
	img, err := mutate.Append(empty.Image, adds...)
	if err == nil {
		img, err = mutate.Config(img, v1.Config{Env: []string{"A=b"}, Cmd: []string{"/run"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

var allKinds = []types.MediaType{
	types.OCIUncompressedLayer, types.OCILayer, types.OCILayerZStd, types.DockerLayer, types.DockerUncompressedLayer, "application/vnd.docker.image.rootfs.diff.tar.zstd",
}

func encrypt(t testing.TB, s *Source) *Source {
	t.Helper()
	if _, err := Look(s); err != nil {
		t.Fatalf("Look(): %v", err)
	}
	out, err := New(testID, testKey, t.TempDir()).Encrypt(context.Background(), s)
	if err != nil {
		t.Fatalf("Encrypt(): %v", err)
	}
	return out
}

// sameAsPlain decrypts each layer of an image, by the stock library and by Decrypt, and compares with what it was.
func sameAsPlain(t testing.TB, what string, plain, encrypted v1.Image) {
	t.Helper()
	was, err := plain.Layers()
	if err != nil {
		t.Fatal(err)
	}
	m, err := encrypted.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	now, err := encrypted.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if len(was) != len(now) || m.MediaType != types.OCIManifestSchema1 || m.Config.MediaType != types.OCIConfigJSON {
		t.Fatalf("%s: %d layers, manifest %s, configuration %s", what, len(now), m.MediaType, m.Config.MediaType)
	}
	for i := range was {
		want, secret := bytesOf(t, was[i]), bytesOf(t, now[i])
		if bytes.Contains(secret, want[:64]) {
			t.Errorf("%s: layer %d is not encrypted", what, i)
		}
		d := m.Layers[i]
		if !strings.HasSuffix(string(d.MediaType), Encrypted) || d.Annotations["note"] != "kept" && d.Annotations["note"] != "" {
			t.Errorf("%s: layer %d: %+v", what, i, d)
		}
		r, _, err := ocicrypt.DecryptLayer(&config.DecryptConfig{}, bytes.NewReader(secret),
			ocispec.Descriptor{MediaType: string(d.MediaType), Digest: digest.Digest(d.Digest.String()), Size: d.Size, Annotations: d.Annotations}, false)
		if err != nil {
			t.Fatalf("%s: ocicrypt: %v", what, err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: layer %d by ocicrypt: %d bytes, %v, want %d", what, i, len(got), err, len(want))
		}
		if got, err := decrypted(secret, d.Annotations); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: layer %d: %d bytes, %v, want %d", what, i, len(got), err, len(want))
		}
	}
}

func bytesOf(t testing.TB, l v1.Layer) []byte {
	t.Helper()
	r, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

func decrypted(b []byte, annotations map[string]string) ([]byte, error) {
	packets, err := layercrypt.Packets(annotations)
	if err != nil {
		return nil, err
	}
	o, _, _, err := imagekey.Read(packets[0])
	if err != nil {
		return nil, err
	}
	private, err := o.Open(testKey)
	if err != nil {
		return nil, err
	}
	r, err := layercrypt.Decrypt(bytes.NewReader(b), annotations, private)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestEncrypt(t *testing.T) {
	plain := plainImage(t, "amd64", allKinds...)
	out := encrypt(t, &Source{Image: plain})
	sameAsPlain(t, "image", plain, out.Image)
	config, err := out.Image.ConfigFile()
	if err != nil || config.Config.Cmd[0] != "/run" {
		t.Errorf("configuration: got %+v, %v", config, err)
	}
	diffs := config.RootFS.DiffIDs
	m, err := out.Image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range m.Layers {
		packets, err := layercrypt.Packets(l.Annotations)
		if err != nil {
			t.Fatal(err)
		}
		a, err := imagekey.Parse(packets[0])
		if err != nil || a.Key != testID || a.Layer != l.Digest.String() || a.Plain != diffs[i].String() {
			t.Errorf("layer %d: annotation %+v, %v", i, a, err)
		}
	}
	again := encrypt(t, &Source{Image: plain})
	if d1, _ := out.Digest(); d1.String() == "" {
		t.Error("no digest")
	} else if d2, _ := again.Digest(); d1 == d2 {
		t.Error("encrypted twice: the same bytes, want fresh keys")
	}
	if _, err := Look(out); !errors.Is(err, ErrEncrypted) {
		t.Errorf("Look() of what is encrypted: got %v, want %v", err, ErrEncrypted)
	}
}

// TestPlaces takes an index and an image through registry, OCI layout and archive.
func TestPlaces(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host, dir, ctx := strings.TrimPrefix(server.URL, "http://"), t.TempDir(), context.Background()
	r := &Registry{PlainHTTP: true}
	amd, arm := plainImage(t, "amd64", types.OCILayer), plainImage(t, "arm64", types.DockerLayer, types.OCILayerZStd)
	sbom := plainImage(t, "sbom", types.OCILayer)
	idx := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: sbom, Descriptor: v1.Descriptor{Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"}}},
	)
	ref, err := name.ParseReference(host+"/plain:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, idx); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "one.tar")
	tag, err := name.NewTag("example/one:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(file, tag, amd); err != nil {
		t.Fatal(err)
	}
	none := func(int64, int64) {}
	through := func(from, to string) *Source {
		t.Helper()
		s, err := r.Open(ctx, from)
		if err != nil {
			t.Fatalf("Open(%s): %v", from, err)
		}
		if err := r.CheckWritable(to); err != nil {
			t.Fatalf("CheckWritable(%s): %v", to, err)
		}
		if err := r.Write(ctx, to, encrypt(t, s), none); err != nil {
			t.Fatalf("Write(%s): %v", to, err)
		}
		back, err := r.Open(ctx, to)
		if err != nil {
			t.Fatalf("Open(%s): %v", to, err)
		}
		return back
	}
	for from, to := range map[string]string{host + "/plain:1": "oci:" + dir + "/layout:new", ref.Context().Name() + ":1": host + "/secret:1"} {
		back := through(from, to)
		m, err := back.Index.IndexManifest()
		if err != nil || len(m.Manifests) != 2 || m.Manifests[1].Platform.Architecture != "arm64" {
			t.Fatalf("%s: index %+v, %v", to, m, err)
		}
		for i, plain := range []v1.Image{amd, arm} {
			img, err := back.Index.Image(m.Manifests[i].Digest)
			if err != nil {
				t.Fatal(err)
			}
			sameAsPlain(t, to, plain, img)
		}
	}
	for from, to := range map[string]string{"docker-archive:" + file: "oci:" + dir + "/layout:two", "docker-archive:" + file + ":example/one:1": host + "/secret:2"} {
		back := through(from, to)
		s, err := r.Open(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		sameAsPlain(t, to, s.Image, back.Image)
	}
	through(host+"/plain:1", "oci:"+dir+"/layout:new") // takes the place of the first
	for _, bad := range []string{"docker-archive:" + file, host + "/secret@sha256:" + strings.Repeat("0", 64), "Not A Name"} {
		if err := r.CheckWritable(bad); err == nil {
			t.Errorf("CheckWritable(%s): got no error", bad)
		}
	}
	for _, bad := range []string{"docker-archive:" + file + ":example/two:1", "oci:" + dir + "/layout", "oci:" + dir + "/nothing", host + "/nothing:1"} {
		if s, err := r.Open(ctx, bad); err == nil {
			t.Errorf("Open(%s): got %+v, want an error", bad, s)
		}
	}
}

func TestLookRefuses(t *testing.T) {
	one := func(kind types.MediaType, annotations map[string]string) *Source {
		img, err := mutate.Append(empty.Image, mutate.Addendum{Layer: layer{static.NewLayer([]byte("x"), kind), v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}}, MediaType: kind, Annotations: annotations})
		if err != nil {
			t.Fatal(err)
		}
		return &Source{Image: img}
	}
	odd := mutate.ConfigMediaType(plainImage(t, "amd64", types.OCILayer), "application/vnd.example.config")
	for want, s := range map[string]*Source{
		"encrypted already":    one("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", nil),
		"or made by a broken":  one(types.OCILayer, map[string]string{"org.opencontainers.image.enc.keys.jwe": "x"}),
		"at its maker's":       one(types.OCIRestrictedLayer, nil),
		"only layers of":       one("application/vnd.in-toto+json", nil),
		"no container image":   {Image: odd},
		"it has no layers":     {Image: empty.Image},
		"there is no image in": {Index: empty.Index},
	} {
		if p, err := Look(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Look(): got %+v, %v, want %q", p, err, want)
		}
	}
}

// TestDecryptRefuses: a layer that was changed, or that another's key was put to, ends with an error.
func TestDecryptRefuses(t *testing.T) {
	out := encrypt(t, &Source{Image: plainImage(t, "amd64", types.OCILayer, types.OCILayer)})
	m, err := out.Image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := out.Image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	secret := bytesOf(t, layers[0])
	with := func(change func(map[string]string)) map[string]string {
		a := maps.Clone(m.Layers[0].Annotations)
		change(a)
		return a
	}
	flipped := bytes.Clone(secret)
	flipped[len(flipped)/2] ^= 1
	for name, tt := range map[string]struct {
		layer       []byte
		annotations map[string]string
	}{
		"flipped bit": {flipped, m.Layers[0].Annotations},
		"cut off":     {secret[:len(secret)-1], m.Layers[0].Annotations},
		"longer":      {append(bytes.Clone(secret), 0), m.Layers[0].Annotations},
		"another layer's key": {secret, with(func(a map[string]string) {
			a[imagekey.KeysAnnotation] = m.Layers[1].Annotations[imagekey.KeysAnnotation]
		})},
		"another layer's MAC":    {secret, with(func(a map[string]string) { a[imagekey.OptionsName] = m.Layers[1].Annotations[imagekey.OptionsName] })},
		"no public options":      {secret, with(func(a map[string]string) { delete(a, imagekey.OptionsName) })},
		"no key":                 {secret, with(func(a map[string]string) { delete(a, imagekey.KeysAnnotation) })},
		"key that is no base64":  {secret, with(func(a map[string]string) { a[imagekey.KeysAnnotation] = "*" })},
		"options that are large": {secret, with(func(a map[string]string) { a[imagekey.OptionsName] = strings.Repeat("A", 16<<10) })},
		"too many keys":          {secret, with(func(a map[string]string) { a[imagekey.KeysAnnotation] = strings.Repeat("QUJD,", 20) + "QUJD" })},
	} {
		if got, err := decrypted(tt.layer, tt.annotations); err == nil {
			t.Errorf("%s: got %d bytes and no error", name, len(got))
		}
	}
	// A nonce in the public options is in nobody's seal: it must not count.
	var public map[string]any
	o := with(func(map[string]string) {})
	b, err := base64.StdEncoding.DecodeString(o[imagekey.OptionsName])
	if err == nil {
		err = json.Unmarshal(b, &public)
	}
	if err != nil {
		t.Fatal(err)
	}
	public["cipheroptions"] = map[string][]byte{"nonce": make([]byte, 16)}
	if b, err = json.Marshal(public); err != nil {
		t.Fatal(err)
	}
	o[imagekey.OptionsName] = base64.StdEncoding.EncodeToString(b)
	if got, err := decrypted(secret, o); err != nil || len(got) == 0 || got[0] != 0x1f {
		t.Errorf("nonce in the public options: got %x..., %v, want the layer", got[:min(4, len(got))], err)
	}
}
