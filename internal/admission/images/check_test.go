package images

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"touchstone.dev/touchstone/internal/admission/images/imagetest"
)

func TestSignatures(t *testing.T) {
	t.Run("go-containerregistry", func(t *testing.T) { testSignatures(t, newWorld(t)) })
	t.Run("docker-registry", func(t *testing.T) { testSignatures(t, &world{imagetest.NewStock(t), t}) })
}

func testSignatures(t *testing.T, w *world) {
	_, other := imagetest.NewKey(t)
	image := func(repo string) string { return w.Push(repo, w.Image(imagetest.PlainLayer, "application/x-"+repo)) }
	signed := Demand{SignedBy: []string{w.Key}}

	good := image("good")
	w.Sign(good, nil)
	report, err := w.checker().Check(ctx, good, signed)
	if err != nil || report.Image != good || len(report.Signer) != 64 || report.Form != "simple signing" {
		t.Fatalf("Check of a signed image: %+v, %v", report, err)
	}

	unsigned := image("unsigned")
	copied := image("copied")
	repo, digest, _ := strings.Cut(copied, "@")
	w.Signature(copied, payloadOf(good), w.Signed(payloadOf(good))) // the signature of another image, in the place of one for this
	moved := w.Push("moved", w.Image(imagetest.PlainLayer, "application/x-moved"))
	w.Sign(moved, func(p string) string { return strings.Replace(p, "moved", "elsewhere", 1) })
	tampered := image("tampered")
	w.Signature(tampered, payloadOf(tampered), w.Signed(payloadOf(good)))
	several := image("several")
	w.Signature(several, payloadOf(several), "AAAA")
	w.Sign(several, nil)
	flood := image("flood")
	w.Signature(flood, payloadOf(flood), slices.Repeat([]string{"AAAA"}, maxSignatures)...)
	w.Sign(flood, nil)

	child := w.Image(imagetest.PlainLayer)
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: child})
	indexed := w.Push("indexed", index)
	w.Sign(indexed, nil)
	childDigest, err := child.Digest()
	w.must(err)

	for _, c := range []struct {
		name, image string
		want        Demand
		words       string
	}{
		{"rotation: old and new key", good, Demand{SignedBy: []string{other, w.Key}}, ""},
		{"tag beside the digest", strings.Replace(good, "@", ":v1@", 1), signed, ""},
		{"wrong key", good, Demand{SignedBy: []string{other}}, "no signature of 1 by 1 keys holds: it is by none of the keys"},
		{"broken key", good, Demand{SignedBy: []string{w.Key, "x"}}, "images.signedBy: key 2"},
		{"unsigned", unsigned, signed, "it is not signed"},
		{"signature of another image", copied, signed, "it signs another image"},
		{"same digest, signed under another name", moved, signed, ""},
		{"tampered payload", tampered, signed, "by none of the keys"},
		{"a bad one before the good one", several, signed, ""},
		{"more than are looked at", flood, signed, "there are more, which are not looked at"},
		{"tag", w.Host + "/good:latest", signed, "must be named by its digest"},
		{"no tag", w.Host + "/good", signed, "must be named by its digest"},
		{"short digest", w.Host + "/good@sha256:abc", signed, "cannot be read"},
		{"index", indexed, signed, ""},
		{"manifest of a signed index", w.Host + "/indexed@" + childDigest.String(), signed, "it is not signed"},
		{"not there", repo + "@" + strings.Replace(digest, digest[7:11], "0000", 1), signed, "it does not have the image"},
	} {
		w.verdict(c.name, w.checker(), c.image, c.want, c.words)
	}
}

