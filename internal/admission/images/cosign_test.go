package images

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"touchstone.dev/touchstone/internal/admission/images/imagetest"
)

var update = flag.Bool("update", false, "have cosign sign anew: scripts/cosign")

const fixture = "testdata/cosign.json"

// cosigned is what cosign did: repositories with signatures in each of its forms, by keys of each kind.
type cosigned struct {
	// Version is that of cosign.
	Version string            `json:"version"`
	Keys    map[string]string `json:"keys"`
	// Images by the name of their case, as REPOSITORY@DIGEST.
	Images map[string]string `json:"images"`
	Record imagetest.Record  `json:"record"`
}

// differs are the cases in which cosign verify answers otherwise than we do.
var differs = map[string]string{
	"ed25519-simple": "it verifies without the hash what it signed with it",
	"ed25519-bundle": "it verifies without the hash what it signed with it",
	"attested":       "it takes any statement about the image for a signature",
}

// cosignCases are what is asked of the images that cosign signed.
var cosignCases = []struct{ image, key, form, words string }{
	{"p256-simple", "p256", "simple signing", ""},
	{"p256-referrer", "p256", "simple signing", ""},
	{"p256-bundle", "p256", "bundle", ""},
	{"p384-simple", "p384", "simple signing", ""},
	{"p384-bundle", "p384", "bundle", ""},
	{"p521-simple", "p521", "simple signing", ""},
	{"p521-bundle", "p521", "bundle", ""},
	{"rsa-simple", "rsa", "simple signing", ""},
	{"rsa-bundle", "rsa", "bundle", ""},
	{"ed25519-simple", "ed25519", "simple signing", ""},
	{"ed25519-bundle", "ed25519", "bundle", ""},
	{"annotated", "p256", "simple signing", ""},
	{"copied", "p256", "simple signing", ""},
	{"index", "p256", "bundle", ""},
	{"index-child", "p256", "", "it is not signed"},
	{"recursive", "p256", "bundle", ""},
	{"recursive-child", "p256", "bundle", ""},
	{"attested", "p256", "", "no signature"},
	{"attested-old", "p256", "", "it is not signed"},
	{"unsigned", "p256", "", "it is not signed"},
	{"p256-simple", "p384", "", "by none of the keys"},
	{"p256-bundle", "p384", "", "by none of the keys"},
	{"p256-referrer", "rsa", "", "by none of the keys"},
}

// TestCosign: signatures that cosign made, in a registry with the referrers API and in one without.
func TestCosign(t *testing.T) {
	if *update {
		remake(t)
	}
	var f cosigned
	b, err := os.ReadFile(fixture)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	t.Run("go-containerregistry", func(t *testing.T) { testCosign(t, newWorld(t), &f) })
	t.Run("docker-registry", func(t *testing.T) { testCosign(t, &world{imagetest.NewStock(t), t}, &f) })
}

func testCosign(t *testing.T, w *world, f *cosigned) {
	w.Play(f.Record)
	for _, c := range cosignCases {
		t.Run(c.image+" by "+c.key, func(t *testing.T) {
			w.t = t
			image := w.Host + "/" + f.Images[c.image]
			w.verdict(c.image, w.checker(), image, Demand{SignedBy: []string{f.Keys[c.key]}}, c.words)
			if r, err := w.checker().Check(ctx, image, Demand{SignedBy: []string{f.Keys[c.key]}}); err == nil && r.Form != c.form {
				t.Errorf("form %q, want %q", r.Form, c.form)
			}
			if *update {
				if got, want := passes(t, image, f.Keys[c.key]), c.words == "" != (differs[c.image] != ""); got != want {
					t.Errorf("cosign verify: %v, want %v", got, want)
				}
			}
		})
	}
}

