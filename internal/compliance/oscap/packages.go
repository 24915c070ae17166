package oscap

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// How a root keeps its packages.
const (
	dpkg = "dpkg"
	rpm  = "rpm"
	none = "none" // no packages at all
)

// Limits on what is read of a status file.
const (
	maxStatus     = 64 << 20
	maxStatusLine = 1 << 20
	maxPackages   = 200_000
)

// packages is what we read of a root ourselves: the answers that the canary must get.
type packages struct {
	manager   string
	installed map[string]bool // names, of dpkg
	archs     []string        // of installed packages, the most frequent first
	tables    bool            // dpkg's tables of architectures are there
}

// readPackages looks at how the root keeps packages. It follows no link out of it.
func readPackages(path string) (*packages, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, failed(Packages, "the root to scan cannot be read: %v", err)
	}
	defer root.Close() //nolint:errcheck // read only
	p := &packages{manager: none}
	f, err := root.Open("var/lib/dpkg/status")
	switch {
	case err == nil:
		defer f.Close() //nolint:errcheck // read only
		p.manager = dpkg
		if err := p.status(io.LimitReader(f, maxStatus)); err != nil {
			return nil, failed(Packages, "dpkg's status file cannot be read: %v", err)
		}
		_, errCPU := root.Stat("usr/share/dpkg/cputable")
		_, errTuple := root.Stat("usr/share/dpkg/tupletable")
		p.tables = errCPU == nil && errTuple == nil
		if len(p.installed) > 0 {
			return p, nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, failed(Packages, "dpkg's status file cannot be read within the root: %v", err)
	}
	for _, other := range []struct{ file, what string }{
		{"lib/apk/db/installed", "apk"}, {"usr/lib/apk/db/installed", "apk"}, {"var/lib/dpkg/status.d", "dpkg's status.d (distroless)"},
		{"var/lib/pacman/local", "pacman"},
	} {
		if _, err := root.Stat(other.file); err == nil {
			return nil, failed(Packages, "the packages of this root are kept by %s, which oscap does not read: each test for a package would say \"absent\"", other.what)
		}
	}
	for _, file := range []string{"var/lib/rpm", "usr/lib/sysimage/rpm"} {
		if d, err := root.Open(file); err == nil {
			names, err := d.Readdirnames(1)
			_ = d.Close()
			if err == nil && len(names) > 0 {
				if p.manager == dpkg { // an rpm tool that came as a package of Debian
					break
				}
				p.manager = rpm
			}
		}
	}
	return p, nil
}

// status reads names and architectures of installed packages from a status file of dpkg.
func (p *packages) status(r io.Reader) error {
	p.installed = map[string]bool{}
	count := map[string]int{}
	var name, arch string
	var installed bool
	flush := func() error {
		if installed && name != "" {
			if len(p.installed) == maxPackages {
				return fmt.Errorf("more than %d packages", maxPackages)
			}
			p.installed[name] = true
			count[arch]++
		}
		name, arch, installed = "", "", false
		return nil
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxStatusLine)
	for lines.Scan() {
		line := lines.Bytes()
		key, value, _ := bytes.Cut(line, []byte(":"))
		v := strings.TrimSpace(string(value))
		switch {
		case len(bytes.TrimSpace(line)) == 0:
			if err := flush(); err != nil {
				return err
			}
		case string(key) == "Package":
			name = v
		case string(key) == "Architecture":
			arch = v
		case string(key) == "Status":
			installed = strings.HasSuffix(v, " ok installed")
		}
	}
	if err := errors.Join(lines.Err(), flush()); err != nil {
		return err
	}
	delete(count, "all")
	delete(count, "")
	for a := range count {
		if isWord(a) {
			p.archs = append(p.archs, a)
		}
	}
	slices.SortFunc(p.archs, func(a, b string) int { return 2*(count[b]-count[a]) + strings.Compare(a, b) })
	return nil
}

// isWord reports whether a name from a status file can stand in configuration and XML as it is.
func isWord(s string) bool {
	return s != "" && len(s) < 100 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789+.-") == ""
}

// present names an installed package that can be asked for; empty when there is none.
func (p *packages) present() string {
	for _, likely := range []string{"base-files", "dpkg", "libc6"} {
		if p.installed[likely] {
			return likely
		}
	}
	first := ""
	for name := range p.installed {
		if isWord(name) && (first == "" || name < first) {
			first = name
		}
	}
	return first
}

// aptConfig is the whole configuration of apt that oscap sees: nothing of the host's, no program of the root, no caches in it. A cache that the
// root brings along would be believed.
func (p *packages) aptConfig() []byte {
	var b bytes.Buffer
	for _, name := range []string{"parts", "main", "sourcelist", "sourceparts", "preferences", "preferencesparts"} {
		fmt.Fprintf(&b, "Dir::Etc::%s \"/dev/null\";\n", name)
	}
	b.WriteString("Dir::Cache \"/.touchstone-none\";\nDir::State::lists \"/.touchstone-none\";\nDir::Bin::dpkg \"/.touchstone-none\";\n")
	if len(p.archs) > 0 {
		fmt.Fprintf(&b, "APT::Architecture \"%s\";\nAPT::Architectures {", p.archs[0])
		for _, a := range p.archs {
			fmt.Fprintf(&b, " \"%s\";", a)
		}
		b.WriteString(" };\n")
	}
	return b.Bytes()
}
