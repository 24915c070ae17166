package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Limits of what a registry answers.
const (
	maxManifest  = 1 << 20 // bytes
	maxParts     = 8_000   // commas in a manifest: what it takes in memory is many times its size, here up to 10 MiB
	maxRedirects = 4
)

// errAbsent: the registry does not have it.
var errAbsent = errors.New("not there")

// statusError is an answer that is no success.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("it answered %d", int(e)) }

// source is one repository.
type source struct {
	repo   name.Repository
	client *http.Client
}

// open greets the registry and logs in.
func open(ctx context.Context, g *guard, repo name.Repository, auth authn.Authenticator) (*source, error) {
	way, err := transport.NewWithContext(ctx, repo.Registry, auth, g, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, plain(err)
	}
	return &source{repo: repo, client: &http.Client{Transport: way, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		return nil
	}}}, nil
}

// manifestTypes are what a manifest may be.
const manifestTypes = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"

// manifest reads a manifest by its tag, or by its digest, which it then has.
func (s *source) manifest(ctx context.Context, reference string) (*manifest, error) {
	b, _, err := s.get(ctx, "manifests", reference, manifestTypes, maxManifest)
	if err != nil {
		return nil, err
	}
	return parseManifest(b)
}

// blob reads a blob of at most limit bytes.
func (s *source) blob(ctx context.Context, digest string, limit int) ([]byte, error) {
	b, _, err := s.get(ctx, "blobs", digest, "*/*", limit)
	return b, err
}

// has returns nil when the repository has the manifest.
func (s *source) has(ctx context.Context, digest string) error {
	resp, err := s.ask(ctx, http.MethodHead, "manifests", digest, manifestTypes)
	if err == nil {
		err = resp.Body.Close()
	}
	if errors.Is(err, errAbsent) {
		return errors.New("it does not have the image")
	}
	return err
}

// ask sends a request for /v2/REPOSITORY/KIND/REFERENCE. The answer is a success.
func (s *source) ask(ctx context.Context, method, kind, reference, accept string) (*http.Response, error) {
	// The transport has seen how the registry is spoken to, and takes http where it must.
	u := url.URL{Scheme: "https", Host: s.repo.RegistryStr(), Path: "/v2/" + s.repo.RepositoryStr() + "/" + kind + "/" + reference}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, plain(err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return resp, nil
	case http.StatusNotFound:
		err = errAbsent
	default:
		err = statusError(resp.StatusCode)
	}
	return nil, errors.Join(err, resp.Body.Close())
}

// get reads what ask asks for, of at most limit bytes. What is asked for by its digest has it.
func (s *source) get(ctx context.Context, kind, reference, accept string, limit int) (body []byte, contentType string, err error) {
	resp, err := s.ask(ctx, http.MethodGet, kind, reference, accept)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err != nil {
		return nil, "", plain(err)
	}
	if len(body) > limit {
		return nil, "", fmt.Errorf("%s %s has more than %d bytes", strings.TrimSuffix(kind, "s"), reference, limit)
	}
	if want, ok := strings.CutPrefix(reference, "sha256:"); ok && kind != "referrers" {
		if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != want {
			return nil, "", fmt.Errorf("it answered other bytes than those of %s", reference)
		}
	}
	return body, resp.Header.Get("Content-Type"), nil
}

// plain strips an error of what a registry wrote and of what we asked.
func plain(err error) error {
	var answered *transport.Error
	var asked *url.Error
	switch {
	case errors.As(err, &answered):
		return statusError(answered.StatusCode)
	case errors.Is(err, context.DeadlineExceeded):
		return unanswered{errors.New("it did not answer in time")}
	case errors.As(err, &asked):
		if asked.Timeout() {
			return unanswered{errors.New("it did not answer in time")}
		}
		return plain(asked.Err)
	}
	return unanswered{err}
}

// manifest is what counts of image manifests and indexes.
type manifest struct {
	SchemaVersion int             `json:"schemaVersion"`
	Layers        []descriptor    `json:"layers"`
	Manifests     []descriptor    `json:"manifests"`
	FSLayers      json.RawMessage `json:"fsLayers"`
}

type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType"`
	Annotations  map[string]string `json:"annotations"`
}

// parseManifest reads a manifest or an index, and refuses what two readers could read differently: one as an index, the other as an image, or
// names that are there twice.
func parseManifest(b []byte) (*manifest, error) {
	if bytes.Count(b, []byte(",")) > maxParts {
		return nil, errors.New("a manifest with too many parts")
	}
	if err := unambiguous(b); err != nil {
		return nil, fmt.Errorf("a manifest that is ambiguous: %w", err)
	}
	m := &manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, errors.New("a manifest that cannot be read")
	}
	if m.SchemaVersion != 2 || m.FSLayers != nil {
		return nil, errors.New("a manifest of another version than 2")
	}
	if len(m.Layers) > 0 && len(m.Manifests) > 0 {
		return nil, errors.New("a manifest that is ambiguous: it has layers and manifests")
	}
	return m, nil
}

// maxDepth of a manifest: deeper ones have no meaning.
const maxDepth = 16

// unambiguous returns nil when b is one JSON value in which no object has two names that are equal but for case.
func unambiguous(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := value(d, maxDepth); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind it")
	}
	return nil
}

// value reads one value.
func value(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return errors.New("not JSON")
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth == 0 {
		return errors.New("too deep")
	}
	names := map[string]bool{}
	for d.More() {
		if open == '{' {
			t, err := d.Token()
			if err != nil {
				return errors.New("not JSON")
			}
			n := strings.ToLower(strings.ToUpper(t.(string)))
			if names[n] {
				return errors.New("a name is there twice")
			}
			names[n] = true
		}
		if err := value(d, depth-1); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return errors.New("not JSON")
	}
	return nil
}
