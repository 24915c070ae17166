package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Facts are what was seen of an image and is not, or not only, in the tree.
type Facts struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// Devices is how many device nodes and named pipes the image has: none was made.
	Devices int `json:"devices,omitempty"`
	// SetID are programs that run as their owner or group, at most maxNoted.
	SetID []string `json:"setID,omitempty"`
	// Capabilities are programs with file capabilities, at most maxNoted.
	Capabilities []string `json:"capabilities,omitempty"`
	// Owned: files belong to whom they belong to in the image. Only root can do that.
	Owned bool `json:"owned"`
}

const (
	maxNoted  = 256
	maxNested = 256 // folders
)

// layers applies layers to a tree, one after the other.
type layers struct {
	tree  *tree
	limit Limits
	facts *Facts
	buf   []byte

	first bool            // no layer is below: nothing can be hidden
	upper map[string]bool // names, with no link in them, that this layer made
	// absent are names whose files were not made: hard links to them are not made either.
	absent  map[string]bool
	links   []winding
	targets map[string]string // of links that were rewritten: what the image says
}

func newLayers(t *tree, limit Limits, facts *Facts) *layers {
	return &layers{tree: t, limit: limit, facts: facts, buf: make([]byte, 1<<18), first: true, absent: map[string]bool{}, targets: map[string]string{}}
}

// apply applies one layer.
func (l *layers) apply(ctx context.Context, r io.Reader) error {
	l.upper = map[string]bool{}
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = l.entry(h, in)
		}
		if err != nil {
			return err
		}
	}
	l.first = false
	return nil
}

// entry applies one entry of a layer.
func (l *layers) entry(h *tar.Header, in io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if l.facts.Files++; l.facts.Files+l.tree.made > l.limit.Files {
		return fmt.Errorf("the image has more than %d files", l.limit.Files)
	}
	if strings.ContainsRune(h.Name, 0) || strings.ContainsRune(h.Linkname, 0) {
		return errors.New("a name in the layer has a zero byte in it")
	}
	name := path.Clean("/" + h.Name)
	if name == "/" {
		return nil // the root's own mode: who may enter is ours to say
	}
	parent, base := path.Split(name)
	dir, real, err := l.where(path.Clean(parent))
	if err != nil {
		return err
	}
	if hidden, ok := strings.CutPrefix(base, whiteout); ok {
		if err := l.hide(dir, real, hidden); err != nil {
			return fmt.Errorf("%q: %w", clip(h.Name), err)
		}
		return nil
	}
	e := &entry{Header: h, dir: dir, folder: real, base: base, real: path.Join(real, base)}
	if err := l.put(e, in); err != nil {
		return fmt.Errorf("%q: %w", clip(h.Name), err)
	}
	l.note(e.real)
	return nil
}

// where opens the folder of an entry, and says what it is with no link in its name.
func (l *layers) where(parent string) (dir int, real string, err error) {
	if strings.Count(parent, "/") > maxNested {
		return -1, "", fmt.Errorf("%q: folders in more than %d others", clip(parent), maxNested)
	}
	if dir, err = l.tree.folder(parent); err != nil {
		return -1, "", err
	}
	if real, err = l.tree.within(dir); err == nil && strings.Count(real, "/") > maxNested {
		err = fmt.Errorf("%q: folders in more than %d others", clip(parent), maxNested)
	}
	return dir, real, err
}

// entry is one entry and where it goes.
type entry struct {
	*tar.Header
	dir          int    // the folder
	folder, base string // its name with no link in it, and the entry's own
	real         string // both
}

// note remembers what this layer made, with the folders above it.
func (l *layers) note(real string) {
	if l.first {
		return
	}
	for ; real != "/" && !l.upper[real]; real = path.Dir(real) {
		l.upper[real] = true
	}
}

// put makes what an entry says, in place of what is there.
func (l *layers) put(e *entry, in io.Reader) error {
	delete(l.absent, e.real)
	if e.Typeflag != tar.TypeDir {
		if err := l.clear(e); err != nil {
			return err
		}
	}
	switch e.Typeflag {
	case tar.TypeReg, tar.TypeRegA: //nolint:staticcheck // old archives have it
		return l.file(e, in)
	case tar.TypeDir:
		return l.folder(e)
	case tar.TypeSymlink:
		return l.symlink(e)
	case tar.TypeLink:
		return l.hardlink(e)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		l.facts.Devices++
		l.absent[e.real] = true
		return nil
	}
	return fmt.Errorf("it is of kind %q, which no layer has", e.Typeflag)
}

