package oscap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links of a root may lead out of it when they are followed from outside.
const maxLinks = 200_000

// nowhere is what a link is given that leads nowhere within its root.
const nowhere = ".touchstone-none"

// confine finds the symbolic links of the root which, followed from outside, lead out of it: absolute ones, and those with too many "..". oscap's probes
// follow them from outside, and would judge the host's files. For each of them the overlay gets a link that leads to where the link leads for a
// process whose root this is.
func (w *work) confine(root *os.Root) error {
	in, err := newInside(w.Root)
	if err != nil {
		return failed(BadRoot, "%v", err)
	}
	defer in.close()
	n := 0
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && in.mounted(name) {
			return fs.SkipDir // the overlay shows what is below it
		}
		if err != nil || d.Type() != fs.ModeSymlink {
			return err
		}
		if _, err := os.Lstat(filepath.Join(w.dir, "above", name)); err == nil {
			return nil // hidden already
		}
		leads, target, err := in.leads(name)
		if err != nil || !leads {
			return err
		}
		if n++; n > maxLinks {
			return fmt.Errorf("more than %d symbolic links lead out of it", maxLinks)
		}
		return w.above(root, name, func(to string) error { return os.Symlink(target, to) })
	})
	if err != nil {
		return failed(BadRoot, "symbolic links of the root cannot be followed inside it: %v", err)
	}
	return nil
}

// above makes something in the overlay, in folders like those of the root: mode and owner of a folder above are what oscap sees.
func (w *work) above(root *os.Root, name string, create func(to string) error) error {
	dir := filepath.Join(w.dir, "above")
	parent := path.Dir(name)
	for i := range len(parent) + 1 {
		if parent == "." || i < len(parent) && parent[i] != '/' {
			continue
		}
		at := filepath.Join(dir, parent[:i])
		switch err := os.Mkdir(at, 0o755); { //nolint:gosec // as in the root
		case errors.Is(err, fs.ErrExist):
			continue
		case err != nil:
			return err
		}
		st, err := root.Lstat(parent[:i])
		if errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir() { // hidden by what lies above it
			continue
		}
		if err == nil {
			err = like(at, st)
		}
		if err != nil {
			return err
		}
	}
	return create(filepath.Join(dir, name))
}

// inside follows paths as a process does whose root a folder is.
type inside struct {
	fd    int
	path  string // of the folder, without links
	mount uint64 // ID; 0: the kernel does not tell (before Linux 5.8)
}

func newInside(dir string) (*inside, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	in := &inside{fd: fd, path: at}
	in.mount = in.mountOf(".")
	return in, nil
}

// mounted reports whether a folder belongs to another mount than the root, such as the /proc of a container that runs.
func (in *inside) mounted(name string) bool {
	id := in.mountOf(name)
	return in.mount != 0 && id != 0 && id != in.mount
}

func (in *inside) mountOf(name string) uint64 {
	var st unix.Statx_t
	if unix.Statx(in.fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st) != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return 0
	}
	return st.Mnt_id
}

func (in *inside) close() { _ = unix.Close(in.fd) }

// leads reports whether a link, followed from outside, leads out; and then a relative target that leads to the same place inside.
func (in *inside) leads(name string) (bool, string, error) {
	fd, err := in.open(name, unix.RESOLVE_BENEATH)
	if err == nil {
		_ = unix.Close(fd)
		return false, "", nil
	}
	if dangling(err) {
		return false, "", nil
	}
	if !errors.Is(err, unix.EXDEV) {
		return false, "", fmt.Errorf("%s: %w", name, err)
	}
	fd, err = in.open(name, unix.RESOLVE_IN_ROOT)
	if dangling(err) {
		return true, nowhere, nil
	}
	if err != nil {
		return false, "", fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(fd) //nolint:errcheck // it was a look only
	at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return false, "", err
	}
	rest, ok := strings.CutPrefix(at, strings.TrimSuffix(in.path, "/"))
	if !ok || rest != "" && rest[0] != '/' {
		return false, "", fmt.Errorf("%s: it leads to %s", name, at)
	}
	target, err := filepath.Rel(filepath.Join("/", path.Dir(name)), filepath.Join("/", rest))
	return true, target, err
}

func (in *inside) open(name string, how uint64) (int, error) {
	for try := 0; ; try++ {
		fd, err := unix.Openat2(in.fd, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: how | unix.RESOLVE_NO_MAGICLINKS})
		if try < 10 && (errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)) { // something was renamed meanwhile
			continue
		}
		if errors.Is(err, unix.ENOSYS) {
			return fd, errors.New("the kernel has no openat2 (Linux 5.6): links cannot be kept inside the root")
		}
		return fd, err
	}
}

func dangling(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENAMETOOLONG)
}

// like gives a folder mode, owner and time of another.
func like(at string, st fs.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: no owner", at)
	}
	if err := os.Chown(at, int(sys.Uid), int(sys.Gid)); err != nil {
		return err
	}
	return os.Chmod(at, st.Mode())
}
