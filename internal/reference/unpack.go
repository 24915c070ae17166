package reference

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// maxUnpacked bounds the entries of an archive.
const maxUnpacked = 100_000

// Unpack reads the sources of a reference folder from a tar archive, as `tar -C references -c .` makes it: the way into an AIAS whose folder
// cannot be reached by other means. Names of folders count for nothing. As in a folder, what is no source file is left alone, and a source
// file that cannot be read is an error.
func Unpack(r io.Reader) ([]Source, error) {
	var out []Source
	t := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("archive of references: %w", err)
		}
		if n == maxUnpacked {
			return nil, fmt.Errorf("archive of references: more than %d entries", maxUnpacked)
		}
		name := path.Base(h.Name)
		if h.Typeflag != tar.TypeReg || strings.HasPrefix(name, ".") || !isSourceFile(name) {
			continue
		}
		s, err := readSource(name, t)
		if err != nil {
			return nil, err
		}
		out = append(out, *s)
	}
	if len(out) == 0 {
		return nil, errors.New("archive of references: no source in it: make it with `tar -C FOLDER -c .`")
	}
	// What cannot be used is refused here, not when it is in force.
	if _, err := Compile(out); err != nil {
		return nil, err
	}
	return out, nil
}
