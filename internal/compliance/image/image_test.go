package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// file is an entry of a layer. kind 0 is a regular file.
type file struct {
	name, body, link string
	kind             byte
	mode             int64
	uid              int
}

func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Linkname: f.link, Typeflag: f.kind, Mode: f.mode, Uid: f.uid, Size: int64(len(f.body)), Format: tar.FormatPAX}
		if f.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if f.mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// plain is a layer that is stored as it is, packed one as gzip.
func plain(b []byte) v1.Layer { return static.NewLayer(b, types.OCIUncompressedLayer) }

func packed(t testing.TB, b []byte) v1.Layer {
	t.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// zstdLayer is stored as zstd.
type zstdLayer struct {
	v1.Layer // plain
	stored   []byte
}

func zstded(t testing.TB, b []byte) v1.Layer {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &zstdLayer{plain(b), w.EncodeAll(b, nil)}
}

func (l *zstdLayer) Digest() (v1.Hash, error)            { return hashOf(l.stored), nil }
func (l *zstdLayer) Size() (int64, error)                { return int64(len(l.stored)), nil }
func (l *zstdLayer) MediaType() (types.MediaType, error) { return types.OCILayerZStd, nil }
func (l *zstdLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.stored)), nil
}

func imageOf(t testing.TB, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config.Env = "linux", "amd64", []string{"A=b"}
	if img, err = mutate.ConfigFile(img, config); err == nil {
		img, err = mutate.AppendLayers(img, layers...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func unpack(t testing.TB, o Options, layers ...v1.Layer) (*Root, error) {
	t.Helper()
	img, err := FromManifest(imageOf(t, layers...))
	if err != nil {
		return nil, err
	}
	if o.Temp == "" {
		o.Temp = t.TempDir()
	}
	r, err := Unpack(context.Background(), img, o)
	if err == nil {
		t.Cleanup(func() { _ = r.Close() })
	}
	return r, err
}

// contents lists a tree: names with kind, mode, owner, link target and content.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	out, err := exec.Command("find", dir, "-mindepth", "1", "-printf", `%P|%y|%m|%U:%G|%l\0`).Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		f := strings.SplitN(line, "|", 5)
		if len(f) < 5 {
			continue // an empty tree
		}
		value := strings.Join(f[1:4], " ")
		switch f[1] {
		case "f":
			b, err := os.ReadFile(filepath.Join(dir, f[0]))
			if err != nil {
				t.Fatal(err)
			}
			value += " " + hashOf(b).Hex[:12]
		case "l":
			value = "l " + filepath.Clean(filepath.Join("/", filepath.Dir(f[0]), f[4])) // ours are relative
			if strings.HasPrefix(f[4], "/") {
				value = "l " + filepath.Clean(f[4])
			}
		}
		all[f[0]] = value
	}
	return all
}

// names are those of a tree, sorted.
func names(t testing.TB, r *Root) string {
	return strings.Join(slices.Sorted(maps.Keys(contents(t, r.Dir))), " ")
}

func TestLayers(t *testing.T) {
	for name, c := range map[string]struct {
		layers [][]file
		want   string
	}{
		"one above the other":      {[][]file{{{name: "a"}, {name: "b/c"}}, {{name: "b/d"}}}, "a b b/c b/d"},
		"whiteout":                 {[][]file{{{name: "a"}, {name: "b/c"}}, {{name: ".wh.a"}, {name: "b/.wh.c"}}}, "b"},
		"whiteout of a folder":     {[][]file{{{name: "b/c"}, {name: "b/d/e"}}, {{name: ".wh.b"}}}, ""},
		"opaque first":             {[][]file{{{name: "b/c"}, {name: "b/d/e"}}, {{name: "b/.wh..wh..opq"}, {name: "b/n"}}}, "b b/n"},
		"opaque last":              {[][]file{{{name: "b/c"}, {name: "b/d/e"}}, {{name: "b/n"}, {name: "b/d/n"}, {name: "b/.wh..wh..opq"}}}, "b b/d b/d/n b/n"},
		"whiteout of what is made": {[][]file{{{name: "b/c"}}, {{name: "b/n"}, {name: ".wh.b"}}}, "b b/n"},
		"folder for a file":        {[][]file{{{name: "a"}}, {{name: "a", kind: tar.TypeDir}, {name: "a/b"}}}, "a a/b"},
		"file for a folder":        {[][]file{{{name: "a/b"}}, {{name: "a"}}}, "a"},
		"hard link":                {[][]file{{{name: "a"}}, {{name: "b", link: "a", kind: tar.TypeLink}}}, "a b"},
		"device":                   {[][]file{{{name: "dev/null", kind: tar.TypeChar}, {name: "n", link: "dev/null", kind: tar.TypeLink}}}, "dev"},
		"through a link":           {[][]file{{{name: "run/x"}, {name: "var/run", link: "/run", kind: tar.TypeSymlink}}, {{name: "var/run/y"}}}, "run run/x run/y var var/run"},
		"whiteout through a link":  {[][]file{{{name: "run/x"}, {name: "var/run", link: "/run", kind: tar.TypeSymlink}}, {{name: "var/run/.wh.x"}}}, "run var var/run"},
		"below a link to nothing":  {[][]file{{{name: "var/run", link: "../run", kind: tar.TypeSymlink}, {name: "var/run/x/y"}}}, "run run/x run/x/y var var/run"},
		"link becomes folder":      {[][]file{{{name: "d/x"}, {name: "l", link: "d", kind: tar.TypeSymlink}}, {{name: "l", kind: tar.TypeDir}, {name: "l/y"}}}, "d d/x l l/y"},
	} {
		t.Run(name, func(t *testing.T) {
			var layers []v1.Layer
			for i, files := range c.layers {
				b := tarOf(t, files...)
				layers = append(layers, []v1.Layer{plain(b), packed(t, b), zstded(t, b)}[i%3])
			}
			r, err := unpack(t, Options{}, layers...)
			if err != nil {
				t.Fatal(err)
			}
			if got := names(t, r); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestEscape: whatever a layer says, nothing outside of the root is written, read or led to.
func TestEscape(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 40)
	r, err := unpack(t, Options{},
		plain(tarOf(t,
			file{name: up + "dots"},
			file{name: "abs", link: secret, kind: tar.TypeSymlink},
			file{name: "rel", link: up + secret, kind: tar.TypeSymlink},
			file{name: "deep/er/link", link: up + secret, kind: tar.TypeSymlink},
			file{name: "to", link: outside, kind: tar.TypeSymlink},
			file{name: "to/written"},
			file{name: "a/b/c/d/e"},
			file{name: "s", link: "a/b/c/d", kind: tar.TypeSymlink},
			file{name: "winding", link: "s/../../../../../../.." + secret, kind: tar.TypeSymlink},
			file{name: "sideways", link: "s/../d/e", kind: tar.TypeSymlink},
			file{name: "x/again", link: "rel", kind: tar.TypeLink},
		)),
		plain(tarOf(t, file{name: "abs/below"}, file{name: "to/.wh.secret"})))
	if err == nil {
		t.Log(names(t, r))
	} else if !strings.Contains(err.Error(), "not a directory") {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "of the host" {
		t.Fatalf("the file outside is %q, %v", b, err)
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("outside there are %d files, want 1", len(entries))
	}
	if r == nil {
		return
	}
	for _, link := range []string{"abs", "rel", "deep/er/link", "winding", "x/again"} {
		if b, err := os.ReadFile(filepath.Join(r.Dir, link)); err == nil && string(b) == "of the host" {
			t.Errorf("%s leads to the host's file", link)
		}
	}
	if _, err := os.Stat(filepath.Join(r.Dir, "sideways")); err != nil {
		t.Errorf("a link that goes down and up leads nowhere: %v", err)
	}
}

func TestRefused(t *testing.T) {
	small := Limits{Bytes: 1000, Files: 10}
	bad := func(files ...file) []v1.Layer { return []v1.Layer{plain(tarOf(t, files...))} }
	var many []file
	for range 11 {
		many = append(many, file{name: "a"})
	}
	for name, c := range map[string]struct {
		o      Options
		layers []v1.Layer
		want   string
	}{
		"too many bytes":    {Options{Limits: small}, bad(file{name: "a", body: strings.Repeat("x", 1001)}), "more than 1000 bytes"},
		"too many files":    {Options{Limits: small}, bad(many...), "more than 10 files"},
		"implicit folders":  {Options{Limits: small}, bad(file{name: strings.Repeat("d/", 12) + "f"}, file{name: "g"}), "more than 10 files"},
		"too deep":          {Options{}, bad(file{name: strings.Repeat("d/", 300) + "f"}), "more than 256"},
		"hard link outside": {Options{}, bad(file{name: "a", link: "../../etc/passwd", kind: tar.TypeLink}), "hard link"},
		"no tar":            {Options{}, []v1.Layer{plain([]byte(strings.Repeat("no", 600)))}, "layer 1 of 1"},
		"cut off":           {Options{}, []v1.Layer{plain(tarOf(t, file{name: "a", body: strings.Repeat("x", 5000)})[:2000])}, "unexpected EOF"},
		"full disk":         {Options{Limits: Limits{Bytes: 1 << 20, Files: 10, Free: 1 << 60}}, bad(file{name: "a"}), "make room"},
		"whiteout of all":   {Options{}, bad(file{name: ".wh."}), "no name"},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Temp = t.TempDir()
			if _, err := unpack(t, c.o, c.layers...); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
			if left, _ := os.ReadDir(c.o.Temp); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}

// liar says another digest than its bytes have.
type liar struct {
	v1.Layer
	stored bool
}

func (l liar) Digest() (v1.Hash, error) {
	if l.stored {
		return hashOf([]byte("other")), nil
	}
	return l.Layer.Digest()
}

func (l liar) DiffID() (v1.Hash, error) {
	if !l.stored {
		return hashOf([]byte("other")), nil
	}
	return l.Layer.DiffID()
}

func TestDigests(t *testing.T) {
	b := tarOf(t, file{name: "a"})
	for _, stored := range []bool{true, false} {
		if _, err := unpack(t, Options{}, liar{packed(t, b), stored}); !errors.Is(err, ErrDigest) {
			t.Errorf("stored %v: got %v, want ErrDigest", stored, err)
		}
	}
}

func TestEncryptedIsRefused(t *testing.T) {
	l := static.NewLayer([]byte("sealed"), "application/vnd.oci.image.layer.v1.tar+encrypted")
	if _, err := unpack(t, Options{}, l); !errors.Is(err, ErrEncrypted) {
		t.Errorf("got %v, want ErrEncrypted", err)
	}
}

func TestFacts(t *testing.T) {
	r, err := unpack(t, Options{}, plain(tarOf(t, file{name: "bin/su", mode: 0o4755}, file{name: "p", kind: tar.TypeFifo}, file{name: "t", body: "12"})))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Facts.SetID) != 1 || r.Facts.SetID[0] != "/bin/su" || r.Facts.Devices != 1 || r.Facts.Files != 3 || r.Facts.Bytes != 2 {
		t.Errorf("got %+v", r.Facts)
	}
	if st, err := os.Stat(filepath.Dir(r.Dir)); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the folder around the root: %v, %v", st.Mode(), err)
	}
}