// payloadOf is what is signed of an image.
func payloadOf(image string) string {
	repo, digest, _ := strings.Cut(image, "@")
	return fmt.Sprintf(`{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, repo, digest)
}

func TestEncryption(t *testing.T) {
	w := newWorld(t)
	encrypted := Demand{Encrypted: true}
	all := w.Image(imagetest.EncryptedLayer, imagetest.EncryptedLayer)
	good := w.Push("good", all)
	report, err := w.checker().Check(ctx, good, encrypted)
	if err != nil || report.EncryptedLayers != 2 || report.Signer != "" {
		t.Fatalf("Check of an encrypted image: %+v, %v", report, err)
	}
	w.verdict("encrypted, but not signed", w.checker(), good, Demand{Encrypted: true, SignedBy: []string{w.Key}}, "it is not signed")
	w.Sign(good, nil)
	w.verdict("encrypted and signed", w.checker(), good, Demand{Encrypted: true, SignedBy: []string{w.Key}}, "")

	mixed := w.Image(imagetest.EncryptedLayer, imagetest.PlainLayer)
	bare, err := mutate.Append(w.Image(imagetest.EncryptedLayer), mutate.Addendum{Layer: imagetest.Layer("bare", imagetest.EncryptedLayer).Layer, MediaType: imagetest.EncryptedLayer})
	w.must(err)
	plainIndex := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: all}, mutate.IndexAddendum{Add: mixed})
	for _, c := range []struct{ name, image, words string }{
		{"plain", w.Push("plain", w.Image(imagetest.PlainLayer)), "layer 1 of manifest"},
		{"one plain layer", w.Push("mixed", mixed), "layer 2 of manifest"},
		{"no wrapped key", w.Push("bare", bare), "has no wrapped key"},
		{"no layers", w.Push("empty", empty.Image), "has no layers"},
		{"index of encrypted images", w.Push("index", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: all})), ""},
		{"index with one plain layer for another platform", w.Push("plainindex", plainIndex), "layer 2 of manifest"},
		{"index of an index", w.Push("nested", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: plainIndex})), "layer 2 of manifest"},
		{"empty index", w.Push("emptyindex", empty.Index), "has no layers"},
	} {
		w.verdict(c.name, w.checker(), c.image, encrypted, c.words)
	}
}

// TestAmbiguous: manifests that another reader could read otherwise than we do.
func TestAmbiguous(t *testing.T) {
	w := newWorld(t)
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	good := fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%064d","size":1,"annotations":{"org.opencontainers.image.enc.keys.jwe":""}}`, imagetest.EncryptedLayer, 0)
	plain := fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%064d","size":1}`, imagetest.PlainLayer, 0)
	for _, c := range []struct{ name, body, words string }{
		{"plain words", `{"schemaVersion":2,"layers":[` + good + `]}`, ""},
		{"a plain layer with a key", `{"schemaVersion":2,"layers":[` + strings.Replace(good, "+encrypted", "", 1) + `]}`, "layer 1 of manifest"},
		{"layers twice", `{"schemaVersion":2,"layers":[` + plain + `],"layers":[` + good + `]}`, "ambiguous: a name is there twice"},
		{"layers in another case", `{"schemaVersion":2,"Layers":[` + plain + `],"layers":[` + good + `]}`, "ambiguous: a name is there twice"},
		{"type twice", `{"schemaVersion":2,"layers":[` + strings.Replace(good, `{`, `{"mediaType":"x",`, 1) + `]}`, "a name is there twice"},
		{"index and image", `{"schemaVersion":2,"layers":[` + good + `],"manifests":[` + plain + `]}`, "it has layers and manifests"},
		{"version 1 beside", `{"schemaVersion":2,"layers":[` + good + `],"fsLayers":[{"blobSum":"x"}]}`, "another version"},
		{"version 1", `{"schemaVersion":1,"layers":[` + good + `]}`, "another version"},
		{"deep", `{"schemaVersion":2,"x":` + strings.Repeat("[", 50) + strings.Repeat("]", 50) + `,"layers":[` + good + `]}`, "too deep"},
		{"many parts", `{"schemaVersion":2,"x":[0` + strings.Repeat(",0", maxParts+1) + `],"layers":[` + good + `]}`, "too many parts"},
		{"big", `{"schemaVersion":2,"x":"` + strings.Repeat("x", maxManifest) + `","layers":[` + good + `]}`, "more than 1048576 bytes"},
		{"no layers are objects", `{"schemaVersion":2,"layers":[1]}`, "cannot be read"},
	} {
		w.verdict(c.name, w.checker(), w.Raw("ambiguous", manifestType, c.body), Demand{Encrypted: true}, c.words)
	}
	many := `{"schemaVersion":2,"manifests":[` + strings.TrimSuffix(strings.Repeat(good+",", 1), ",")
	for i := range maxManifests {
		many += fmt.Sprintf(`,{"digest":"sha256:%064x"}`, i+1)
	}
	if _, err := parseManifest([]byte(many + `]}`)); err != nil {
		t.Errorf("an index of %d manifests: %v", maxManifests+1, err)
	}
	_, err := w.checker().Check(ctx, w.Raw("ambiguous", manifestType, many+`]}`), Demand{Encrypted: true})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("more than %d manifests", maxManifests)) {
		t.Errorf("an index of too many manifests: %v", err)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"layers":[{"mediaType":"x","digest":"y","annotations":{"a":"b"}}]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"y","artifactType":"z"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseManifest(b); err == nil && (m.SchemaVersion != 2 || len(m.Layers) > 0 && len(m.Manifests) > 0) {
			t.Errorf("parseManifest(%q) = %+v", b, m)
		}
	})
}
