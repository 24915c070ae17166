package appraisal

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/uefi"
)

// Level 3: is every boot loader signed by a trusted key and not revoked?
var bootLoaderRules = []rule{
	{"boot-loader.log", bootLoaderLog},
	{"boot-loader.images", bootLoaderImages},
	{"boot-loader.authorities", bootLoaderAuthorities},
	{"boot-loader.revocations", bootLoaderRevocations},
	{"boot-loader.sbat", bootLoaderSBAT},
	{"boot-loader.mok", bootLoaderMOK},
	{"boot-loader.shim-validation", bootLoaderShimValidation},
	{"boot-loader.grub", bootLoaderGRUB},
	{"boot-loader.stub", bootLoaderStub},
	{RuleDataAtRest, bootLoaderDataAtRest},
}

func bootLoaderLog(in *Input) []Finding { return in.checkPCRs(4, 5, 14) }

// bootLoaderImages: each boot loader of PCR 4 is known from an imported package, or (images: signed) let in by a trusted authority.
func bootLoaderImages(in *Input) []Finding {
	if f, bad := in.unproven("boot loaders cannot be told", 4, 8); bad {
		return one(f)
	}
	var out []Finding
	n := 0
	for _, im := range in.images() {
		if im.kernel {
			continue
		}
		n++
		out = append(out, in.judgeImage(im, "boot loader", in.Policy.Spec.BootLoader.Images))
	}
	if n == 0 && len(in.Claims.Boot.Images) == 0 {
		return one(unknown("the firmware measured no boot loader").because("the firmware does not measure what it starts", "update the firmware"))
	}
	return out
}

// bootLoaderAuthorities: whoever let an image run is in db, is shim's own key, or is named by the policy.
func bootLoaderAuthorities(in *Input) []Finding {
	if f, bad := in.unproven("who let the images run cannot be told", 7); bad {
		return one(f)
	}
	b := in.Claims.Boot
	if len(b.Authorities) == 0 {
		return one(unknown("no authority let an image run: Secure Boot did not check signatures").because("Secure Boot is off", "turn Secure Boot on"))
	}
	var out []Finding
	for _, a := range b.Authorities {
		why, ok := in.authority(&a)
		if !ok {
			out = append(out, fail(claims.Proven, "images signed by %s (%s) ran, which the policy does not trust", quoted(a.Subject), a.Variable).at(a.Event).expect(
				"a key of "+strings.Join(in.Policy.Spec.BootLoader.Authorities, ", "), fmt.Sprintf("%s %x", a.Subject, a.SHA256)).because(
				"someone enrolled a machine owner key or another vendor's key", "remove the key (mokutil --delete, or the firmware's set-up); accept it only by its SHA-256 in the policy"))
			continue
		}
		if why != "" {
			out = append(out, pass(claims.Proven, "authority %s (%s)", quoted(a.Subject), why).at(a.Event))
		}
	}
	return out
}

// authority says why an authority is trusted.
func (in *Input) authority(a *claims.Authority) (string, bool) {
	sum := hex.EncodeToString(a.SHA256[:])
	for _, want := range in.Policy.Spec.BootLoader.Authorities {
		switch {
		case want == "db" && a.Variable == "db" && in.inDB(a):
			return "in db", true
		case want == "vendor" && a.Owner == uefi.ShimLock && in.References.IsVendorKey(a.Data):
			return "shim's own key", true
		case strings.EqualFold(want, sum):
			return "named by the policy", true
		}
	}
	if slices.ContainsFunc(in.Policy.Spec.BootLoader.MachineOwnerKeys, func(k string) bool { return strings.EqualFold(k, sum) }) {
		return "machine owner key named by the policy", true
	}
	return "", false
}

func (in *Input) inDB(a *claims.Authority) bool {
	db := in.Claims.Boot.Variable("db")
	return db != nil && slices.ContainsFunc(db.Signatures, func(s uefi.Signature) bool { return s.SHA256 == a.SHA256 })
}

