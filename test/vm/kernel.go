package vm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/therootcompany/xz"
)

// neededModules are what /init needs; modules they depend on come before them.
var neededModules = []string{"virtio_pci", "virtio_blk", "virtio_net", "af_packet", "efivarfs"}

// testModule is the module whose copies the tests load: harmless, and nothing loads it by itself.
const testModule = "qemu_fw_cfg"

// moduleSignature ends a signed module (kernel, Documentation/admin-guide/module-signing.rst).
var moduleSignature = []byte("~Module signature appended~\n")

// Kernel is a kernel package, unpacked.
type Kernel struct {
	Package string // "linux-image-6.1.0-56-cloud-amd64"
	Release string // "6.1.0-56-cloud-amd64"
	Image   string // path of vmlinuz
	modules string // folder lib/modules/RELEASE
}

// Kernels returns the packages that can be booted: the current kernel first, then another one where Debian has one.
func (l *Lab) Kernels() []string {
	if l.other == "" {
		return []string{l.kernel}
	}
	return []string{l.kernel, l.other}
}

// Kernel returns the kernel of a package; "" means the current one.
func (l *Lab) Kernel(pkg string) (*Kernel, error) {
	if pkg == "" {
		pkg = l.kernel
	}
	p := l.packages[pkg]
	if p == nil {
		return nil, fmt.Errorf("no kernel package %q in the lab: want one of %q", pkg, l.Kernels())
	}
	images, err := filepath.Glob(filepath.Join(p.Root, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, fmt.Errorf("package %s holds %d kernels, want one", pkg, len(images))
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return &Kernel{Package: pkg, Release: release, Image: images[0], modules: filepath.Join(p.Root, "lib", "modules", release)}, nil
}

// TestModules are three forms of a module: as Debian signed it, without its signature, and changed after it was signed.
type TestModules struct {
	Good, Unsigned, Tampered []byte
}

// TestModules returns modules that tests may try to load.
func (k *Kernel) TestModules() (*TestModules, error) {
	files, err := k.moduleFiles(testModule)
	if err != nil {
		return nil, err
	}
	good, err := k.readModule(files[len(files)-1])
	if err != nil {
		return nil, err
	}
	// The trailer before the mark is 12 bytes; its last 4 are the length of the signature, big endian.
	body, ok := bytes.CutSuffix(good, moduleSignature)
	if !ok || len(body) < 12 {
		return nil, fmt.Errorf("%s carries no signature", files[len(files)-1])
	}
	n := len(body)
	size := int(body[n-4])<<24 | int(body[n-3])<<16 | int(body[n-2])<<8 | int(body[n-1])
	if size > n-12 {
		return nil, fmt.Errorf("signature of %d bytes is longer than %s", size, files[len(files)-1])
	}
	unsigned := slices.Clone(body[:n-12-size])
	tampered := slices.Clone(good)
	// A byte of a text that the module only prints: it would load and run if nobody looked at the signature.
	at := bytes.Index(tampered, []byte("description="))
	if at < 0 {
		return nil, errors.New("the test module has no description to change")
	}
	tampered[at+len("description=")] ^= 0x20
	return &TestModules{Good: good, Unsigned: unsigned, Tampered: tampered}, nil
}

// initrdModules returns the modules for the initrd, their names in the order of loading.
func (k *Kernel) initrdModules() (map[string]File, error) {
	files, err := k.moduleFiles(neededModules...)
	if err != nil {
		return nil, err
	}
	out := map[string]File{}
	for i, f := range files {
		b, err := k.readModule(f)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("%s%02d-%s", modulesPath, i, strings.TrimSuffix(filepath.Base(f), ".xz"))
		out[name] = File{Mode: 0o644, Data: b}
	}
	return out, nil
}

// moduleFiles returns the files of the named modules, relative to the kernel's folder, each after those it depends on.
// A name that modules.dep does not know is built into the kernel.
func (k *Kernel) moduleFiles(names ...string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(k.modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	return moduleOrder(string(b), names), nil
}

// moduleOrder reads modules.dep: "FILE: DEPENDENCY ...", where the one to load first stands last.
func moduleOrder(dep string, names []string) []string {
	lines := map[string][]string{}
	for line := range strings.Lines(dep) {
		file, needs, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		files := strings.Fields(needs)
		slices.Reverse(files)
		name, _, _ := strings.Cut(filepath.Base(file), ".")
		lines[strings.ReplaceAll(name, "-", "_")] = append(files, file)
	}
	var order []string
	for _, name := range names {
		for _, f := range lines[name] {
			if !slices.Contains(order, f) {
				order = append(order, f)
			}
		}
	}
	return order
}

// readModule reads a module and decompresses it: the initrd and the tests carry plain modules.
func (k *Kernel) readModule(file string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(k.modules, file))
	if err != nil || !strings.HasSuffix(file, ".xz") {
		return b, err
	}
	r, err := xz.NewReader(bytes.NewReader(b), xz.DefaultDictMax)
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w", file, err)
	}
	return io.ReadAll(r)
}
