package reference

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Limits on reference folders.
const (
	MaxSourceFile = 64 << 20  // bytes of one file as it lies there
	MaxSource     = 512 << 20 // bytes of its JSON
	compressFrom  = 256 << 10 // a source with more JSON than this is kept compressed
)

// Endings of source files. The compressed form is read by zstdcat.
const (
	endPlain      = ".json"
	endCompressed = ".json.zst"
)

// Load reads all sources in a folder and compiles them. Files that end neither in .json nor in .json.zst, hidden files and folders are
// left alone; anything else that is no source is an error.
func Load(dir string) (*Set, error) {
	sources, err := ReadSources(dir)
	if err != nil {
		return nil, err
	}
	return Compile(sources)
}

// ReadSources reads all sources in a folder, in the order of their file names.
func ReadSources(dir string) ([]Source, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reference folder: %w", err)
	}
	var out []Source
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || !isSourceFile(e.Name()) {
			continue
		}
		s, err := ReadSource(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		out = append(out, *s)
	}
	return out, nil
}

func isSourceFile(name string) bool {
	return strings.HasSuffix(name, endPlain) || strings.HasSuffix(name, endCompressed)
}

// ReadSource reads one source file. Fields that the schema does not know are refused: they would be silently without effect.
func ReadSource(path string) (*Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readSource(path, f)
}

// readSource reads a source out of the file that path names.
func readSource(path string, file io.Reader) (*Source, error) {
	b, err := readBounded(path, file)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var s Source
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: bytes after the source", path)
	}
	return &s, nil
}

func readBounded(path string, file io.Reader) ([]byte, error) {
	b, err := readAll(file, MaxSourceFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !strings.HasSuffix(path, endCompressed) {
		return b, nil
	}
	d, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer d.Close()
	if b, err = readAll(d, MaxSource); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// readAll reads r to its end and refuses more than limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	return b, nil
}

// WriteSource keeps a source in a reference folder, which it makes if needed, and returns the path. The file's name tells kind, name,
// version and digest, so importing the same thing again changes nothing: the file that is there stays, with its date. The file
// appears as a whole or not at all.
func WriteSource(dir string, s Source) (string, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	b, err := json.MarshalIndent(&s, "", " ")
	if err != nil {
		return "", err
	}
	b = append(b, '\n')
	base, other := filepath.Join(dir, fileName(&s)), ""
	path := base + endPlain
	if other = base + endCompressed; len(b) > compressFrom {
		path, other = other, path
		if b, err = compress(b); err != nil {
			return "", err
		}
	}
	if same(path, s) {
		return path, nil
	}
	if err := writeAtomic(path, b); err != nil {
		return "", err
	}
	// The other form of the same source, from an earlier version of the importer, would count twice.
	if err := os.Remove(other); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return path, nil
}

// same reports whether the file holds the same source already, apart from the date of import.
func same(path string, s Source) bool {
	old, err := ReadSource(path)
	if err != nil {
		return false
	}
	old.Imported, s.Imported = time.Time{}, time.Time{}
	a, errA := json.Marshal(old)
	b, errB := json.Marshal(&s)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// fileName makes the name of a source file, without its ending.
func fileName(s *Source) string {
	parts := slices.DeleteFunc([]string{s.Kind, s.Name, s.Version, s.SHA256[:min(8, len(s.SHA256))]}, func(p string) bool { return p == "" })
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune(".+~_-", r):
			return r
		}
		return '-'
	}, strings.Join(parts, "-"))
	const longest = 200 // file systems allow 255 bytes
	if len(name) > longest {
		name = name[:longest-9] + "-" + s.SHA256[:min(8, len(s.SHA256))]
	}
	return strings.TrimLeft(name, ".-")
}

func compress(b []byte) ([]byte, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer e.Close() //nolint:errcheck // EncodeAll keeps nothing back
	return e.EncodeAll(b, nil), nil
}

// writeAtomic writes a file so that a reader, or a crash, sees the old content or the new one.
func writeAtomic(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
