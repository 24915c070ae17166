package oscap

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// onOwnThread runs f on a thread that ends with it, and with the thread its namespaces and priority. Processes that f starts inherit them.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	var begin func(held chan<- struct{})
	begin = func(held chan<- struct{}) {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // the first thread would live on, in the namespace: hold it until another took over
			next := make(chan struct{})
			go begin(next)
			<-next
			runtime.UnlockOSThread()
			return
		}
		if held != nil {
			close(held)
		}
		done <- f()
	}
	go begin(nil)
	return <-done
}

// Priorities of oscap (setpriority(2), ioprio_set(2)): it runs when nobody else wants to.
const (
	lowest         = 19
	ioprioWho      = 1       // IOPRIO_WHO_PROCESS
	ioprioIdle     = 3 << 13 // IOPRIO_CLASS_IDLE
	overlayOptions = unix.MS_RDONLY | unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV
)

// isolate makes the namespaces, mounts the root, and lowers the priority of the calling thread.
func (w *work) isolate() error {
	flags := unix.CLONE_NEWNS
	if w.Root != "" {
		flags |= unix.CLONE_NEWNET // content of an image has nothing to ask the network
	}
	if err := unix.Unshare(flags); err != nil {
		return failed(NoRights, "a private mount namespace is not allowed (%v): a scan needs root with CAP_SYS_ADMIN", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return failed(NoRights, "make mounts private: %v", err)
	}
	lower()
	if w.Root == "" {
		return nil
	}
	root, err := os.Open(w.Root)
	if err != nil {
		return failed(Packages, "the root to scan cannot be read: %v", err)
	}
	defer root.Close() //nolint:errcheck // a folder
	options := fmt.Sprintf("lowerdir=%s:/proc/self/fd/%d", filepath.Join(w.dir, "above"), root.Fd())
	if err := unix.Mount("touchstone", filepath.Join(w.dir, "root"), "overlay", overlayOptions, options); err != nil {
		return failed(NoRights, "the root %s cannot be mounted read-only as an overlay: %v", w.Root, err)
	}
	return nil
}

// overlay makes what lies above the root that is scanned: the marker of a container, the tables without which oscap cannot read a dpkg database that
// is there, and links that stay inside.
func (w *work) overlay() error {
	if w.Root == "" {
		return nil
	}
	files := map[string]string{}
	if w.Container {
		files["run/.containerenv"] = ""
	}
	if w.packages.manager == dpkg && !w.packages.tables {
		for _, name := range []string{"cputable", "tupletable"} {
			path := "usr/share/dpkg/" + name
			b, err := os.ReadFile(filepath.Join("/", w.chroot, path))
			if err != nil {
				return failed(Packages, "dpkg's %s is neither in the root nor here: %v", name, err)
			}
			files[path] = string(b)
		}
	}
	root, err := os.OpenRoot(w.Root)
	if err != nil {
		return failed(BadRoot, "the root to scan cannot be read: %v", err)
	}
	defer root.Close() //nolint:errcheck // read only
	st, err := root.Stat(".")
	if err != nil {
		return failed(BadRoot, "%v", err)
	}
	for _, dir := range []string{"root", "above"} {
		at := filepath.Join(w.dir, dir)
		if err := os.Mkdir(at, 0o755); err != nil { //nolint:gosec // a root of a file system, in a private folder
			return failed(NoRights, "%v", err)
		}
		if err := like(at, st); err != nil {
			return failed(NoRights, "%v", err)
		}
	}
	for name, content := range files {
		err := w.above(root, name, func(to string) error { return os.WriteFile(to, []byte(content), 0o644) }) //nolint:gosec // as in the root
		if err != nil {
			return failed(BadRoot, "%s cannot be laid above the root: %v", name, err)
		}
	}
	return w.confine(root)
}
