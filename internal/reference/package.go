package reference

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"touchstone.dev/touchstone/internal/kmod"
	"touchstone.dev/touchstone/internal/uefi"
)

// ImportPackage reads a Debian package (.deb) as a stream: the SHA-256 of every regular file, the digests and signers of boot images,
// kernel modules with the key that signed them, the module keys inside kernels and the vendor keys inside shim.
//
// The package itself is not authenticated here: import what apt has verified, or compare Source.SHA256 with the archive's index.
func ImportPackage(r io.Reader, o Options) (*Source, error) {
	m := newMeter(r, &o)
	o.Warn = serial(o.Warn)
	p := packageImport{o: &o}
	p.background.SetLimit(kernelsAtOnce)
	deb, err := readDeb(m, p.file)
	p.background.Wait() //nolint:errcheck // what runs there returns no error
	if err != nil {
		return nil, fmt.Errorf("%w: package %s: %w", ErrImport, o.File, err)
	}
	s := o.source(KindPackage, m.hash.Sum(nil))
	s.Name, s.Version, s.Arch = deb.name, deb.version, deb.arch
	if err := p.fill(s); err != nil {
		return nil, fmt.Errorf("%w: package %s: %w", ErrImport, o.File, err)
	}
	return s, nil
}

// kernelsAtOnce bounds the memory for kernels that are unpacked beside the stream.
const kernelsAtOnce = 2

// packageImport collects what a package holds while it streams by.
type packageImport struct {
	o          *Options
	files      []File
	images     []Image
	vendor     []Certificate
	modules    []pendingModule
	background errgroup.Group // unpacks kernels (about 4 s each) beside the stream
	kernels    []*[]*x509.Certificate
}

// file takes one regular file.
func (p *packageImport) file(name string, size int64, r io.Reader) error {
	switch {
	case isModule(name) && size <= kmod.MaxModule:
		b, err := readAll(r, size)
		if err != nil {
			return err
		}
		m, err := readModule(name, b, p.o)
		if err != nil {
			return err
		}
		p.modules = append(p.modules, m)
		return nil
	case isImagePath(name) && size <= uefi.MaxImage:
		b, err := readAll(r, size)
		if err != nil {
			return err
		}
		p.files = append(p.files, File{Path: name, SHA256: hexSHA256(b)})
		if kmod.IsKernel(b) {
			p.kernel(name, b)
		}
		if !bytes.HasPrefix(b, []byte("MZ")) {
			return nil
		}
		return p.image(name, b)
	}
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return err
	}
	p.files = append(p.files, File{Path: name, SHA256: hex.EncodeToString(h.Sum(nil))})
	return nil
}

// isImagePath reports whether a file is looked at as a boot image: where boot images lie, and what is named like one.
func isImagePath(name string) bool {
	for _, dir := range []string{"/boot/", "/usr/lib/shim/", "/usr/lib/grub/", "/usr/lib/systemd/boot/"} {
		if strings.HasPrefix(name, dir) {
			return true
		}
	}
	base := path.Base(name)
	return strings.HasPrefix(base, "vmlinuz") || strings.HasSuffix(base, ".efi") || strings.HasSuffix(base, ".efi.signed") || strings.HasSuffix(base, ".efi.stub")
}

func (p *packageImport) image(name string, b []byte) error {
	im, vendor, err := ReadImage(name, b, p.o)
	if err != nil {
		// Not everything there that begins with MZ boots by UEFI (GRUB's lnxboot, old kernels): its file digest is known anyway.
		p.o.warn("%s: no boot image: %v", name, err)
		return nil
	}
	p.images = append(p.images, im)
	p.vendor = append(p.vendor, vendor...)
	if pe, err := uefi.ParseImage(b); err == nil && pe.Section(".linux") != nil {
		p.kernel(name, pe.Section(".linux"))
	}
	return nil
}

// kernel looks for module keys in a kernel, in the background. The stream waits where two are at work already.
func (p *packageImport) kernel(name string, b []byte) {
	found := new([]*x509.Certificate)
	p.kernels = append(p.kernels, found)
	p.background.Go(func() error {
		vmlinux, err := kmod.UnpackKernel(b)
		if err != nil {
			p.o.warn("%s: module keys are not known: %v", name, err)
			return nil
		}
		*found = kmod.ModuleKeys(vmlinux)
		return nil
	})
}

// fill puts everything into the source, ordered by path.
func (p *packageImport) fill(s *Source) error {
	keys := slices.Clone(p.o.ModuleKeys)
	for _, found := range p.kernels {
		for _, c := range *found {
			s.ModuleKeys = append(s.ModuleKeys, newCertificate(c))
		}
		keys = append(keys, *found...)
	}
	var err error
	if s.Modules, err = verifyModules(p.modules, keys); err != nil {
		return err
	}
	s.Files, s.Images, s.VendorKeys = p.files, p.images, p.vendor
	slices.SortFunc(s.Files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	slices.SortFunc(s.Images, func(a, b Image) int { return cmp.Compare(a.Path, b.Path) })
	slices.SortFunc(s.Modules, func(a, b Module) int { return cmp.Compare(a.Path, b.Path) })
	return nil
}
