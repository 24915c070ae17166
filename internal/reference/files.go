package reference

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxFileList bounds a list of files, in bytes.
const maxFileList = 256 << 20

// ImportFiles reads a list of SHA-256 and path as sha256sum writes it: "DIGEST  PATH", "DIGEST *PATH", and the escaped form that begins
// with a backslash. Paths are kept as they stand there. A line of another form is refused, since a file would be missing from the list.
func ImportFiles(r io.Reader, o Options) (*Source, error) {
	b, digest, err := readWhole(r, &o, maxFileList)
	if err != nil {
		return nil, err
	}
	s := o.source(KindFiles, digest)
	number := 0
	for line := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n"), "\n") {
		number++
		f, err := parseFileLine(strings.TrimSuffix(line, "\r"))
		if err != nil {
			return nil, fmt.Errorf("%w: %s line %d: %w", ErrImport, o.File, number, err)
		}
		s.Files = append(s.Files, f)
	}
	return s, nil
}

func parseFileLine(line string) (File, error) {
	rest, escaped := strings.CutPrefix(line, `\`)
	if len(rest) < 67 || rest[64] != ' ' || (rest[65] != ' ' && rest[65] != '*') {
		return File{}, errors.New(`want "SHA-256  PATH", as sha256sum writes it`)
	}
	digest := strings.ToLower(rest[:64])
	if _, err := hex.DecodeString(digest); err != nil {
		return File{}, fmt.Errorf("%q is not a SHA-256", rest[:64])
	}
	path := rest[66:]
	if escaped {
		path = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(path)
	}
	return File{Path: path, SHA256: digest}, nil
}
