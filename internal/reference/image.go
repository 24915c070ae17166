package reference

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"path"
	"strings"

	"touchstone.dev/touchstone/internal/kmod"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/uefi"
)

// ReadImage makes a reference of a PE image: its digests in all banks, its valid signatures, its SBAT. Invalid signatures are told
// to o.Warn and left out. vendor are the certificates that a shim brings along.
func ReadImage(name string, b []byte, o *Options) (im Image, vendor []Certificate, err error) {
	pe, err := uefi.ParseImage(b)
	if err != nil {
		return im, nil, err
	}
	im = Image{Path: name, Role: roleOf(name, pe, b), SHA256: hexSHA256(b), Authenticode: make(map[string]string)}
	for _, alg := range tpm.HashAlgs {
		im.Authenticode[alg.String()] = hex.EncodeToString(pe.Digest(alg))
	}
	signatures, err := pe.Signatures()
	if err != nil {
		return im, nil, err
	}
	for _, s := range signatures {
		if s.Err != nil {
			o.warn("%s: signature left out: %v", name, s.Err)
			continue
		}
		signer := Signer{Subject: s.Signer().Subject.String(), Issuer: s.Signer().Issuer.String()}
		for _, c := range s.Chain {
			signer.Chain = append(signer.Chain, c.Raw)
		}
		im.Signers = append(im.Signers, signer)
	}
	if section := pe.Section(".sbat"); section != nil {
		im.SBAT = string(bytes.TrimRight(section, "\x00"))
		if _, err := uefi.ParseSBAT(section); err != nil {
			o.warn("%s: SBAT left out: %v", name, err)
			im.SBAT = ""
		}
	}
	im.Kernel = kernelRelease(pe, b)
	if section := pe.Section(".vendor_cert"); section != nil {
		vendor, err = vendorKeys(section)
	}
	return im, vendor, err
}

// roleOf tells what an image is for: by what it contains where that is certain, else by its name.
func roleOf(name string, pe *uefi.Image, b []byte) string {
	base := path.Base(name)
	named := func(prefixes ...string) bool {
		for _, p := range prefixes {
			if strings.HasPrefix(base, p) {
				return true
			}
		}
		return false
	}
	switch {
	case pe.Section(".linux") != nil:
		return "uki"
	case kmod.IsKernel(b):
		return "kernel"
	case strings.HasSuffix(base, ".stub"):
		return "stub"
	case pe.Section(".vendor_cert") != nil:
		return "shim"
	case named("mmx", "mma", "mmi", "MokManager"):
		return "mok-manager"
	case named("grub", "gcd"):
		return "grub"
	case named("systemd-boot"):
		return "systemd-boot"
	case named("vmlinuz"):
		return "kernel"
	case named("shim"):
		return "shim"
	}
	return "efi"
}

// kernelRelease returns the release of a kernel or of the kernel in a unified kernel image.
func kernelRelease(pe *uefi.Image, b []byte) string {
	if section := pe.Section(".uname"); section != nil {
		return strings.TrimSpace(string(bytes.TrimRight(section, "\x00")))
	}
	if section := pe.Section(".linux"); section != nil {
		return kmod.KernelRelease(section)
	}
	return kmod.KernelRelease(b)
}

func vendorKeys(section []byte) ([]Certificate, error) {
	table, err := uefi.ParseVendorTable(section)
	if err != nil {
		return nil, err
	}
	var out []Certificate
	for _, s := range table.Authorized {
		if s.Type != uefi.TypeX509 {
			continue // a hash trusts one image: it is in the reference of that image
		}
		c, err := s.Certificate()
		if err != nil {
			return nil, fmt.Errorf("vendor certificate: %w", err)
		}
		out = append(out, newCertificate(c))
	}
	return out, nil
}
