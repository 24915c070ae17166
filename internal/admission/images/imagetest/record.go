package imagetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Record is what a repository holds, in an order in which it can be put back.
type Record []Piece

// Piece is a blob, or a manifest with its tag or digest. What is not text would not survive.
type Piece struct {
	Repo      string `json:"repo"`
	Reference string `json:"reference"`
	// MediaType of a manifest; empty: a blob.
	MediaType string `json:"mediaType,omitempty"`
	Body      string `json:"body"`
}

// Record reads repositories: all tags, and all that they lead to.
func (r *Registry) Record(repos ...string) Record {
	r.t.Helper()
	var out Record
	seen := map[string]bool{}
	var manifest func(repo, reference string)
	manifest = func(repo, reference string) {
		if seen[repo+"@"+reference] {
			return
		}
		seen[repo+"@"+reference] = true
		body, mediaType := r.read(repo, "manifests", reference)
		var m struct {
			Config            *struct{ Digest string }
			Layers, Manifests []struct{ Digest string }
		}
		r.must(json.Unmarshal(body, &m))
		for _, d := range m.Manifests {
			manifest(repo, d.Digest)
		}
		if m.Config != nil {
			m.Layers = append(m.Layers, *m.Config)
		}
		for _, d := range m.Layers {
			if at := repo + "@" + d.Digest; !seen[at] {
				seen[at] = true
				blob, _ := r.read(repo, "blobs", d.Digest)
				out = append(out, Piece{Repo: repo, Reference: d.Digest, Body: string(blob)})
			}
		}
		out = append(out, Piece{Repo: repo, Reference: reference, MediaType: mediaType, Body: string(body)})
	}
	for _, repo := range repos {
		list, _ := r.read(repo, "tags", "list")
		var tags struct{ Tags []string }
		r.must(json.Unmarshal(list, &tags))
		for _, tag := range tags.Tags {
			manifest(repo, tag)
		}
	}
	return out
}

// Play puts a record back.
func (r *Registry) Play(record Record) {
	r.t.Helper()
	for _, p := range record {
		if p.MediaType != "" {
			r.send(http.MethodPut, "/v2/"+p.Repo+"/manifests/"+p.Reference, p.MediaType, p.Body)
			continue
		}
		at := r.send(http.MethodPost, "/v2/"+p.Repo+"/blobs/uploads/", "", "").Get("Location")
		at = strings.TrimPrefix(at, "http://"+r.Host)
		separator := "?"
		if strings.Contains(at, "?") {
			separator = "&"
		}
		r.send(http.MethodPut, at+separator+"digest="+p.Reference, "application/octet-stream", p.Body)
	}
}

const anyManifest = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"

func (r *Registry) read(repo, kind, reference string) (body []byte, mediaType string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+r.Host+"/v2/"+repo+"/"+kind+"/"+reference, nil)
	r.must(err)
	req.Header.Set("Accept", anyManifest)
	resp, err := http.DefaultClient.Do(req)
	r.must(err)
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	r.must(err)
	if resp.StatusCode != http.StatusOK {
		r.t.Fatalf("GET %s: %s: %s", req.URL, resp.Status, body)
	}
	return body, resp.Header.Get("Content-Type")
}

func (r *Registry) send(method, path, mediaType, body string) http.Header {
	r.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, "http://"+r.Host+path, bytes.NewReader([]byte(body)))
	r.must(err)
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := http.DefaultClient.Do(req)
	r.must(err)
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(resp.Body)
		r.must(fmt.Errorf("%s %s: %s: %s", method, req.URL, resp.Status, text))
	}
	return resp.Header
}
