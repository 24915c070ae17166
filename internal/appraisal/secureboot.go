package appraisal

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/uefi"
)

// Level 2: is UEFI Secure Boot on, with the expected keys and a recent revocation list?
var secureBootRules = []rule{
	{"secure-boot.log", secureBootLog},
	{"secure-boot.state", secureBootState},
	{"secure-boot.mode", secureBootMode},
	{"secure-boot.keys", secureBootKeys},
	{"secure-boot.dbx", secureBootDBX},
	{"secure-boot.actions", secureBootActions},
}

func secureBootLog(in *Input) []Finding { return in.checkPCRs(7) }

// secureBootState: each measurement of the variable SecureBoot says 1 (UEFI 2.10, 3.3).
func secureBootState(in *Input) []Finding {
	if f, bad := in.unproven("Secure Boot state cannot be told", 7); bad {
		return one(f)
	}
	if in.Policy.Spec.SecureBoot.State == "any" {
		return one(pass(claims.Proven, "Secure Boot is not judged (policy)"))
	}
	seen := 0
	for i := range in.Claims.Boot.Variables {
		v := &in.Claims.Boot.Variables[i]
		if v.Name != "SecureBoot" || v.GUID != uefi.GlobalVariable {
			continue
		}
		seen++
		if len(v.Data) != 1 || v.Data[0] != 1 {
			return one(fail(claims.Proven, "Secure Boot is off").at(v.Event).expect("SecureBoot = 01", "SecureBoot = "+hexOrEmpty(v.Data)).because(
				"it was turned off in the firmware's set-up, or its keys were removed", "turn Secure Boot on in the firmware's set-up and reboot"))
		}
	}
	if seen == 0 {
		return one(unknown("the firmware did not measure the variable SecureBoot").because("the firmware has no Secure Boot", "update the firmware"))
	}
	return one(pass(claims.Proven, "Secure Boot is on"))
}

// secureBootMode: where measured, the machine is in user or deployed mode: keys cannot be replaced without a signature (UEFI 2.10, 32.3).
func secureBootMode(in *Input) []Finding {
	if f, bad := in.unproven("Secure Boot mode cannot be told", 7); bad {
		return one(f)
	}
	bad := map[string]byte{"SetupMode": 1, "AuditMode": 1}
	var out []Finding
	var said []string
	for i := range in.Claims.Boot.Variables {
		v := &in.Claims.Boot.Variables[i]
		switch v.Name {
		case "SetupMode", "AuditMode", "DeployedMode":
			said = append(said, v.Name+"="+hexOrEmpty(v.Data))
			if b, no := bad[v.Name]; no && len(v.Data) == 1 && v.Data[0] == b && in.Policy.Spec.SecureBoot.State == "required" {
				out = append(out, fail(claims.Proven, "%s is on: anyone can change the Secure Boot keys or nothing is enforced", v.Name).at(v.Event).expect(v.Name+" = 00", v.Name+" = 01").because(
					"the platform key was removed", "enrol the keys again in the firmware's set-up"))
			}
		}
	}
	if len(out) > 0 {
		return out
	}
	if pk := in.Claims.Boot.Variable("PK"); (pk == nil || len(pk.Signatures) == 0) && in.Policy.Spec.SecureBoot.State == "required" {
		return one(fail(claims.Proven, "no platform key is enrolled: the machine is in setup mode").expect("PK with one certificate", "PK empty").because(
			"the platform key was removed", "enrol the keys again in the firmware's set-up"))
	}
	if len(said) == 0 {
		return one(pass(claims.Proven, "a platform key is enrolled; the firmware does not measure setup, audit and deployed mode"))
	}
	return one(pass(claims.Proven, "%s", strings.Join(said, ", ")))
}

// secureBootKeys: PK, KEK and db hold the same certificates and hashes as one captured set.
func secureBootKeys(in *Input) []Finding {
	if f, bad := in.unproven("Secure Boot keys cannot be told", 7); bad {
		return one(f)
	}
	b := in.Claims.Boot
	if in.Policy.Spec.SecureBoot.Keys == "any" {
		return listKeys(b, "not compared (policy)")
	}
	var closest []Finding
	for _, k := range in.References.Keys() {
		var out []Finding
		for _, v := range []struct {
			name string
			want []reference.Signature
		}{{"PK", k.PK}, {"KEK", k.KEK}, {"db", k.DB}} {
			out = append(out, compareKeys(b, v.name, v.want, k.Source)...)
		}
		if len(out) == 0 {
			return listKeys(b, fmt.Sprintf("equals reference %q", k.Source))
		}
		if closest == nil || len(out) < len(closest) {
			closest = out
		}
	}
	if closest == nil {
		return one(unknown("keys: %s; no reference to compare with", describeKeys(b)).because("no keys were captured yet",
			"check the keys by other means, then: touchstone reference capture NODE --what keys"))
	}
	return closest
}

func compareKeys(b *claims.Boot, name string, want []reference.Signature, source string) []Finding {
	v := b.Variable(name)
	if v == nil {
		return one(unknown("the firmware did not measure %s", name))
	}
	key := func(typ, sum string) string { return typ + " " + sum }
	have := make(map[string]bool)
	for _, s := range v.Signatures {
		have[key(s.Type, hex.EncodeToString(s.SHA256[:]))] = true
	}
	expected := make(map[string]bool)
	var out []Finding
	for _, w := range want {
		expected[key(w.Type, w.SHA256)] = true
		if !have[key(w.Type, w.SHA256)] {
			out = append(out, fail(claims.Proven, "%s lacks a key of reference %q", name, source).at(v.Event).expect(w.Type+" "+w.Subject+" "+w.SHA256, "not there").because(
				"keys were removed or replaced in the firmware", "restore the keys, or capture the new ones: touchstone reference capture NODE --what keys"))
		}
	}
	for _, s := range v.Signatures {
		if !expected[key(s.Type, hex.EncodeToString(s.SHA256[:]))] {
			out = append(out, fail(claims.Proven, "%s holds a key that is not in reference %q", name, source).at(v.Event).expect("not there", describeSignature(s)).because(
				"someone enrolled another key, which can sign boot loaders", "remove the key, or capture the new set: touchstone reference capture NODE --what keys"))
		}
	}
	return out
}