// clear takes away what is in an entry's place.
func (l *layers) clear(e *entry) error {
	err := unix.Unlinkat(e.dir, e.base, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		if err == nil {
			l.tree.forgetBelow(e)
		}
		return nil
	}
	err = removeAll(e.dir, e.base)
	l.tree.forgetBelow(e)
	return err
}

func (l *layers) file(e *entry, in io.Reader) error {
	if l.facts.Bytes += e.Size; e.Size < 0 || l.facts.Bytes > l.limit.Bytes {
		return fmt.Errorf("the image has more than %d bytes", l.limit.Bytes)
	}
	fd, err := unix.Openat(e.dir, e.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(fdWriter(fd), struct{ io.Reader }{in}, l.buf)
	if err == nil && l.facts.Owned {
		err = unix.Fchown(fd, e.Uid, e.Gid)
	}
	if err == nil { // after the owner: a change of owner takes the set-ID bits away
		err = unix.Fchmod(fd, l.mode(e))
	}
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return err
	}
	if e.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 && len(l.facts.SetID) < maxNoted {
		l.facts.SetID = append(l.facts.SetID, clip(e.real))
	}
	if e.PAXRecords["SCHILY.xattr.security.capability"] != "" && len(l.facts.Capabilities) < maxNoted {
		l.facts.Capabilities = append(l.facts.Capabilities, clip(e.real))
	}
	return nil
}

// mode is that of an entry. Who is not root must be able to read and remove what it made.
func (l *layers) mode(e *entry) uint32 {
	m := uint32(e.Mode) & 0o7777 //nolint:gosec // masked
	if !l.facts.Owned {
		if m |= 0o400; e.Typeflag == tar.TypeDir {
			m |= 0o700
		}
	}
	return m
}

func (l *layers) folder(e *entry) error {
	err := unix.Mkdirat(e.dir, e.base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err = unix.Fstatat(e.dir, e.base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err = l.clear(e); err == nil {
				err = unix.Mkdirat(e.dir, e.base, 0o700)
			}
		}
	}
	if err == nil && l.facts.Owned {
		err = unix.Fchownat(e.dir, e.base, e.Uid, e.Gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil { // it is no link: nobody else is here
		err = unix.Fchmodat(e.dir, e.base, l.mode(e), 0)
	}
	return err
}

func (l *layers) symlink(e *entry) error {
	if e.Linkname == "" || len(e.Linkname) >= unix.PathMax {
		return errors.New("the link has no target, or one that is too long")
	}
	target, ok := inward(e.folder, e.Linkname)
	if !ok {
		target = e.Linkname
		l.links = append(l.links, winding{e.folder, e.base, e.Linkname})
	}
	if delete(l.targets, e.real); target != e.Linkname || !ok {
		l.targets[e.real] = e.Linkname
	}
	if err := unix.Symlinkat(target, e.dir, e.base); err != nil {
		return err
	}
	if l.facts.Owned {
		return unix.Fchownat(e.dir, e.base, e.Uid, e.Gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

// hardlink gives a file of the image another name.
func (l *layers) hardlink(e *entry) error {
	parent, base := path.Split(path.Clean("/" + e.Linkname))
	from, err := l.tree.resolve(parent, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", clip(e.Linkname), err)
	}
	defer unix.Close(from) //nolint:errcheck // nothing was written
	folder, err := l.tree.within(from)
	if err != nil {
		return err
	}
	old := path.Join(folder, base)
	if l.absent[old] {
		l.absent[e.real] = true
		return nil
	}
	if target, ok := l.targets[old]; ok { // a link that was rewritten for its own folder
		e.Linkname = target
		return l.symlink(e)
	}
	if err := unix.Linkat(from, base, e.dir, e.base, 0); err != nil {
		return fmt.Errorf("hard link to %q: %w", clip(e.Linkname), err)
	}
	return nil
}

// fdWriter writes to a descriptor.
type fdWriter int

func (w fdWriter) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Write(int(w), b[done:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}
