package image

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tree is a folder in which the kernel resolves names as if it were the root.
type tree struct {
	fd  int
	dir string // where it is, without links
	// The folder that was opened last: entries of a layer come folder by folder.
	last   string
	lastFD int
	made   int // folders that no layer named
}

func openTree(dir string) (*tree, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	t := &tree{fd: fd, lastFD: -1}
	if t.dir, err = place(fd); err != nil {
		unix.Close(fd) //nolint:errcheck // nothing was written
		return nil, err
	}
	return t, nil
}

func (t *tree) close() {
	t.forget()
	unix.Close(t.fd) //nolint:errcheck // nothing was written
}

// forget closes the folder that was opened last: names may lead elsewhere now.
func (t *tree) forget() {
	if t.lastFD >= 0 {
		unix.Close(t.lastFD) //nolint:errcheck // nothing was written
	}
	t.last, t.lastFD = "", -1
}

// forgetBelow forgets the folder that was opened last when it may be below, or reached through, what was in an entry's place. The entry's own folder
// stays open: it is not.
func (t *tree) forgetBelow(e *entry) {
	if t.lastFD != e.dir {
		t.forget()
	}
}

// place tells where a descriptor's file is.
func place(fd int) (string, error) { return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)) }

// within returns the name, from the root of the tree, of the file of a descriptor: what its name was with no link in it.
func (t *tree) within(fd int) (string, error) {
	p, err := place(fd)
	if err != nil {
		return "", err
	}
	rest, ok := strings.CutPrefix(p, t.dir)
	if !ok || rest != "" && rest[0] != '/' {
		return "", fmt.Errorf("%q is not within the image", p)
	}
	return "/" + strings.TrimPrefix(rest, "/"), nil
}

// resolve opens a name with the tree as its root.
func (t *tree) resolve(name string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV}
	name = "./" + strings.TrimPrefix(name, "/")
	for {
		fd, err := unix.Openat2(t.fd, name, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// folder opens the folder of a name, and makes it and those above it when they are missing. The descriptor is the tree's own.
func (t *tree) folder(name string) (int, error) {
	if name == "/" {
		return t.fd, nil
	}
	if t.lastFD >= 0 && name == t.last {
		return t.lastFD, nil
	}
	fd, err := t.resolve(name, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		fd, err = t.makeFolder(name, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("folder %q: %w", clip(name), err)
	}
	t.forget()
	t.last, t.lastFD = name, fd
	return fd, nil
}

// makeFolder makes a folder that a layer did not name and put something in, as other tools do. A link that leads to nothing gets its target made.
func (t *tree) makeFolder(name string, links int) (int, error) {
	parent, base := path.Split(name)
	parent = path.Clean(parent)
	up, err := t.resolve(parent, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) && parent != "/" {
		up, err = t.makeFolder(parent, links)
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(up) //nolint:errcheck // nothing was written
	if err = unix.Mkdirat(up, base, 0o755); err == nil {
		t.made++
	} else if !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	fd, err := t.resolve(name, unix.O_PATH|unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) || links == maxLinks {
		return fd, err
	}
	target, err := t.target(up, base)
	if err != nil {
		return -1, err
	}
	return t.makeFolder(target, links+1)
}

// maxLinks is how many links that lead to nothing are followed for one name.
const maxLinks = 8

// target returns what a link in a folder leads to, as a name from the root of the tree.
func (t *tree) target(dir int, base string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, base, buf)
	if err != nil {
		return "", err
	}
	to := string(buf[:n])
	if strings.HasPrefix(to, "/") {
		return path.Clean(to), nil
	}
	folder, err := t.within(dir)
	return path.Join(folder, to), err
}

// removeAll removes what has a name in a folder, and everything below it. It follows no link.
func removeAll(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	names, fd, err := children(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	for _, n := range names {
		if err := removeAll(fd, n); err != nil {
			return err
		}
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// children opens a folder in a folder and names what is in it.
func children(dir int, name string) ([]string, int, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, -1, err
	}
	again, err := unix.Dup(fd)
	if err != nil {
		unix.Close(fd) //nolint:errcheck // nothing was written
		return nil, -1, err
	}
	f := os.NewFile(uintptr(again), name)
	names, err := f.Readdirnames(-1)
	f.Close() //nolint:errcheck // nothing was written
	if err != nil {
		unix.Close(fd) //nolint:errcheck // nothing was written
		return nil, -1, err
	}
	return names, fd, nil
}
