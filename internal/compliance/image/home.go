package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// home is the folder that holds one root: nobody but its owner may enter it, so that programs with set-ID bits in the image serve nobody. Its lock is
// held as long as the process lives that made it.
type home struct {
	dir  string
	lock *os.File
}

const (
	homePrefix = "touchstone-image-root-"
	lockName   = "lock"
	// young is how long a folder may be without a lock: it is being made.
	young = time.Minute
)

func newHome(temp string) (*home, error) {
	if temp == "" {
		temp = os.TempDir()
	}
	dir, err := os.MkdirTemp(temp, homePrefix) // mode 0700
	if err != nil {
		return nil, err
	}
	h := &home{dir: dir}
	if h.lock, err = os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
		err = unix.Flock(int(h.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = os.Mkdir(h.root(), 0o755) //nolint:gosec // a root is for all; the folder around it is not
	}
	if err != nil {
		return nil, errors.Join(err, h.remove())
	}
	return h, nil
}

func (h *home) root() string { return filepath.Join(h.dir, "root") }

// remove removes everything and lets go of the lock last.
func (h *home) remove() error {
	err := discard(h.dir)
	if h.lock != nil {
		err = errors.Join(err, h.lock.Close())
	}
	return err
}

func discard(dir string) error {
	parent, err := unix.Open(filepath.Dir(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(parent) //nolint:errcheck // nothing was written
	return removeAll(parent, filepath.Base(dir))
}

// Sweep removes what processes that were killed left in a temporary folder ("": that of the system), and returns how many roots that were. What
// another process uses, or another user's, stays.
func Sweep(temp string) (int, error) {
	if temp == "" {
		temp = os.TempDir()
	}
	entries, err := os.ReadDir(temp)
	if err != nil {
		return 0, err
	}
	swept, failed := 0, []error(nil)
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), homePrefix) {
			continue
		}
		dir := filepath.Join(temp, e.Name())
		gone, err := sweepOne(dir)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", dir, err))
		}
		if gone {
			swept++
		}
	}
	return swept, errors.Join(failed...)
}

func sweepOne(dir string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil || int(st.Uid) != os.Geteuid() {
		return false, nil //nolint:nilerr // gone, or another user's
	}
	fd, err := unix.Open(filepath.Join(dir, lockName), unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		if time.Since(time.Unix(st.Mtim.Unix())) < young {
			return false, nil
		}
	case err != nil:
		return false, err
	default:
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) {
				return false, nil
			}
			return false, err
		}
		if time.Since(time.Unix(st.Mtim.Unix())) < young/60 {
			return false, nil // made this second: its maker has not locked it yet
		}
	}
	return true, discard(dir)
}
