package oval

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Bounds of what a root says of its packages.
const (
	maxStatus      = 64 << 20 // bytes of one file
	maxLine        = 1 << 20
	maxPackages    = 200_000
	maxStatusParts = 20_000 // files of status.d
)

// Package is an installed package.
type Package struct{ Name, Version, Arch string }

// Packages are those of a root by name; of one name there may be several, for several architectures.
type Packages map[string][]Package

// ErrNoPackages says that a root keeps no packages as dpkg does: nothing can be said of it.
var ErrNoPackages = errors.New("the image has no packages of dpkg: this feed says nothing of it")

// ReadPackages reads what dpkg knows below a root: its status file, and the parts that images without dpkg have (var/lib/dpkg/status.d). It follows no link
// out of the root.
func ReadPackages(dir string) (Packages, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // it was read
	all, total := Packages{}, 0
	read := func(name string, part bool) error {
		f, err := openRegular(root, name)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // it was read
		return parseStatus(f, part, func(p Package) error {
			if total++; total > maxPackages {
				return fmt.Errorf("more than %d packages", maxPackages)
			}
			all[p.Name] = append(all[p.Name], p)
			return nil
		})
	}
	if err := read("var/lib/dpkg/status", false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("dpkg's status: %w", err)
	}
	const parts = "var/lib/dpkg/status.d"
	entries, err := fs.ReadDir(root.FS(), parts)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", parts, err)
	}
	if len(entries) > maxStatusParts {
		return nil, fmt.Errorf("%s has more than %d files", parts, maxStatusParts)
	}
	for _, e := range entries {
		if e.IsDir() || strings.HasSuffix(e.Name(), ".md5sums") {
			continue
		}
		if err := read(path.Join(parts, e.Name()), true); err != nil {
			return nil, fmt.Errorf("%s: %w", parts, err)
		}
	}
	if len(all) == 0 {
		return nil, ErrNoPackages
	}
	return all, nil
}

// openRegular opens a regular file: a pipe would keep whoever opens it.
func openRegular(root *os.Root, name string) (*os.File, error) {
	st, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxStatus {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", name, maxStatus)
	}
	return root.Open(name)
}

// parseStatus reads paragraphs. Whatever is unpacked counts, configured or not; a part of status.d has no state and is there.
func parseStatus(r io.Reader, part bool, add func(Package) error) error {
	lines := bufio.NewScanner(io.LimitReader(r, maxStatus))
	lines.Buffer(nil, maxLine)
	p, there := Package{}, part
	flush := func() error {
		done, ok := p, there
		p, there = Package{}, part
		if !ok || done.Name == "" {
			return nil
		}
		if done.Version == "" {
			return fmt.Errorf("package %.80q has no version", done.Name)
		}
		return add(done)
	}
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 {
			if err := flush(); err != nil {
				return err
			}
			continue
		}
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || line[0] == ' ' {
			continue
		}
		switch string(key) { // a folded line begins with a space
		case "Package":
			p.Name = string(bytes.TrimSpace(value))
		case "Version":
			p.Version = string(bytes.TrimSpace(value))
		case "Architecture":
			p.Arch = string(bytes.TrimSpace(value))
		case "Status":
			f := bytes.Fields(value)
			there = len(f) == 3 && string(f[2]) != "not-installed" && string(f[2]) != "config-files"
		}
	}
	return errors.Join(lines.Err(), flush())
}
