package authority

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestWriteNew: a new file is private and whole, an old one stays, and nothing else is left in the folder.
func TestWriteNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := writeNew(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := writeNew(path, []byte("two")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("writeNew() over a file: got %v, want %v", err, fs.ErrExist)
	}
	b, err := os.ReadFile(path)
	st, _ := os.Stat(path)
	entries, _ := os.ReadDir(filepath.Dir(path))
	if err != nil || string(b) != "one" || st.Mode().Perm() != 0o600 || len(entries) != 1 {
		t.Errorf("file: got %q of mode %v beside %d others, %v; want one of mode 0600 alone", b, st.Mode(), len(entries)-1, err)
	}
	if err := writeNew(filepath.Join(path, "below"), nil); err == nil {
		t.Error("writeNew(below a file): got no error")
	}
}
