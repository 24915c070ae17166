// Package imagetest is a registry for tests, with images that are signed as cosign signs them.
package imagetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"touchstone.dev/touchstone/internal/admission/signature"
)

// Registry is a registry, and a key to sign with.
type Registry struct {
	// Host is HOST:PORT, without TLS; Key the public key (PEM) of Sign.
	Host, Key string

	t       testing.TB
	private *ecdsa.PrivateKey
}

// New starts a registry until the test ends; wrap, if not nil, puts something in front of it.
func New(t testing.TB, wrap func(http.Handler) http.Handler) *Registry {
	t.Helper()
	h := registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		h = wrap(h)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	r := &Registry{t: t, Host: strings.TrimPrefix(server.URL, "http://")}
	r.private, r.Key = NewKey(t)
	return r
}

// NewKey makes a key, and its public half as PEM.
func NewKey(t testing.TB) (*ecdsa.PrivateKey, string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (r *Registry) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// Layer makes a layer of a media type; encrypted ones have a wrapped key.
func Layer(content, mediaType string) mutate.Addendum {
	a := mutate.Addendum{Layer: static.NewLayer([]byte(content), types.MediaType(mediaType)), MediaType: types.MediaType(mediaType)}
	if strings.HasSuffix(mediaType, "+encrypted") {
		a.Annotations = map[string]string{"org.opencontainers.image.enc.keys.provider.touchstone": "e30="}
	}
	return a
}

// Media types of layers.
const (
	PlainLayer     = "application/vnd.oci.image.layer.v1.tar+gzip"
	EncryptedLayer = PlainLayer + "+encrypted"
)

// Image makes an image with layers of these media types.
func (r *Registry) Image(layers ...string) v1.Image {
	r.t.Helper()
	var all []mutate.Addendum
	for i, mediaType := range layers {
		all = append(all, Layer(fmt.Sprint("layer ", i), mediaType))
	}
	img, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), all...)
	r.must(err)
	return img
}

// Push pushes an image or an index and returns its name with the digest.
func (r *Registry) Push(repo string, what remote.Taggable) string {
	r.t.Helper()
	tag, err := name.NewTag(r.Host+"/"+repo+":latest", name.Insecure)
	r.must(err)
	r.must(remote.Push(tag, what))
	desc, err := remote.Get(tag)
	r.must(err)
	return r.Host + "/" + repo + "@" + desc.Digest.String()
}

// Sign signs a payload for an image, as cosign does, and puts it at the image's tag.
func (r *Registry) Sign(image string, change func(payload string) string) {
	r.t.Helper()
	repo, digest, _ := strings.Cut(image, "@")
	payload := fmt.Sprintf(`{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, repo, digest)
	if change != nil {
		payload = change(payload)
	}
	r.Signature(image, payload, r.Signed(payload))
}

// Signed signs a payload.
func (r *Registry) Signed(payload string) string {
	r.t.Helper()
	sum := sha256.Sum256([]byte(payload))
	sig, err := ecdsa.SignASN1(rand.Reader, r.private, sum[:])
	r.must(err)
	return base64.StdEncoding.EncodeToString(sig)
}

// Signature adds a payload, with signatures each in a layer of its own, to those of an image.
func (r *Registry) Signature(image, payload string, sigs ...string) {
	r.t.Helper()
	repo, digest, _ := strings.Cut(image, "@")
	tag, err := name.NewTag(repo+":"+strings.Replace(digest, ":", "-", 1)+".sig", name.Insecure)
	r.must(err)
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	if have, err := remote.Image(tag); err == nil {
		img = have
	}
	for _, sig := range sigs {
		img, err = mutate.Append(img, mutate.Addendum{
			Layer: static.NewLayer([]byte(payload), signature.SimpleType), MediaType: signature.SimpleType,
			Annotations: map[string]string{signature.SimpleAnnotation: sig},
		})
		r.must(err)
	}
	r.must(remote.Push(tag, img))
}

// Raw puts bytes as a manifest and returns its name.
func (r *Registry) Raw(repo, mediaType, body string) string {
	r.t.Helper()
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(body)))
	r.send(http.MethodPut, "/v2/"+repo+"/manifests/"+digest, mediaType, body)
	return r.Host + "/" + repo + "@" + digest
}
