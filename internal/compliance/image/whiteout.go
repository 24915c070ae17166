package image

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Names by which a layer hides what is in those below it (OCI image specification 1.1, layer.md).
const (
	whiteout = ".wh."
	opaque   = ".wh..opq" // after whiteout
)

// hide hides a name of the lower layers in a folder, or all of them. What this layer itself made stays, whichever comes first.
func (l *layers) hide(dir int, folder, name string) error {
	if name == "" || name == "." || name == ".." {
		return errors.New("a whiteout of no name")
	}
	if l.tree.lastFD != dir { // what was opened last may be what is hidden
		l.tree.forget()
	}
	if name == opaque {
		if l.first {
			return nil
		}
		names, fd, err := children(dir, ".") // dir itself has no right to read
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		return l.hideAll(fd, folder, names)
	}
	if strings.HasPrefix(name, whiteout) {
		return nil // of other tools: .wh..wh.plnk and the like name nothing
	}
	if l.first {
		return nil
	}
	return l.hideOne(dir, path.Join(folder, name), name)
}

func (l *layers) hideAll(fd int, folder string, names []string) error {
	for _, n := range names {
		if err := l.hideOne(fd, path.Join(folder, n), n); err != nil {
			return err
		}
	}
	return nil
}

func (l *layers) hideOne(dir int, real, name string) error {
	if !l.upper[real] {
		delete(l.absent, real)
		return removeAll(dir, name)
	}
	names, fd, err := children(dir, name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOENT) {
		return nil // a file of this layer
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	return l.hideAll(fd, real, names)
}
