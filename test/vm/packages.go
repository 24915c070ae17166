package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// tools are the Debian packages whose programs and files the lab itself uses.
var tools = []string{
	"qemu-system-x86", "qemu-utils", "ovmf", "swtpm", "swtpm-tools", "sbsigntool", "mtools", "dosfstools", "gdisk", "kmod", "binutils",
}

// bootPackages are downloaded and unpacked, not installed: what machines boot from, beside the kernel.
var bootPackages = []string{"shim-signed", "shim-helpers-amd64-signed", "grub-efi-amd64-signed", "systemd-boot-efi", "busybox-static"}

// kernelPackage is the Debian package that always depends on the current kernel for virtual machines.
const kernelPackage = "linux-image-cloud-amd64"

// Package is a downloaded and unpacked Debian package.
type Package struct {
	Name string
	Deb  string // path of the .deb file: what references are imported from
	Root string // folder with its files
}

// Packages returns what machines with the given kernel package boot from ("" is the current one), sorted by name.
func (l *Lab) Packages(kernel string) []Package {
	if kernel == "" {
		kernel = l.kernel
	}
	var ps []Package
	for _, p := range l.packages {
		if p.Name == kernel || !slices.Contains(l.Kernels(), p.Name) {
			ps = append(ps, *p)
		}
	}
	slices.SortFunc(ps, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return ps
}

// installTools installs the tools that every machine needs.
func (l *Lab) installTools(ctx context.Context) error { return l.install(ctx, tools) }

// install installs the packages that are missing, and says so.
func (l *Lab) install(ctx context.Context, packages []string) error {
	// dpkg-query fails when it does not know one of the packages; what it prints about the others is right all the same.
	out, _ := l.output(ctx, "", "dpkg-query", append([]string{"-W", "-f", "${db:Status-Abbrev}${Package}\n"}, packages...)...)
	var missing []string
	for _, p := range packages {
		if !strings.Contains("\n"+string(out), "\nii "+p+"\n") {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	install := append([]string{"install", "-y", "--no-install-recommends"}, missing...)
	if os.Getuid() != 0 {
		return fmt.Errorf("packages are missing: run as root: apt-get %s", strings.Join(install, " "))
	}
	l.log("installing Debian packages: %s", strings.Join(missing, " "))
	if l.run(ctx, "", "apt-get", install...) == nil {
		return nil
	}
	l.log("updating the package lists")
	if err := l.run(ctx, "", "apt-get", "update"); err != nil {
		return err
	}
	return l.run(ctx, "", "apt-get", install...)
}

// openPackages finds out which packages machines boot from, and brings them into the cache.
func (l *Lab) openPackages(ctx context.Context) error {
	kernel, err := l.currentKernel(ctx)
	if err != nil {
		l.log("updating the package lists")
		if err := l.run(ctx, "", "apt-get", "update"); err != nil {
			return err
		}
		if kernel, err = l.currentKernel(ctx); err != nil {
			return err
		}
	}
	l.kernel = kernel
	for _, name := range append(slices.Clone(bootPackages), kernel) {
		if err := l.openPackage(ctx, name); err != nil {
			return err
		}
	}
	l.other = l.olderKernel(ctx)
	if l.other == "" {
		l.log("no other cloud kernel in the package lists: tests with another kernel must do without")
		return nil
	}
	if err := l.openPackage(ctx, l.other); err != nil {
		l.log("tests with another kernel must do without %s: %v", l.other, err)
		l.other = ""
	}
	return nil
}

// currentKernel resolves kernelPackage to the package with the kernel itself.
func (l *Lab) currentKernel(ctx context.Context) (string, error) {
	out, err := l.output(ctx, "", "apt-cache", "depends", "--important", kernelPackage)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			return "linux-image-" + name, nil
		}
	}
	return "", errors.New("the package lists do not say what " + kernelPackage + " depends on")
}

// olderKernel returns the newest other signed cloud kernel that can be downloaded, or "".
func (l *Lab) olderKernel(ctx context.Context) string {
	out, err := l.output(ctx, "", "apt-cache", "search", "--names-only", `^linux-image-[0-9].*cloud-amd64$`)
	if err != nil {
		return ""
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		// Packages without "(signed)" only depend on one that is.
		if name, about, _ := strings.Cut(line, " "); name != l.kernel && strings.Contains(about, "(signed)") {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, compareVersions)
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1]
}

// compareVersions orders package names by the numbers in them.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		na, nb := leadingDigits(a), leadingDigits(b)
		if na == "" || nb == "" {
			if a[0] != b[0] {
				return int(a[0]) - int(b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		a, b = a[len(na):], b[len(nb):]
		na, nb = strings.TrimLeft(na, "0"), strings.TrimLeft(nb, "0")
		if len(na) != len(nb) {
			return len(na) - len(nb)
		}
		if na != nb {
			return strings.Compare(na, nb)
		}
	}
	return len(a) - len(b)
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}

// openPackage downloads and unpacks one package. The package lists give the digest of the file, which is its key in the cache.
func (l *Lab) openPackage(ctx context.Context, name string) error {
	out, err := l.output(ctx, "", "apt-get", "download", "--print-uris", name)
	if err != nil {
		return err
	}
	f := strings.Fields(string(out)) // 'URI' FILE SIZE SHA256:DIGEST
	if len(f) != 4 || !strings.Contains(f[3], ":") {
		return fmt.Errorf("apt-get says %q about %s, want an address, a file, a size and a digest", out, name)
	}
	_, sum, _ := strings.Cut(f[3], ":")
	dir, err := l.cached(ctx, "packages", sum, func(ctx context.Context, dir string) error {
		l.log("downloading %s (%s bytes)", f[1], f[2])
		return l.unpack(ctx, name, dir)
	})
	if err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("%s holds %d .deb files, want one: remove the folder and try again", dir, len(debs))
	}
	l.packages[name] = &Package{Name: name, Deb: debs[0], Root: filepath.Join(dir, "root")}
	return nil
}

// unpack downloads a package into dir, with apt's check of its digest, and unpacks it below dir/root.
func (l *Lab) unpack(ctx context.Context, name, dir string) error {
	// apt's own user must be able to write here, or it warns and downloads as root.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := l.run(ctx, dir, "apt-get", "download", name); err != nil {
		l.log("updating the package lists: %v", err)
		if err := l.run(ctx, "", "apt-get", "update"); err != nil {
			return err
		}
		if err := l.run(ctx, dir, "apt-get", "download", name); err != nil {
			return err
		}
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download brought %d files of %s, want one", len(debs), name)
	}
	root := filepath.Join(dir, "root")
	if err := l.run(ctx, dir, "dpkg", "-x", debs[0], root); err != nil {
		return err
	}
	releases, _ := filepath.Glob(filepath.Join(root, "lib", "modules", "*"))
	for _, r := range releases {
		if err := l.run(ctx, dir, "depmod", "-b", root, filepath.Base(r)); err != nil {
			return err
		}
	}
	return nil
}