func cosignProgram() string {
	path := filepath.Join(os.Getenv("TOUCHSTONE_KUBERNETES"), "cosign")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// cosign runs cosign.
func cosign(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), cosignProgram(), args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "COSIGN_PASSWORD=", "COSIGN_EXPERIMENTAL=1", "HOME="+dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// passes asks cosign, which takes one form of signatures and one hash at a time.
func passes(t *testing.T, image, key string) bool {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key.pub"), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	common := []string{"verify", "--key", "key.pub", "--insecure-ignore-tlog=true", "--allow-insecure-registry", image}
	for _, hash := range []string{"sha256", "sha384", "sha512"} {
		for _, form := range [][]string{{"--new-bundle-format=true"}, {"--new-bundle-format=false"}, {"--new-bundle-format=false", "--experimental-oci11"}} {
			if _, err := cosign(t, dir, slices.Concat(common, form, []string{"--signature-digest-algorithm", hash})...); err == nil {
				return true
			}
		}
	}
	return false
}

// remake has cosign sign, and writes the fixture.
func remake(t *testing.T) {
	if cosignProgram() == "" {
		t.Fatal("no cosign in $TOUCHSTONE_KUBERNETES: run scripts/cosign")
	}
	w := &world{imagetest.NewStock(t), t}
	dir := t.TempDir()
	must := func(args ...string) {
		t.Helper()
		if out, err := cosign(t, dir, args...); err != nil {
			t.Fatalf("cosign %v: %v\n%s", args, err, out)
		}
	}
	f := &cosigned{Keys: map[string]string{}, Images: map[string]string{}}
	out, err := cosign(t, dir, "version", "--json")
	w.must(err)
	var v struct{ GitVersion string }
	w.must(json.Unmarshal([]byte(out), &v))
	f.Version = v.GitVersion
	for name, key := range cosignKeys(t) {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		w.must(err)
		w.must(os.WriteFile(filepath.Join(dir, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
		must("import-key-pair", "--key", name+".pem", "--output-key-prefix", name)
		public, err := os.ReadFile(filepath.Join(dir, name+".pub"))
		w.must(err)
		f.Keys[name] = string(public)
	}
	image := w.Image(imagetest.PlainLayer)
	push := func(name string) string {
		at := w.Push(name, image)
		f.Images[name] = strings.TrimPrefix(at, w.Host+"/")
		return at
	}
	sign := func(key, at string, more ...string) {
		t.Helper()
		must(append([]string{"sign", "--key", key + ".key", "--tlog-upload=false", "--use-signing-config=false", "--allow-insecure-registry", "-y", at}, more...)...)
	}
	for name := range f.Keys {
		sign(name, push(name+"-simple"), "--new-bundle-format=false")
		sign(name, push(name+"-bundle"))
	}
	sign("p256", push("p256-referrer"), "--new-bundle-format=false", "--registry-referrers-mode=oci-1-1")
	sign("p256", push("annotated"), "--new-bundle-format=false", "-a", "environment=production", "--sign-container-identity=registry.example/elsewhere")
	push("unsigned")
	predicate := filepath.Join(dir, "predicate.json")
	w.must(os.WriteFile(predicate, []byte(`{"scan":"passed"}`), 0o600))
	for name, format := range map[string]string{"attested": "--new-bundle-format=true", "attested-old": "--new-bundle-format=false"} {
		must("attest", "--key", "p256.key", "--tlog-upload=false", "--use-signing-config=false", "--allow-insecure-registry", "-y", "--predicate", predicate,
			"--type", "https://example.com/scan/v1", format, push(name))
	}
	f.Images["copied"] = strings.Replace(f.Images["p256-simple"], "p256-simple", "copied", 1)
	must("copy", "--allow-insecure-registry", w.Host+"/"+f.Images["p256-simple"], w.Host+"/copied:latest")
	child := w.Image(imagetest.PlainLayer, imagetest.PlainLayer)
	digest, err := child.Digest()
	w.must(err)
	for name, more := range map[string][]string{"index": nil, "recursive": {"--recursive"}} {
		at := w.Push(name, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: child}))
		sign("p256", at, more...)
		f.Images[name], f.Images[name+"-child"] = strings.TrimPrefix(at, w.Host+"/"), name+"@"+digest.String()
	}
	var repos []string
	for _, at := range f.Images {
		repo, _, _ := strings.Cut(at, "@")
		repos = append(repos, repo)
	}
	f.Record = w.Record(repos...)
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	w.must(e.Encode(f))
	w.must(os.WriteFile(fixture, b.Bytes(), 0o644)) //nolint:gosec // no secret
}

func cosignKeys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	out := map[string]crypto.Signer{}
	for name, curve := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = key
	}
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	out["rsa"] = key
	if _, out["ed25519"], err = edwards(); err != nil {
		t.Fatal(err)
	}
	return out
}

func edwards() (crypto.PublicKey, crypto.Signer, error) { return ed25519.GenerateKey(rand.Reader) }
