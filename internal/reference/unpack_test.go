package reference

import (
	"archive/tar"
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type entry struct {
	name, content string
	kind          byte
}

func archive(t *testing.T, entries ...entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: 0o644, Size: int64(len(e.content))}
		if e.kind == tar.TypeSymlink {
			h.Linkname, h.Size, e.content = "/etc/passwd", 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// TestUnpack carries a folder over, a compressed source included.
func TestUnpack(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	big := Source{Kind: KindFiles, Name: "big", SHA256: strings.Repeat("b", 64), Imported: time.Unix(1, 0).UTC()}
	for range 4000 {
		big.Files = append(big.Files, File{Path: "/usr/bin/program", SHA256: strings.Repeat("0", 64)})
	}
	small := Source{Kind: KindFiles, Name: "small", SHA256: strings.Repeat("a", 64), Imported: time.Unix(2, 0).UTC(),
		Files: []File{{Path: "/bin/x", SHA256: strings.Repeat("1", 64)}}}
	for _, s := range []Source{big, small} {
		if _, err := WriteSource(from, s); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	packed := []entry{{name: "./", kind: tar.TypeDir}, {name: "./README", content: "no source", kind: tar.TypeReg},
		{name: "./.hidden.json", content: "no source", kind: tar.TypeReg}, {name: "./link.json", kind: tar.TypeSymlink}}
	for _, e := range entries {
		b, err := os.ReadFile(from + "/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		packed = append(packed, entry{"./" + e.Name(), string(b), tar.TypeReg})
	}
	sources, err := Unpack(archive(t, packed...))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sources {
		if _, err := WriteSource(to, s); err != nil {
			t.Fatal(err)
		}
	}
	want, err := ReadSources(from)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadSources(to)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" || len(got) != 2 {
		t.Errorf("unpacked sources (-want +got):\n%s", diff)
	}
}

// TestUnpackStays: names in the archive do not choose where a source is written.
func TestUnpackStays(t *testing.T) {
	sources, err := Unpack(archive(t, entry{"../../../tmp/evil.json", `{"kind":"files","name":"../../evil","file":"x","sha256":"00","imported":"2026-01-01T00:00:00Z"}`, tar.TypeReg}))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, err := WriteSource(dir, sources[0])
	if err != nil || !strings.HasPrefix(path, dir+"/") || strings.Contains(strings.TrimPrefix(path, dir+"/"), "/") {
		t.Errorf("WriteSource: got %q, %v; want a file in %s", path, err, dir)
	}
}

func TestUnpackRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":       archive(t).Bytes(),
		"no archive":    []byte(strings.Repeat("x", 1024)),
		"cut off":       archive(t, entry{"a.json", strings.Repeat(" ", 2000), tar.TypeReg}).Bytes()[:1024],
		"unknown field": archive(t, entry{"a.json", `{"kind":"files","name":"a","files2":[]}`, tar.TypeReg}).Bytes(),
		"bad digest":    archive(t, entry{"a.json", `{"kind":"files","name":"a","files":[{"path":"/x","sha256":"zz"}]}`, tar.TypeReg}).Bytes(),
		"no compressed": archive(t, entry{"a.json.zst", "x", tar.TypeReg}).Bytes(),
	} {
		if s, err := Unpack(bytes.NewReader(b)); err == nil {
			t.Errorf("Unpack(%s): got %d sources, want an error", name, len(s))
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte("x"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = Unpack(bytes.NewReader(b)) })
}