// secureBootDBX: dbx holds at least what the captured dbx and the imported revocation lists hold. More is an update, and fine.
func secureBootDBX(in *Input) []Finding {
	if f, bad := in.unproven("revocations cannot be told", 7); bad {
		return one(f)
	}
	v := in.Claims.Boot.Variable("dbx")
	if v == nil {
		return one(unknown("the firmware did not measure dbx"))
	}
	if in.Policy.Spec.SecureBoot.DBX == "any" {
		return one(pass(claims.Proven, "dbx holds %d entries (the policy does not compare them)", len(v.Signatures)).at(v.Event).expect("", listSignatures(v)))
	}
	have := make(map[string]bool, len(v.Signatures))
	for _, s := range v.Signatures {
		have[hex.EncodeToString(s.SHA256[:])] = true
	}
	var closest []reference.Revoked
	found, of := false, 0
	for _, wanted := range in.requiredDBX() {
		var missing []reference.Revoked
		for _, r := range wanted {
			if !have[r.Hash] {
				missing = append(missing, r)
			}
		}
		if len(missing) == 0 {
			return one(pass(claims.Proven, "dbx holds all %d revocations of the references, %d in all", len(wanted), len(v.Signatures)).at(v.Event).expect("", listSignatures(v)))
		}
		if !found || len(missing) < len(closest) {
			found, closest, of = true, missing, len(wanted)
		}
	}
	if !found {
		return one(unknown("dbx holds %d entries; no reference to compare with", len(v.Signatures)).because("no dbx was captured or imported yet",
			"touchstone reference capture NODE --what keys, or touchstone reference import dbx FILE"))
	}
	var names []string
	for _, r := range closest[:min(len(closest), 5)] {
		names = append(names, strings.TrimSpace(r.Hash+" "+r.Name))
	}
	return one(fail(claims.Proven, "dbx lacks %d of %d revocations", len(closest), of).at(v.Event).expect(strings.Join(names, "; "), "not in dbx").because(
		"the revocation list of the firmware is older than the reference, or was rolled back", "update dbx (fwupdmgr update, or the vendor's firmware update)"))
}

// requiredDBX returns the lists of which one must be in dbx whole: what each captured set holds, each time with all imported revocation lists.
func (in *Input) requiredDBX() [][]reference.Revoked {
	imported := in.References.RevokedAll()
	var out [][]reference.Revoked
	for _, k := range in.References.Keys() {
		list := slices.Clone(imported)
		for _, s := range k.DBX {
			list = append(list, reference.Revoked{Type: s.Type, Hash: s.SHA256, Name: s.Subject})
		}
		out = append(out, list)
	}
	if out == nil && len(imported) > 0 {
		out = append(out, imported)
	}
	return out
}

// secureBootActions: EFI actions in PCR 7 say that a protection was off: a debugger, DMA protection (PC Client PFP 3.3.4.8).
func secureBootActions(in *Input) []Finding {
	if f, bad := in.unproven("EFI actions cannot be told", 7); bad {
		return one(f)
	}
	var out []Finding
	for _, a := range in.Claims.Boot.Actions {
		if slices.Contains(in.Policy.Spec.SecureBoot.Actions, a.Text) {
			continue
		}
		out = append(out, fail(claims.Proven, "the firmware reports: %s", a.Text).at(a.Event).expect("no EFI action", a.Text).because(
			"a debugger or a protection switched off in the firmware's set-up", "switch it back in the firmware's set-up, or accept it: secureBoot.actions"))
	}
	if len(out) == 0 {
		out = one(pass(claims.Proven, "the firmware reports no debugger and no protection switched off"))
	}
	return out
}

// listKeys shows the content of PK, KEK and db, one finding each.
func listKeys(b *claims.Boot, why string) []Finding {
	var out []Finding
	for _, n := range []string{"PK", "KEK", "db"} {
		if v := b.Variable(n); v != nil {
			out = append(out, pass(claims.Proven, "%s holds %d keys: %s", n, len(v.Signatures), why).at(v.Event).expect("", listSignatures(v)))
		}
	}
	if out == nil {
		out = one(pass(claims.Proven, "the firmware measured no keys: %s", why))
	}
	return out
}

func listSignatures(v *claims.Variable) string {
	s := make([]string, 0, len(v.Signatures))
	for _, sig := range v.Signatures {
		s = append(s, describeSignature(sig))
	}
	return list(s)
}

func describeKeys(b *claims.Boot) string {
	var s []string
	for _, n := range []string{"PK", "KEK", "db"} {
		if v := b.Variable(n); v != nil {
			s = append(s, fmt.Sprintf("%s %d", n, len(v.Signatures)))
		}
	}
	return strings.Join(s, ", ")
}

func describeSignature(s uefi.Signature) string {
	owner := uefi.GUIDName(s.Owner)
	if owner == "" {
		owner = s.Owner
	}
	return fmt.Sprintf("%s %s %x (owner %s)", s.Type, s.Subject(), s.SHA256, owner)
}

func hexOrEmpty(b []byte) string {
	if len(b) == 0 {
		return "empty"
	}
	return hex.EncodeToString(b[:min(len(b), 16)])
}
