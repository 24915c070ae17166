package reference_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/reference"
)

func TestWriteSource(t *testing.T) {
	for _, n := range []int{2, 5000} { // the large one is kept compressed
		dir := filepath.Join(t.TempDir(), "references")
		s := listOf("site/../list", n)
		path, err := reference.WriteSource(dir, s)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Dir(path) != dir || !strings.HasPrefix(filepath.Base(path), "files-site-..-list-abababab.json") || strings.HasSuffix(path, ".zst") != (n > 2) {
			t.Errorf("WriteSource(%d files): got path %s", n, path)
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		again := s
		again.Imported = day.Add(time.Hour)
		if second, err := reference.WriteSource(dir, again); err != nil || second != path {
			t.Errorf("WriteSource(again): got %s, %v, want %s", second, err, path)
		}
		after, err := os.ReadFile(path)
		if err != nil || string(after) != string(before) {
			t.Errorf("WriteSource(again) changed the file: %v", err)
		}
		got, err := reference.ReadSources(dir)
		if err != nil || len(got) != 1 {
			t.Fatalf("ReadSources: got %d, %v, want 1", len(got), err)
		}
		if diff := cmp.Diff(s, got[0]); diff != "" {
			t.Errorf("source (-want +got):\n%s", diff)
		}
	}
}

// TestWriteSourceShrinks has a source that becomes small: its compressed form must not count beside it.
func TestWriteSourceShrinks(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []int{5000, 2} {
		if _, err := reference.WriteSource(dir, listOf("list", n)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "files-list-abababab.json" {
		t.Errorf("folder: got %v, %v, want one file", entries, err)
	}
}

func TestLoad(t *testing.T) {
	const source = `{"kind":"files","name":"x","file":"x","sha256":"00","imported":"2026-11-22T00:00:00Z"}`
	tests := []struct {
		name, file, content, want string
	}{
		{"good", "a.json", source, ""},
		{"other files are left alone", "README.md", "text", ""},
		{"hidden files are left alone", ".new-1.json", "half", ""},
		{"unknown field", "a.json", `{"kind":"files","name":"x","surprise":1}`, "unknown field"},
		{"two values", "a.json", source + source, "bytes after the source"},
		{"not JSON", "a.json", "text", "a.json"},
		{"not compressed", "a.json.zst", source, "a.json.zst"},
		{"unknown kind", "a.json", `{"kind":"x","name":"x"}`, "is not known"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := reference.Load(dir)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Load: got %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := reference.Load(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("Load(no folder): got no error")
	}
}
