package images

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
)

// TestKeyringResolve: a client that asks with one login gets the most exact one.
func TestKeyringResolve(t *testing.T) {
	k, err := ParseKeyring([]byte(`{"auths":{"registry.example":{"username":"u","password":"p"},"registry.example/team":{"username":"t","password":"q"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for image, want := range map[string]string{"registry.example/app": "u", "registry.example/team/app": "t", "registry.example/teams": "u", "other.example/app": ""} {
		ref, err := name.ParseReference(image)
		if err != nil {
			t.Fatal(err)
		}
		auth, err := k.Resolve(ref.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c, err := auth.Authorization(); err != nil || c.Username != want {
			t.Errorf("Resolve(%s): got %q, %v, want %q", image, c.Username, err, want)
		}
	}
}
