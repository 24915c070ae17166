package cli

import (
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"touchstone.dev/touchstone/internal/imagecrypt"
	"touchstone.dev/touchstone/internal/imagekey"
	"touchstone.dev/touchstone/internal/protocol"
)

// TestImageEncrypt encrypts from a registry to a registry and to a layout; every layer of what comes out is encrypted.
func TestImageEncrypt(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	img, err := random.Image(1000, 3)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(host + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	record := protocol.ImageKey{ID: imagekey.NewID(), Class: "regulated", Conditions: json.RawMessage(`{"levels":[1]}`), Created: time.Now()}
	bundle := operated(t, map[string]any{"POST /v1/image-keys": protocol.NewImageKey{ImageKey: record, Key: make([]byte, 32)}})
	dir := t.TempDir()
	for _, to := range []string{host + "/secret:1", "oci:" + dir + "/layout:one"} {
		code, out, errOut := run(t, "image", "encrypt", host+"/app:1", to, "--trust-class", "regulated", "--plain-http", "--operator", bundle, "-o", "json")
		var done encrypted
		if code != 0 || json.Unmarshal([]byte(out), &done) != nil || done.Key.ID != record.ID || done.Plan.Layers != 3 {
			t.Fatalf("image encrypt: exit code %d, %q%q", code, out, errOut)
		}
		s, err := (&imagecrypt.Registry{PlainHTTP: true}).Open(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		digest, err := s.Digest()
		if err != nil || done.Image != to+"@"+digest.String() {
			t.Errorf("image encrypt: got %s, want digest %s (%v)", done.Image, digest, err)
		}
		if strings.HasPrefix(to, host) { // admission agrees
			code, out, errOut := run(t, "image", "verify", done.Image, "--encrypted", "--plain-http")
			if code != 0 || !strings.Contains(out, "encrypted: 3 layers") {
				t.Errorf("image verify %s: exit code %d, %q%q", done.Image, code, out, errOut)
			}
		}
		m, err := s.Image.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range m.Layers {
			if !strings.HasSuffix(string(l.MediaType), imagecrypt.Encrypted) {
				t.Errorf("%s: layer of type %s", to, l.MediaType)
			}
		}
	}
	bad := filepath.Join(dir, "bad.json")
	if err := os.WriteFile(bad, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	left := host + "/secret:1"
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{host + "/app:1", left}, 2, "who may open the image"},
		{[]string{host + "/app:1", left, "--trust-class", "a", "--conditions", bad}, 2, "who may open the image"},
		{[]string{host + "/app:1", left, "--conditions", bad}, 2, "is no JSON"},
		{[]string{host + "/app:1", host + "/app:1", "--trust-class", "a"}, 2, "SRC and DST are the same"},
		{[]string{left, host + "/twice:1", "--trust-class", "a"}, 1, "encrypted already"},
		{[]string{host + "/app:2", left, "--trust-class", "a"}, 1, "MANIFEST_UNKNOWN"},
		{[]string{host + "/app:1", "docker-archive:x.tar", "--trust-class", "a"}, 2, "cannot hold encrypted layers"},
		{[]string{host + "/app:1", "127.0.0.1:1/x:1", "--trust-class", "a"}, 1, "touchstone image key revoke " + record.ID},
		{[]string{host + "/app:1", left, "--trust-class", "a", "--ca", bad}, 1, "no certificate"},
	} {
		code, out, errOut := run(t, append(append([]string{"image", "encrypt"}, tc.args...), "--plain-http", "--operator", bundle)...)
		if code != tc.code || !strings.Contains(errOut, tc.want) {
			t.Errorf("image encrypt %q: exit code %d, %q%q, want %d and %q", tc.args, code, out, errOut, tc.code, tc.want)
		}
	}
	unknown := operated(t, nil)
	if code, _, errOut := run(t, "image", "encrypt", host+"/app:1", host+"/none:1", "--trust-class", "no", "--plain-http", "--operator", unknown); code != 1 || !strings.Contains(errOut, "/v1/image-keys") {
		t.Errorf("image encrypt for a class that is not there: exit code %d, %q", code, errOut)
	}
	if _, err := (&imagecrypt.Registry{PlainHTTP: true}).Open(t.Context(), host+"/none:1"); err == nil {
		t.Error("an image was written without a key")
	}
}

func TestImageKeys(t *testing.T) {
	id := imagekey.NewID()
	k := protocol.ImageKey{ID: id, Class: "regulated", Conditions: json.RawMessage(`{"tags":{"country":["de"]}}`), Image: "registry.example/app:1", Created: time.Now()}
	gone := k
	gone.Revoked = time.Now()
	class := protocol.Class{Name: "regulated", By: "admin", Conditions: k.Conditions}
	bundle := operated(t, map[string]any{
		"GET /v1/image-keys": protocol.ImageKeyList{Keys: []protocol.ImageKey{k}}, "PUT /v1/image-keys/" + id: gone, "POST /v1/image-keys": protocol.NewImageKey{ImageKey: k},
		"GET /v1/classes": protocol.ClassList{Classes: []protocol.Class{class}}, "PUT /v1/classes/regulated": class, "DELETE /v1/classes/regulated": map[string]string{},
	})
	dir := t.TempDir()
	key, conditions := filepath.Join(dir, "key"), filepath.Join(dir, "conditions")
	for file, text := range map[string]string{key: strings.Repeat("k", 32), conditions: "{}"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"image", "key", "list"}, 0, "registry.example/app:1"},
		{[]string{"image", "key", "revoke", id}, 0, "revoked"},
		{[]string{"image", "key", "restore", id}, 0, id},
		{[]string{"image", "key", "change", id, "--trust-class", "x"}, 0, id},
		{[]string{"image", "key", "change", id}, 2, "--trust-class NAME or --conditions FILE"},
		{[]string{"image", "key", "revoke", "x"}, 1, "/v1/image-keys/x"},
		{[]string{"image", "key", "import", "kbs:///a/b/c", key, "--conditions", conditions}, 0, id},
		{[]string{"image", "key", "import", "kbs:///a/b/c", key}, 2, "--trust-class NAME or --conditions FILE"},
		{[]string{"class", "list"}, 0, `{"tags":{"country":["de"]}}`},
		{[]string{"class", "set", "regulated", conditions}, 0, "admin"},
		{[]string{"class", "set", "regulated", key}, 2, "is no JSON"},
		{[]string{"class", "delete", "regulated"}, 0, "regulated is removed"},
	} {
		code, out, errOut := run(t, append(tc.args, "--operator", bundle)...)
		if code != tc.code || !strings.Contains(strings.Join(strings.Fields(out+errOut), " "), tc.want) {
			t.Errorf("touchstone %q: exit code %d, %q%q, want %d and %q", tc.args, code, out, errOut, tc.code, tc.want)
		}
	}
}