// bootLoaderRevocations: neither an image of PCR 4 nor an authority is in the machine's dbx or in an imported revocation list.
func bootLoaderRevocations(in *Input) []Finding {
	if f, bad := in.unproven("revocations of boot images cannot be told", 4, 7); bad {
		return one(f)
	}
	b := in.Claims.Boot
	dbx := b.Variable("dbx")
	var out []Finding
	for _, im := range in.images() {
		sum, ok := in.imageSHA256(im)
		if !ok {
			out = append(out, unknown("whether image%s is revoked cannot be told in bank %v", named(im.Path), b.Bank).at(im.Event).because(
				"revocation lists hold SHA-256 digests, and the image is not in the references", "activate the SHA-256 bank"))
			continue
		}
		if f, hit := in.revoked("image"+named(im.Path), sum, im.Event, dbx); hit {
			out = append(out, f)
		}
	}
	for i := range b.Authorities {
		a := &b.Authorities[i]
		if f, hit := in.revoked("authority "+quoted(a.Subject), a.SHA256[:], a.Event, dbx); hit {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		out = one(pass(claims.Proven, "no image and no authority is revoked"))
	}
	return out
}

// imageSHA256 is the digest by which lists revoke an image.
func (in *Input) imageSHA256(im image) ([]byte, bool) {
	if in.Claims.Boot.Bank == tpm.AlgSHA256 {
		return im.Digest, true
	}
	if im.ref == nil {
		return nil, false
	}
	sum, err := hex.DecodeString(im.ref.Authenticode[tpm.AlgSHA256.String()])
	return sum, err == nil && len(sum) > 0
}

func (in *Input) revoked(what string, digest []byte, e *eventlog.Event, dbx *claims.Variable) (Finding, bool) {
	sum := hex.EncodeToString(digest)
	name, hit := "", false
	if dbx != nil {
		hit = slices.ContainsFunc(dbx.Signatures, func(s uefi.Signature) bool { return bytes.Equal(s.SHA256[:], digest) })
	}
	source := "the machine's dbx"
	if r, from, ok := in.References.Revoked(digest); ok {
		name, hit = r.Name, true
		source = from
	}
	if !hit {
		return Finding{}, false
	}
	return fail(claims.Proven, "revoked %s: %s", what, strings.TrimSpace(sum+" "+name)).at(e).expect("not revoked", "revoked by "+source).because(
		"a boot loader with a known hole is in use", "update shim and GRUB (apt upgrade shim-signed grub-efi-amd64-signed), then reboot"), true
}

// bootLoaderSBAT: the SBAT level that shim applied is at least the wanted one.
func bootLoaderSBAT(in *Input) []Finding {
	if f, bad := in.unproven("SBAT level cannot be told", 7); bad {
		return one(f)
	}
	got := in.Claims.Boot.SBAT
	mode := in.Policy.Spec.BootLoader.SBAT
	if got == nil {
		if mode == "any" {
			return one(pass(claims.Proven, "shim applied no SBAT level (the policy does not ask for one)"))
		}
		return one(unknown("shim applied no SBAT level").because("shim is older than 15.3, or was not used", "update shim-signed"))
	}
	text := strings.ReplaceAll(strings.TrimSpace(got.Text), "\n", " ")
	level, err := uefi.ParseSBATLevel([]byte(got.Text))
	if err != nil {
		return one(fail(claims.Proven, "SBAT level cannot be read: %v", err).at(got.Event).because("the boot loader is not shim, or not one that is known here", "update shim-signed"))
	}
	var wanted []reference.SBATLevel
	switch mode {
	case "any":
		return one(pass(claims.Proven, "SBAT level %s", text))
	case "reference":
		if wanted = in.References.SBAT(); len(wanted) == 0 {
			return one(unknown("SBAT level %s; no reference to compare with", text).because("none was imported", "touchstone reference import sbat FILE"))
		}
	default:
		l, err := uefi.ParseSBATLevel([]byte(mode))
		if err != nil {
			return one(unknown("the policy's SBAT level cannot be read: %v", err))
		}
		wanted = []reference.SBATLevel{{Source: "the policy", Level: l}}
	}
	for _, w := range wanted {
		if !level.AtLeast(w.Level) {
			return one(fail(claims.Proven, "SBAT level is older than %s asks for", w.Source).at(got.Event).expect(strings.ReplaceAll(strings.TrimSpace(w.Level.String()), "\n", " "), text).because(
				"the revocations of boot loaders are older than the reference", "update shim-signed and reboot; see mokutil --set-sbat-policy"))
		}
	}
	return one(pass(claims.Proven, "SBAT level %s", text))
}

// bootLoaderShimValidation: none of the variables is set by which shim's checks are changed. Shim measures them into PCR 7, where the digest covers
// name and content.
func bootLoaderShimValidation(in *Input) []Finding {
	if f, bad := in.unproven("whether shim checks signatures cannot be told", 7); bad {
		return one(f)
	}
	var out []Finding
	for i := range in.Claims.Boot.ShimSettings {
		v := &in.Claims.Boot.ShimSettings[i]
		if v.Name == "MokListTrusted" {
			continue // 1 is usual: the kernel may trust the list that boot-loader.mok judges
		}
		out = append(out, fail(claims.Proven, "shim measured %s: its checks of signatures are changed or switched off", quoted(v.Name)).at(v.Event).expect("not set", v.Name+" = "+hexOrEmpty(v.Data)).because(
			"mokutil --disable-validation or another setting of mokutil was used", "mokutil --enable-validation on the worker, then reboot"))
	}
	if len(out) == 0 {
		out = one(pass(claims.Proven, "shim's checks of signatures are on"))
	}
	return out
}

// bootLoaderGRUB shows what GRUB did. Its configuration is judged by what it loaded (level 4), not by its digest.
func bootLoaderGRUB(in *Input) []Finding {
	b := in.Claims.Boot
	if b == nil || (len(b.Commands) == 0 && len(b.Files) == 0) {
		return one(Finding{Status: Pass, Provenance: string(in.Claims.Provenance(8, 9)), Message: "GRUB was not used"})
	}
	if f, bad := in.unproven("what GRUB did cannot be told", 8, 9); bad {
		return one(f)
	}
	var names []string
	for _, f := range b.Files {
		names = append(names, f.Name)
	}
	var commands []string
	for _, c := range b.Commands {
		commands = append(commands, c.Text)
	}
	out := one(pass(claims.Proven, "GRUB ran %d commands and read %s", len(commands), list(names)).expect("", list(commands)))
	if l := b.GRUBLoad(); l != nil {
		for _, a := range l.Attempts {
			out = append(out, warn(claims.Proven, "GRUB loaded another kernel first: %s", a.Text).at(a.Event).because(
				"a kernel was refused and GRUB fell back to another, or a person chose so at the console", "look at the console log and at grub.cfg"))
		}
	}
	return out
}

// bootLoaderStub shows what systemd-stub measured (PCR 11, 12, 13). Parts from outside the image are not signed, so they cost trust.
func bootLoaderStub(in *Input) []Finding {
	b := in.Claims.Boot
	if b == nil || (len(b.Sections) == 0 && len(b.StubExtra) == 0) {
		return one(Finding{Status: Pass, Provenance: string(in.Claims.Provenance()), Message: "systemd-stub was not used"})
	}
	if f, bad := in.unproven("what systemd-stub did cannot be told", 11, 12, 13); bad {
		return one(f)
	}
	var out []Finding
	for i := range b.StubExtra {
		x := &b.StubExtra[i]
		out = append(out, fail(claims.Proven, "systemd-stub took %s from outside the signed image", quoted(x.Name)).at(x.Event).expect("nothing", x.Name).because(
			"a command line, credential or extension beside the image", "remove it from the boot partition, or build it into the image"))
	}
	if len(out) == 0 {
		out = one(pass(claims.Proven, "systemd-stub used only sections of the signed image (%d events)", len(b.Sections)))
	}
	return out
}

func hashes(bank tpm.Alg, content, digest []byte) bool {
	h := bank.Hash().New()
	h.Write(content)
	return string(h.Sum(nil)) == string(digest)
}

func quoted(s string) string {
	if s == "" {
		return "without name"
	}
	return fmt.Sprintf("%q", s)
}
