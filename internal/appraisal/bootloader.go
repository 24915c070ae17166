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
	for i := range b.Images {
		if f, hit := in.revoked("image"+named(b.Images[i].Path), b.Images[i].Digest, b.Images[i].Event, dbx); hit {
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
		return one(fail(claims.Proven, "SBAT level cannot be read: %v", err).at(got.Event))
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

// bootLoaderMOK: the machine owner key list of PCR 14 holds nothing but shim's own key and what the policy names. The event has only the digest
// of the list; the list itself is either the claimed MokListRT, which then is proven, or the one that shim makes of its own key.
func bootLoaderMOK(in *Input) []Finding {
	if f, bad := in.unproven("machine owner keys cannot be told", 14); bad {
		return one(f)
	}
	b := in.Claims.Boot
	i := slices.IndexFunc(b.MOK, func(n claims.Named) bool { return n.Name == "MokList" })
	if i < 0 {
		return one(pass(claims.Proven, "shim measured no machine owner key list"))
	}
	m := &b.MOK[i]
	if list := in.Claims.Facts.MOKList; list != nil && hashes(b.Bank, list, m.Digest) {
		return in.judgeMOK(m, list)
	}
	for _, k := range in.References.VendorKeys() {
		if hashes(b.Bank, uefi.EncodeX509List(uefi.ShimLock, k.DER), m.Digest) {
			return one(pass(claims.Proven, "no machine owner key besides shim's own (%s)", k.Subject).at(m.Event))
		}
	}
	return one(unknown("the machine owner key list is not the one that shim makes of its own key, and its content did not come along").at(m.Event).expect(
		"shim's own key", hex.EncodeToString(m.Digest)).because("someone enrolled a key, or the agent could not read MokListRT", "mokutil --list-enrolled on the worker; remove what is not yours"))
}

func (in *Input) judgeMOK(m *claims.Named, content []byte) []Finding {
	sigs, err := uefi.ParseSignatureLists(content)
	if err != nil {
		return one(fail(claims.Proven, "the machine owner key list cannot be read: %v", err).at(m.Event))
	}
	var out []Finding
	for _, s := range sigs {
		sum := hex.EncodeToString(s.SHA256[:])
		if in.References.IsVendorKey(s.Data) || slices.ContainsFunc(in.Policy.Spec.BootLoader.MachineOwnerKeys, func(k string) bool { return strings.EqualFold(k, sum) }) {
			continue
		}
		out = append(out, fail(claims.Proven, "machine owner key %s is enrolled", quoted(s.Subject())).at(m.Event).expect("shim's own key only", s.Type+" "+sum).because(
			"someone with access to the console enrolled a key that can sign kernels and boot loaders", "mokutil --delete on the worker, or name it in bootLoader.machineOwnerKeys"))
	}
	if len(out) == 0 {
		var names []string
		for _, s := range sigs {
			names = append(names, describeSignature(s))
		}
		out = one(pass(claims.Proven, "%d machine owner keys, all shim's own or named by the policy", len(sigs)).at(m.Event).expect("", list(names)))
	}
	return out
}

// shimVariables are what shim measures into PCR 14 without saying that something is off (shim, mok.c).
var shimVariables = []string{"MokList", "MokListX", "MokListTrusted", "MokDBState", "MokPolicy", "SbatLevel", "HSIStatus", "MokPW", "MokIgnoreDB"}

// bootLoaderShimValidation: shim checks signatures: MokSBState (measured only when set) is not there, and nothing unknown is.
func bootLoaderShimValidation(in *Input) []Finding {
	if f, bad := in.unproven("whether shim checks signatures cannot be told", 14); bad {
		return one(f)
	}
	var out []Finding
	for i := range in.Claims.Boot.MOK {
		m := &in.Claims.Boot.MOK[i]
		if !slices.Contains(shimVariables, m.Name) {
			out = append(out, fail(claims.Proven, "shim measured %s: its checks of signatures may be switched off", quoted(m.Name)).at(m.Event).expect("not measured", m.Name).because(
				"mokutil --disable-validation was used", "mokutil --enable-validation on the worker, then reboot"))
		}
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
	if f, bad := in.unproven("what systemd-stub did cannot be told", 11, 12); bad {
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
