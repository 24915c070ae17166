package appraisal

import (
	"encoding/hex"
	"fmt"
	"strings"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/uefi"
)

// image is a boot image of PCR 4 with what the references know of it.
type image struct {
	*claims.Image
	ref    *reference.ImageRef // nil when unknown
	kernel bool                // judged on level 4
}

// images sorts the images of PCR 4 into boot loaders and kernels. A known image is what its reference says. An unknown one that was started
// after GRUB loaded a kernel is taken for a kernel, any other for a boot loader: each image is judged on one of the two levels.
func (in *Input) images() []image {
	b := in.Claims.Boot
	var out []image
	grub, loads := false, false
	for _, c := range b.Commands {
		v, _, _ := strings.Cut(c.Text, " ")
		loads = loads || v == "linux" || v == "linuxefi"
		if v == "chainloader" {
			loads = false
			break
		}
	}
	for i := range b.Images {
		im := image{Image: &b.Images[i]}
		if ref, ok := in.References.Image(b.Bank, im.Digest); ok {
			im.ref = ref
			im.kernel = ref.Image.Role == "kernel" || ref.Image.Role == "uki"
			grub = grub || ref.Image.Role == "grub"
		} else {
			im.kernel = grub && loads
		}
		out = append(out, im)
	}
	return out
}

// judgeImage is one finding on one image, for boot loaders and kernels.
func (in *Input) judgeImage(im image, what, mode string) Finding {
	digest := hex.EncodeToString(im.Digest)
	if im.ref != nil {
		return pass(claims.Proven, "%s %s of %s%s", what, im.ref.Image.Path, im.ref.Source, signedBy(in, im)).at(im.Event).expect("", "Authenticode "+digest)
	}
	if sb := in.Claims.Boot.Variable("SecureBoot"); mode == "signed" && in.Claims.Proves(7) && sb != nil && len(sb.Data) == 1 && sb.Data[0] == 1 {
		return pass(claims.Proven, "%s %s%s is not in the references; Secure Boot let it in (see boot-loader.authorities)", what, digest, named(im.Path)).at(im.Event)
	}
	return fail(claims.Proven, "unknown %s%s", what, named(im.Path)).at(im.Event).expect("an image of an imported package", "Authenticode "+digest).because(
		"a package was updated and is not imported yet, or someone put another image in its place",
		"if the package is genuine: touchstone reference import PACKAGE.deb; else reinstall it and reboot")
}

// signedBy names the authority of PCR 7 that let a known image run.
func signedBy(in *Input, im image) string {
	if !in.Claims.Proves(7) {
		return ""
	}
	for _, a := range in.Claims.Boot.Authorities {
		cert, err := uefi.ParseCertificate(a.Data)
		if err != nil {
			continue
		}
		for _, s := range im.ref.Signers {
			if uefi.ChainsTo(s.Chain, cert) {
				return fmt.Sprintf(", let in by %s %q", a.Variable, a.Subject)
			}
		}
	}
	return ""
}

func named(path string) string {
	if path == "" {
		return ""
	}
	return " " + path
}
