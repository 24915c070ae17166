package oscap

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/tailoring"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

// MaxContent is the largest data stream that is taken, in bytes.
const MaxContent = 128 << 20

// work is one scan on its way.
type work struct {
	*Runner
	*Scan
	chroot    string // where the host's files are, when not here
	program   string // as seen within chroot
	dir       string // private folder, as we see it
	packages  *packages
	canary    []probe
	catalogue *xccdf.Catalogue
	out       Outcome
}

// inside is the path of a file of the private folder as oscap sees it.
func (w *work) inside(name string) string {
	path := filepath.Join(w.dir, name)
	if w.chroot != "" {
		path = "/" + strings.TrimPrefix(strings.TrimPrefix(path, w.chroot), "/")
	}
	return path
}

func (w *work) remove() { _ = os.RemoveAll(w.dir) } // what is left is in a private folder of the temporary one

// prepare finds the program and writes everything that oscap reads into a private folder.
func (r *Runner) prepare(s *Scan) (_ *work, err error) {
	w := &work{Runner: r, Scan: s}
	if h := filepath.Clean(r.HostRoot); r.HostRoot != "" && h != "/" {
		w.chroot = h
	}
	if w.program, err = w.find(); err != nil {
		return nil, err
	}
	if w.dir, err = os.MkdirTemp(filepath.Join(w.chroot, "/var/tmp"), "touchstone-oscap-"); err != nil {
		return nil, failed(NoRights, "no private folder: %v", err)
	}
	defer func() {
		if err != nil {
			w.remove()
		}
	}()
	if err := w.readContent(); err != nil {
		return nil, err
	}
	root := s.Root
	if root == "" {
		root = filepath.Join("/", w.chroot)
	}
	if w.packages, err = readPackages(root); err != nil {
		return nil, err
	}
	file, err := somethingThere(root)
	if err != nil {
		return nil, err
	}
	if err := w.checkTailoring(); err != nil {
		return nil, err
	}
	w.canary = w.packages.canary(file, newSecret(), w.catalogue.PackagePatterns)
	files := map[string][]byte{"apt.conf": w.packages.aptConfig(), "canary.xml": canaryDocument(w.canary)}
	if len(s.Tailoring) > 0 {
		files["tailoring.xml"] = s.Tailoring
		sum := sha256.Sum256(s.Tailoring)
		w.out.Tailoring = hex.EncodeToString(sum[:])
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(w.dir, name), b, 0o600); err != nil {
			return nil, failed(NoRights, "%v", err)
		}
	}
	return w, w.overlay()
}

// find returns the path of oscap.
func (w *work) find() (string, error) {
	if w.Program != "" {
		return w.Program, nil
	}
	if w.chroot == "" {
		path, err := exec.LookPath("oscap")
		if err != nil {
			return "", failed(NoTool, "oscap is not installed: on Debian, `apt install openscap-scanner`")
		}
		return path, nil
	}
	for _, path := range []string{"/usr/bin/oscap", "/usr/local/bin/oscap", "/bin/oscap"} {
		if _, err := os.Stat(filepath.Join(w.chroot, path)); err == nil {
			return path, nil
		}
	}
	return "", failed(NoTool, "oscap is not installed on the host (%s): on Debian, `apt install openscap-scanner`", w.chroot)
}

// openContent opens a data stream: a file, or the baseline by its name.
func openContent(name string) (io.ReadCloser, error) {
	if name == content.Name {
		return io.NopCloser(bytes.NewReader(content.Baseline())), nil
	}
	return os.Open(name)
}

// readContent copies the content while it is hashed, so that what is evaluated is what the digest says, and looks for the profile.
func (w *work) readContent() error {
	in, err := openContent(w.Content)
	if err != nil {
		return failed(BadContent, "the content cannot be read: %v", err)
	}
	defer in.Close() //nolint:errcheck // read only
	copied, err := os.OpenFile(filepath.Join(w.dir, "content.xml"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return failed(NoRights, "%v", err)
	}
	defer copied.Close() //nolint:errcheck // Close below tells
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(copied, h), io.LimitReader(in, MaxContent+1))
	if err == nil && n > MaxContent {
		err = errors.New("it is too large")
	}
	if err == nil {
		_, err = copied.Seek(0, io.SeekStart)
	}
	if err != nil {
		return failed(BadContent, "the content %s cannot be read: %v", w.Content, err)
	}
	w.out.Content = hex.EncodeToString(h.Sum(nil))
	if w.catalogue, err = xccdf.ReadCatalogue(copied); err != nil {
		return failed(BadContent, "the content %s cannot be used: %v", w.Content, err)
	}
	if len(w.Tailoring) == 0 && !w.catalogue.Has(w.Profile) {
		return failed(NoProfile, "the content %s has no profile %q: it has %s", w.Content, w.Profile, strings.Join(w.catalogue.ProfileIDs(), ", "))
	}
	return nil
}

// checkTailoring looks for what the tailoring names and the content does not have: oscap would pass over it, and a rule that was asked for be left out.
func (w *work) checkTailoring() error {
	if len(w.Tailoring) == 0 {
		return nil
	}
	missing, err := tailoring.Missing(w.Tailoring, w.catalogue)
	if err != nil {
		return failed(BadTailoring, "%v", err)
	}
	if len(missing) > 0 {
		return failed(BadTailoring, "the content %s does not have what the tailoring names: %s", w.catalogue.ID, strings.Join(missing[:min(len(missing), 5)], ", "))
	}
	return nil
}

// somethingThere names a file of the root that the canary can ask for.
func somethingThere(path string) (string, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return "", failed(Packages, "the root to scan cannot be read: %v", err)
	}
	defer root.Close() //nolint:errcheck // read only
	for _, name := range []string{"var/lib/dpkg/status", "etc/os-release", "usr/lib/os-release", "etc/passwd", "etc/hostname"} {
		if i, err := root.Lstat(name); err == nil && i.Mode().IsRegular() {
			return "/" + name, nil
		}
	}
	return "", failed(Packages, "the root to scan has neither packages, os-release nor passwd: there is nothing that the content could judge")
}
