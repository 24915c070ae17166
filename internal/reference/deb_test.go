package reference_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"touchstone.dev/touchstone/internal/reference"
)

var day = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// entry is a file of a package that a test makes.
type entry struct {
	name string
	data []byte
	kind byte // regular when zero
}

const control = "Package: test\nVersion: 1.0-1\nArchitecture: amd64\nDescription: x\n y: z\n"

func tarOf(tb testing.TB, entries []entry) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.data)), Typeflag: tar.TypeReg}
		if e.kind != 0 {
			h.Typeflag, h.Linkname = e.kind, "target"
		}
		if err := w.WriteHeader(h); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func gz(tb testing.TB, b []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func zst(tb testing.TB, b []byte) []byte {
	tb.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		tb.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

// ar makes an archive of members, in order.
func ar(members ...entry) []byte {
	b := []byte("!<arch>\n")
	for _, m := range members {
		b = append(b, fmt.Sprintf("%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, 0, 0, 0, 0o100644, len(m.data))...)
		if b = append(b, m.data...); len(m.data)%2 == 1 {
			b = append(b, '\n')
		}
	}
	return b
}

func deb(tb testing.TB, files ...entry) []byte {
	tb.Helper()
	return ar(entry{name: "debian-binary", data: []byte("2.0\n")},
		entry{name: "control.tar.gz", data: gz(tb, tarOf(tb, []entry{{name: "./control", data: []byte(control)}}))},
		entry{name: "_extra", data: []byte("left alone")},
		entry{name: "data.tar.zst", data: zst(tb, tarOf(tb, files))})
}

// TestImportPackageReal reads a package that dpkg-deb made, compressed with xz.
func TestImportPackageReal(t *testing.T) {
	b, err := os.ReadFile("testdata/hello-test_1.0-2_all.deb")
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	s, err := reference.ImportPackage(bytes.NewReader(b), reference.Options{File: "some/folder/hello-test_1.0-2_all.deb", Now: day, Size: int64(len(b)),
		Progress: func(done, total int64) {
			if done < last || total != int64(len(b)) {
				t.Errorf("Progress(%d, %d) after %d", done, total, last)
			}
			last = done
		}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "hello-test" || s.Version != "1:1.0-2" || s.Arch != "all" || s.File != "hello-test_1.0-2_all.deb" || !s.Imported.Equal(day) {
		t.Errorf("ImportPackage: got %q %q %q from %q", s.Name, s.Version, s.Arch, s.File)
	}
	want := reference.File{Path: "/usr/bin/hello", SHA256: "bfdeaeb08cffb6a36438bcd12dda25417e3cdd36f1e7e482a2849d539225288b"}
	if len(s.Files) != 1 || s.Files[0] != want {
		t.Errorf("Files: got %+v, want %+v", s.Files, want)
	}
	if last != int64(len(b)) {
		t.Errorf("Progress: ended at %d, want %d", last, len(b))
	}
}

func TestImportPackageRefuses(t *testing.T) {
	good := deb(t, entry{name: "./a", data: []byte("a")})
	binary := entry{name: "debian-binary", data: []byte("2.0\n")}
	controlTar := entry{name: "control.tar", data: tarOf(t, []entry{{name: "./control", data: []byte(control)}})}
	data := entry{name: "data.tar", data: tarOf(t, nil)}
	badControl := func(text string) []byte {
		return ar(binary, entry{name: "control.tar", data: tarOf(t, []entry{{name: "control", data: []byte(text)}})}, data)
	}
	tests := []struct {
		name, want string
		in         []byte
	}{
		{"empty", "no ar header", nil},
		{"text", "no ar header", []byte("this is not a package")},
		{"cut", "unexpected EOF", good[:len(good)-10]},
		{"only a header", "EOF", []byte("!<arch>\n")},
		{"no data", "EOF", ar(binary, controlTar)},
		{"data before control", "out of place", ar(binary, data, controlTar)},
		{"two data archives", "out of place", ar(binary, controlTar, data, data)},
		{"unknown member", "out of place", ar(binary, controlTar, entry{name: "surprise"}, data)},
		{"unknown compression", "out of place", ar(binary, controlTar, entry{name: "data.tar.lzma"})},
		{"other format", "3.0", ar(entry{name: "debian-binary", data: []byte("3.0\n")}, controlTar, data)},
		{"no control file", "no control file", ar(binary, entry{name: "control.tar", data: tarOf(t, nil)}, data)},
		{"control without a version", "control file names", badControl("Package: x\nArchitecture: all\n")},
		{"name with a slash", "control file names", badControl("Package: ../x\nVersion: 1\nArchitecture: all\n")},
		{"path leads up", "leads elsewhere", deb(t, entry{name: "./a/../../etc/passwd"})},
		{"path with two slashes", "leads elsewhere", deb(t, entry{name: ".//etc//passwd"})},
		{"path with a newline", "control characters", deb(t, entry{name: "./a\nb"})},
		{"device", "archive entry of type", deb(t, entry{name: "./dev/sda", kind: tar.TypeBlock})},
		{"not compressed", "data.tar.zst", ar(binary, controlTar, entry{name: "data.tar.zst", data: []byte("not compressed at all")})},
		{"damaged header", "damaged ar header", bytes.Replace(good, []byte("`\n"), []byte("xx"), 1)},
	}
	for _, tt := range tests {
		_, err := reference.ImportPackage(bytes.NewReader(tt.in), reference.Options{File: "x.deb"})
		if !errors.Is(err, reference.ErrImport) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ImportPackage(%s): got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzDeb(f *testing.F) {
	b, err := os.ReadFile("testdata/hello-test_1.0-2_all.deb")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(deb(f, entry{name: "./usr/bin/a", data: []byte("a")}, entry{name: "./lib/modules/1/a.ko", data: []byte("\x7fELF")}, entry{name: "./boot/vmlinuz-1", data: []byte("MZ")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := reference.ImportPackage(bytes.NewReader(b), reference.Options{File: "x.deb"})
		if err == nil {
			if _, err := reference.Compile([]reference.Source{*s}); err != nil {
				t.Errorf("Compile refuses what ImportPackage made: %v", err)
			}
		}
	})
}
