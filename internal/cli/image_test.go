package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/admission/images/imagetest"
)

func TestImageVerify(t *testing.T) {
	r := imagetest.New(t, nil)
	_, otherKey := imagetest.NewKey(t)
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, other, bad := file("cosign.pub", r.Key), file("other.pub", otherKey), file("bad.pub", "x")
	signed := r.Push("app", r.Image(imagetest.EncryptedLayer))
	r.Sign(signed, nil)
	unsigned := r.Push("app", r.Image(imagetest.PlainLayer))
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"signed", []string{signed, "--key", key, "--plain-http"}, ExitOK, "signed by the key with SHA-256"},
		{"rotation", []string{signed, "--key", other, "--key", key, "--encrypted", "--plain-http"}, ExitOK, "encrypted: 1 layer"},
		{"JSON", []string{signed, "--key", key, "--plain-http", "-o", "json"}, ExitOK, `"form": "simple signing"`},
		{"unsigned", []string{unsigned, "--key", key, "--plain-http"}, ExitNotTrusted, "it is not signed"},
		{"plain", []string{unsigned, "--encrypted", "--plain-http"}, ExitNotTrusted, "is not encrypted"},
		{"another key", []string{signed, "--key", other, "--plain-http"}, ExitNotTrusted, "by none of the keys"},
		{"no TLS there", []string{signed, "--key", key}, ExitNotTrusted, "HTTP response to HTTPS client"},
		{"tag", []string{r.Host + "/app:latest", "--key", key, "--plain-http"}, ExitNotTrusted, "must be named by its digest"},
		{"bad key", []string{signed, "--key", bad, "--plain-http"}, ExitNotTrusted, "want one PEM block"},
		{"nothing demanded", []string{signed}, ExitUnreadable, "Want --key FILE"},
		{"no such key", []string{signed, "--key", filepath.Join(dir, "none")}, ExitUnreadable, "no such file"},
		{"no image", []string{"--key", key}, ExitUnreadable, "accepts 1 arg"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := run(t, append([]string{"image", "verify"}, c.args...)...)
			if code != c.code || !strings.Contains(out+errs, c.want) {
				t.Errorf("exit code %d, %q %q; want %d and %q", code, out, errs, c.code, c.want)
			}
		})
	}
}
