package reference

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// Limits on Debian packages.
const (
	MaxPackageData  = 16 << 30  // bytes of all files unpacked
	MaxPackageFiles = 1 << 20   // entries of the archive
	maxControlTar   = 64 << 20  // bytes of control.tar unpacked
	maxControl      = 1 << 20   // bytes of the control file
	maxDict         = 256 << 20 // bytes of window that a compressed member may ask for
	maxDebPath      = 4096      // bytes of a path
)

// arReader walks the members of an ar archive (deb(5), ar(5)): a magic line, then headers of 60 bytes with the content after each, padded
// to an even length.
type arReader struct {
	r    io.Reader
	left int64 // bytes of the current member not read yet
	odd  bool  // a padding byte follows it
}

func newArReader(r io.Reader) (*arReader, error) {
	var m [8]byte
	if _, err := io.ReadFull(r, m[:]); err != nil || string(m[:]) != "!<arch>\n" {
		return nil, errors.New("not a Debian package: no ar header")
	}
	return &arReader{r: r}, nil
}

// next skips to the next member and returns its name. It returns io.EOF after the last.
func (a *arReader) next() (string, error) {
	if _, err := io.Copy(io.Discard, a); err != nil {
		return "", err
	}
	if a.left > 0 {
		return "", io.ErrUnexpectedEOF
	}
	if a.odd {
		if _, err := io.ReadFull(a.r, make([]byte, 1)); err != nil {
			return "", noEOF(err)
		}
	}
	var h [60]byte
	if _, err := io.ReadFull(a.r, h[:]); err != nil {
		return "", err // io.EOF at a clean end
	}
	size, err := strconv.ParseInt(strings.TrimRight(string(h[48:58]), " "), 10, 64)
	if err != nil || size < 0 || string(h[58:]) != "`\n" {
		return "", errors.New("damaged ar header")
	}
	a.left, a.odd = size, size%2 == 1
	return strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/"), nil
}

// Read reads the current member.
func (a *arReader) Read(p []byte) (int, error) {
	if a.left == 0 {
		return 0, io.EOF
	}
	n, err := a.r.Read(p[:min(int64(len(p)), a.left)])
	a.left -= int64(n)
	if a.left > 0 {
		err = noEOF(err)
	}
	return n, err
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// unpack returns a reader of what is compressed in r, by the ending of name.
func unpack(r io.Reader, name string) (io.ReadCloser, error) {
	switch {
	case strings.HasSuffix(name, ".xz"):
		x, err := xz.NewReader(r, maxDict)
		return io.NopCloser(x), noEOF(err)
	case strings.HasSuffix(name, ".zst"):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDict))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case strings.HasSuffix(name, ".gz"):
		return gzip.NewReader(r)
	}
	return io.NopCloser(r), nil
}

// debPackage is a Debian package that is being read: first control, then the files of the data archive.
type debPackage struct {
	name, version, arch string
}

// readDeb reads a package and gives each regular file of its data archive to file, with its absolute path.
func readDeb(r io.Reader, file func(path string, size int64, r io.Reader) error) (*debPackage, error) {
	ar, err := newArReader(r)
	if err != nil {
		return nil, err
	}
	var p *debPackage
	for want := 0; ; {
		name, err := ar.next()
		switch {
		case errors.Is(err, io.EOF) && want == 3:
			return p, nil
		case err != nil:
			return nil, noEOF(err)
		case want == 0 && name == "debian-binary":
			if err := checkFormat(ar); err != nil {
				return nil, err
			}
		case want == 1 && memberOf(name, "control.tar"):
			if p, err = readControl(ar, name); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		case want == 2 && memberOf(name, "data.tar"):
			if err := readData(ar, name, file); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		case want > 0 && strings.HasPrefix(name, "_"): // deb(5): readers leave such members alone
			continue
		default:
			return nil, fmt.Errorf("member %q is out of place in a Debian package", name)
		}
		want++
	}
}

func memberOf(name, base string) bool {
	switch name {
	case base, base + ".gz", base + ".xz", base + ".zst":
		return true
	}
	return false
}

func checkFormat(r io.Reader) error {
	b, err := readAll(r, 64)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(b, []byte("2.")) {
		return fmt.Errorf("package format %q is not known, want 2.x", b)
	}
	return nil
}

// readControl finds package, version and architecture in the control archive.
func readControl(r io.Reader, name string) (*debPackage, error) {
	u, err := unpack(r, name)
	if err != nil {
		return nil, err
	}
	defer u.Close()
	t := tar.NewReader(io.LimitReader(u, maxControlTar))
	for {
		h, err := t.Next()
		if err != nil {
			return nil, fmt.Errorf("no control file: %w", noEOF(err))
		}
		if strings.TrimPrefix(h.Name, "./") != "control" || h.Typeflag != tar.TypeReg {
			continue
		}
		b, err := readAll(t, maxControl)
		if err != nil {
			return nil, err
		}
		return parseControl(string(b))
	}
}

func parseControl(text string) (*debPackage, error) {
	var p debPackage
	for line := range strings.SplitSeq(text, "\n") {
		key, value, ok := strings.Cut(line, ":")
		if !ok || strings.HasPrefix(line, " ") {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.ToLower(key) {
		case "package":
			p.name = value
		case "version":
			p.version = value
		case "architecture":
			p.arch = value
		}
	}
	for _, v := range []string{p.name, p.version, p.arch} {
		if v == "" || len(v) > 256 || strings.ContainsFunc(v, func(r rune) bool { return r <= 0x20 || r >= 0x7f || r == '/' }) {
			return nil, fmt.Errorf("control file names package %q, version %q, architecture %q", p.name, p.version, p.arch)
		}
	}
	return &p, nil
}

// readData walks the data archive. What no honest package holds is refused: paths that lead elsewhere, devices, or more than the limits.
func readData(r io.Reader, name string, file func(string, int64, io.Reader) error) error {
	u, err := unpack(r, name)
	if err != nil {
		return err
	}
	defer u.Close()
	t := tar.NewReader(u)
	var total int64
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			// Whatever follows the archive must still unpack: a damaged end would go unseen.
			_, err := io.Copy(io.Discard, io.LimitReader(u, maxControlTar))
			return err
		}
		if err != nil {
			return err
		}
		path, err := cleanPath(h.Name)
		if err != nil {
			return err
		}
		if total += h.Size; n >= MaxPackageFiles || h.Size < 0 || total > MaxPackageData || total < 0 {
			return fmt.Errorf("%s: more than %d files or %d bytes", path, MaxPackageFiles, int64(MaxPackageData))
		}
		switch h.Typeflag {
		case tar.TypeReg:
			if err := file(path, h.Size, t); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		case tar.TypeDir, tar.TypeSymlink, tar.TypeLink: // no content of their own
		default:
			return fmt.Errorf("%s: archive entry of type %q", path, h.Typeflag)
		}
	}
}

// cleanPath makes an absolute path of an archive's "./usr/bin/x".
func cleanPath(name string) (string, error) {
	path := strings.TrimPrefix(strings.TrimPrefix(name, "."), "/")
	path = strings.TrimSuffix(path, "/")
	if len(path) > maxDebPath || strings.ContainsFunc(path, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return "", fmt.Errorf("path %.80q is too long or holds control characters", name)
	}
	for part := range strings.SplitSeq(path, "/") {
		if path != "" && (part == "" || part == "." || part == "..") {
			return "", fmt.Errorf("path %q leads elsewhere", name)
		}
	}
	return "/" + path, nil
}
