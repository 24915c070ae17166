package reference_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/kmod/kmodtest"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/uefi/uefitest"
)

const (
	release = "6.1.0-1-test"
	modules = "./lib/modules/" + release + "/kernel/"
	sbatCSV = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\nshim,4,UEFI shim,shim,1,https://github.com/rhboot/shim\n"
)

func newSigner(tb testing.TB, name string, issuer *uefitest.Signer) *uefitest.Signer {
	tb.Helper()
	s, err := uefitest.NewSigner(name, issuer)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// bootPackage is a package with everything that the importer looks for.
type bootPackage struct {
	vendor, firmware, buildKey *uefitest.Signer
	shim, kernel, module       []byte
	deb                        []byte
}

func newBootPackage(tb testing.TB) *bootPackage {
	tb.Helper()
	p := &bootPackage{vendor: newSigner(tb, "vendor CA", nil), firmware: newSigner(tb, "firmware CA", nil), buildKey: newSigner(tb, "build key", nil)}
	must := func(b []byte, err error) []byte {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return b
	}
	broken := newSigner(tb, "broken", nil)
	broken.WrongKey = true
	p.shim = must(uefitest.BuildImage([]uefitest.Section{{Name: ".text", Data: []byte("shim")}, {Name: ".sbat", Data: []byte(sbatCSV)},
		{Name: ".vendor_cert", Data: uefitest.VendorTable(p.vendor.Cert.Raw, nil)}}, newSigner(tb, "shim signer", p.firmware), broken))
	payload := must(kmodtest.Payload(append(append([]byte("kernel"), p.buildKey.Cert.Raw...), "more"...)))
	p.kernel = must(uefitest.Image{Sections: []uefitest.Section{{Name: ".text", Data: payload}}, Stub: kmodtest.SetupHeader(release, len(payload)),
		Signers: []*uefitest.Signer{newSigner(tb, "kernel signer", p.vendor)}}.Build())
	p.module = must(kmodtest.Sign(kmodtest.Module("virtio_net", release), p.buildKey.Cert, p.buildKey.Key, kmodtest.Options{}))
	foreign := newSigner(tb, "foreign", nil)
	p.deb = deb(tb,
		entry{name: "./lib/", kind: '5'},
		entry{name: modules + "virtio-net.ko", data: p.module}, // before the kernel that has its key
		entry{name: modules + "packed.ko.zst", data: zst(tb, must(kmodtest.Sign(kmodtest.Module("packed", release), p.buildKey.Cert, p.buildKey.Key, kmodtest.Options{ByKeyID: true})))},
		entry{name: modules + "unsigned.ko", data: kmodtest.Module("unsigned", release)},
		entry{name: modules + "foreign.ko", data: must(kmodtest.Sign(kmodtest.Module("foreign", release), foreign.Cert, foreign.Key, kmodtest.Options{}))},
		entry{name: "./boot/vmlinuz-" + release, data: p.kernel},
		entry{name: "./usr/lib/shim/shimx64.efi.signed", data: p.shim},
		entry{name: "./usr/lib/grub/i386-pc/lnxboot.img", data: []byte("MZ but no image")},
		entry{name: "./usr/bin/tool", data: []byte("tool")},
		entry{name: "./usr/bin/link", kind: '2'},
	)
	return p
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func TestImportPackage(t *testing.T) {
	p := newBootPackage(t)
	var warnings []string
	s, err := reference.ImportPackage(bytes.NewReader(p.deb), reference.Options{File: "test.deb", Now: day, Warn: func(m string) { warnings = append(warnings, m) }})
	if err != nil {
		t.Fatal(err)
	}
	if s.SHA256 != sum(p.deb) {
		t.Errorf("SHA256: got %s, want that of the file", s.SHA256)
	}
	type module struct{ Name, Kernel, Signer string }
	var mods []module
	for _, m := range s.Modules {
		mods = append(mods, module{m.Name, m.Kernel, m.Signer})
		if (m.Content != "") != strings.HasSuffix(m.Path, ".zst") {
			t.Errorf("%s: content digest %q", m.Path, m.Content)
		}
	}
	if diff := cmp.Diff([]module{{"foreign", release, ""}, {"packed", release, "CN=build key"}, {"unsigned", release, ""}, {"virtio_net", release, "CN=build key"}}, mods); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
	var paths []string
	for _, f := range s.Files {
		paths = append(paths, f.Path)
	}
	if diff := cmp.Diff([]string{"/boot/vmlinuz-" + release, "/usr/bin/tool", "/usr/lib/grub/i386-pc/lnxboot.img", "/usr/lib/shim/shimx64.efi.signed"}, paths); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if len(s.ModuleKeys) != 1 || s.ModuleKeys[0].Subject != "CN=build key" || len(s.VendorKeys) != 1 || s.VendorKeys[0].SHA256 != sum(p.vendor.Cert.Raw) {
		t.Errorf("keys: got %d module keys and %d vendor keys, want 1 of each", len(s.ModuleKeys), len(s.VendorKeys))
	}
	if len(warnings) != 2 { // shim's broken signature, lnxboot.img
		t.Errorf("warnings: got %q, want 2", warnings)
	}
	checkImages(t, s.Images)
	checkSet(t, p, s)
}

func checkImages(t *testing.T, images []reference.Image) {
	t.Helper()
	if len(images) != 2 {
		t.Fatalf("images: got %d, want 2", len(images))
	}
	kernel, shim := images[0], images[1]
	if kernel.Role != "kernel" || kernel.Kernel != release || len(kernel.Signers) != 1 || kernel.Signers[0].Issuer != "CN=vendor CA" || len(kernel.Authenticode) != 4 {
		t.Errorf("kernel: got %+v", kernel)
	}
	if shim.Role != "shim" || shim.SBAT != sbatCSV || len(shim.Signers) != 1 || len(shim.Signers[0].Chain) != 2 {
		t.Errorf("shim: got role %q, SBAT %q, %d signers", shim.Role, shim.SBAT, len(shim.Signers))
	}
}

// checkSet compiles what was imported and looks things up.
func checkSet(t *testing.T, p *bootPackage, s *reference.Source) {
	t.Helper()
	set, err := reference.Compile([]reference.Source{*s})
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(p.module)
	if f, ok := set.File(tpm.AlgSHA256, digest[:]); !ok || f.Module == nil || f.Module.Name != "virtio_net" || f.Source != "test 1.0-1" {
		t.Errorf("File(module): got %+v, %v", f, ok)
	}
	kernel, ok := set.ImageFile(sha256Of(p.kernel))
	if !ok || kernel.Role != "kernel" {
		t.Fatalf("ImageFile(kernel): got %+v, %v", kernel, ok)
	}
	for range 2 { // the second answer is remembered
		if kernel.SignedBy(p.vendor.Cert) == nil || kernel.SignedBy(p.firmware.Cert) != nil || kernel.SignedBy(nil) != nil {
			t.Error("SignedBy(kernel): want the vendor only")
		}
	}
	if !set.IsVendorKey(p.vendor.Cert.Raw) || set.IsVendorKey(p.firmware.Cert.Raw) {
		t.Error("IsVendorKey: want the vendor only")
	}
}

func sha256Of(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

func TestImportPackageModuleKeys(t *testing.T) {
	p := newBootPackage(t)
	only := deb(t, entry{name: modules + "virtio-net.ko", data: p.module})
	for _, keys := range [][]*x509.Certificate{nil, {p.buildKey.Cert}} {
		s, err := reference.ImportPackage(bytes.NewReader(only), reference.Options{ModuleKeys: keys})
		if err != nil || len(s.Modules) != 1 || (s.Modules[0].Signer == "") != (keys == nil) {
			t.Errorf("ImportPackage with %d keys: got %+v, %v", len(keys), s, err)
		}
	}
	tampered := bytes.Clone(p.module)
	tampered[90] ^= 1
	bad := deb(t, entry{name: modules + "virtio-net.ko", data: tampered})
	if _, err := reference.ImportPackage(bytes.NewReader(bad), reference.Options{ModuleKeys: []*x509.Certificate{p.buildKey.Cert}}); err == nil {
		t.Error("ImportPackage(tampered module): got no error")
	}
}
