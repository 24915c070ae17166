package imagecrypt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Source is an image, or an index of images for several platforms: one of the two is set.
type Source struct {
	Image v1.Image
	Index v1.ImageIndex
}

// Registry says how to talk to registries.
type Registry struct {
	Keychain  authn.Keychain // nil: anonymous
	PlainHTTP bool
	CA        []byte // PEM of roots beside those of the system
	UserAgent string
}

// Prefixes of places that are no registry.
const (
	layoutPrefix  = "oci:"            // oci:FOLDER[:TAG]
	archivePrefix = "docker-archive:" // docker-archive:FILE[:TAG]
	refName       = "org.opencontainers.image.ref.name"
)

func (r *Registry) options(ctx context.Context) ([]remote.Option, error) {
	transport, ok := remote.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("no transport for registries")
	}
	transport = transport.Clone()
	if len(r.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(r.CA) {
			return nil, errors.New("no certificate in the file of the registry's roots")
		}
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	keys := r.Keychain
	if keys == nil {
		keys = authn.NewMultiKeychain()
	}
	return []remote.Option{remote.WithContext(ctx), remote.WithTransport(transport), remote.WithAuthFromKeychain(keys), remote.WithUserAgent(r.UserAgent)}, nil
}

func (r *Registry) reference(s string) (name.Reference, error) {
	var o []name.Option
	if r.PlainHTTP {
		o = append(o, name.Insecure)
	}
	return name.ParseReference(s, o...)
}

// Open finds an image: in a registry, in an OCI layout (oci:FOLDER[:TAG]) or in an archive of docker (docker-archive:FILE[:TAG]).
func (r *Registry) Open(ctx context.Context, place string) (*Source, error) {
	if rest, ok := strings.CutPrefix(place, layoutPrefix); ok {
		return openLayout(rest)
	}
	if rest, ok := strings.CutPrefix(place, archivePrefix); ok {
		return openArchive(rest)
	}
	ref, err := r.reference(place)
	if err != nil {
		return nil, err
	}
	o, err := r.options(ctx)
	if err != nil {
		return nil, err
	}
	d, err := remote.Get(ref, o...)
	if err != nil {
		return nil, err
	}
	s := &Source{}
	switch {
	case d.MediaType.IsIndex():
		s.Index, err = d.ImageIndex()
	case d.MediaType.IsImage():
		s.Image, err = d.Image()
	default:
		err = fmt.Errorf("it has media type %q: this is no container image", d.MediaType)
	}
	return s, err
}

// split cuts a tag from the end of FILE[:TAG].
func split(s string) (path, tag string) {
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, filepath.Separator) {
		return s[:i], s[i+1:]
	}
	return s, ""
}

func openArchive(s string) (*Source, error) {
	// FILE[:NAME:TAG]: the name of an image has colons and slashes of its own.
	path, image := s, ""
	if _, err := os.Stat(path); err != nil {
		path, image, _ = strings.Cut(s, ":")
	}
	var tag *name.Tag
	if image != "" {
		t, err := name.NewTag(image)
		if err != nil {
			return nil, err
		}
		tag = &t
	}
	img, err := tarball.ImageFromPath(path, tag)
	if err != nil {
		return nil, fmt.Errorf("archive %s: %w", path, err)
	}
	return &Source{Image: img}, nil
}

func openLayout(s string) (*Source, error) {
	dir, tag := split(s)
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("OCI layout %s: %w", dir, err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("OCI layout %s: %w", dir, err)
	}
	var found []v1.Descriptor
	for _, d := range m.Manifests {
		if tag == "" || d.Annotations[refName] == tag {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("OCI layout %s has %d images of tag %q, want one: name it as oci:FOLDER:TAG", dir, len(found), tag)
	}
	out := &Source{}
	if found[0].MediaType.IsIndex() {
		out.Index, err = index.ImageIndex(found[0].Digest)
	} else {
		out.Image, err = index.Image(found[0].Digest)
	}
	return out, err
}

// Digest returns the digest of an image or index.
func (s *Source) Digest() (v1.Hash, error) {
	if s.Index != nil {
		return s.Index.Digest()
	}
	return s.Image.Digest()
}

// CheckWritable says why nothing can be written to a place, before anything is done for it.
func (r *Registry) CheckWritable(place string) error {
	if strings.HasPrefix(place, layoutPrefix) {
		return nil
	}
	if strings.HasPrefix(place, archivePrefix) {
		return errors.New("an archive of docker cannot hold encrypted layers: use a registry, or oci:FOLDER")
	}
	ref, err := r.reference(place)
	if err != nil {
		return err
	}
	if _, ok := ref.(name.Digest); ok {
		return errors.New("the digest is known only when the image is encrypted: give a tag")
	}
	return nil
}

// Write puts an image into a registry or an OCI layout. The library repeats requests that fail for a moment. progress is told how much of how much was
// sent to a registry.
func (r *Registry) Write(ctx context.Context, place string, s *Source, progress func(done, total int64)) error {
	if rest, ok := strings.CutPrefix(place, layoutPrefix); ok {
		return writeLayout(rest, s)
	}
	ref, err := r.reference(place)
	if err != nil {
		return err
	}
	o, err := r.options(ctx)
	if err != nil {
		return err
	}
	updates := make(chan v1.Update, 64)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for u := range updates { // the library closes it
			progress(u.Complete, u.Total)
		}
	}()
	defer func() { <-told }()
	o = append(o, remote.WithProgress(updates))
	if s.Index != nil {
		return remote.WriteIndex(ref, s.Index, o...)
	}
	return remote.Write(ref, s.Image, o...)
}

// writeLayout puts an image into an OCI layout, in place of the one of the same tag.
func writeLayout(s string, src *Source) error {
	dir, tag := split(s)
	p, err := layout.FromPath(dir)
	if errors.Is(err, os.ErrNotExist) {
		p, err = layout.Write(dir, empty.Index)
	}
	if err != nil {
		return fmt.Errorf("OCI layout %s: %w", dir, err)
	}
	var o []layout.Option
	matcher := func(d v1.Descriptor) bool { return d.Annotations[refName] == tag }
	if tag != "" {
		o = append(o, layout.WithAnnotations(map[string]string{refName: tag}))
	}
	if src.Index != nil {
		return p.ReplaceIndex(src.Index, matcher, o...)
	}
	return p.ReplaceImage(src.Image, match.Matcher(matcher), o...)
}

var _ partial.CompressedLayer = (*blob)(nil)
