package appraisal

import (
	"encoding/hex"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/uefi"
)

// bootLoaderMOK: the machine owner key list of PCR 14 holds nothing but shim's own key and what the policy names. An event of PCR 14 has only the
// digest of the list, and its name is covered by nothing; so the order in which shim measures decides which event is the list. The list itself is
// either the claimed MokListRT, which then is proven, or the one that shim makes of its own key.
func bootLoaderMOK(in *Input) []Finding {
	if f, bad := in.unproven("machine owner keys cannot be told", 14); bad {
		return one(f)
	}
	b := in.Claims.Boot
	if len(b.MOK) == 0 {
		return one(pass(claims.Proven, "shim measured no machine owner key list"))
	}
	if bad := shimOrder(b.MOK); bad != nil {
		return one(fail(claims.Proven, "shim measured %s where it does not", quoted(bad.Name)).at(bad.Event).expect(strings.Join(shimVariables, ", then "), bad.Name).because(
			"the log was altered to hide a machine owner key, shim's checks are switched off, or a shim that is not known here", "mokutil --list-enrolled and mokutil --sb-state on the worker"))
	}
	out := in.mokList(&b.MOK[0])
	for i := range b.MOK[1:] {
		if m := &b.MOK[1+i]; m.Name == "MokListX" {
			out = append(out, in.mokListX(m))
		}
	}
	return out
}

// shimVariables are what shim measures into PCR 14 when nothing is switched off, in its order (shim, mok.c).
var shimVariables = []string{"MokList", "MokListX", "MokListTrusted"}

// shimOrder returns the first event that is not what shim measures next; nil when all fit. The first must be MokList.
func shimOrder(events []claims.Named) *claims.Named {
	next := 0
	for i := range events {
		at := slices.Index(shimVariables, events[i].Name)
		if at < next || i == 0 && at != 0 {
			return &events[i]
		}
		next = at + 1
	}
	return nil
}

func (in *Input) mokList(m *claims.Named) []Finding {
	bank := in.Claims.Boot.Bank
	if list := in.Claims.Facts.MOKList; list != nil && hashes(bank, list, m.Digest) {
		return in.judgeMOK(m, list)
	}
	for _, k := range in.References.VendorKeys() {
		if hashes(bank, uefi.EncodeX509List(uefi.ShimLock, k.DER), m.Digest) {
			return one(pass(claims.Proven, "no machine owner key besides shim's own (%s)", k.Subject).at(m.Event))
		}
	}
	return one(unknown("the machine owner key list is not the one that shim makes of its own key, and its content did not come along").at(m.Event).expect(
		"shim's own key", hex.EncodeToString(m.Digest)).because("someone enrolled a key, or the agent could not read MokListRT", "mokutil --list-enrolled on the worker; remove what is not yours"))
}

// mokListX shows the list of what shim refuses. It can only take away trust, so its content is not needed; but one that came along must be the measured
// one, and a list.
func (in *Input) mokListX(m *claims.Named) Finding {
	list := in.Claims.Facts.MOKListX
	if list == nil {
		return Finding{Status: Pass, Provenance: string(claims.NotKnown), Message: "the content of MokListX, which shim refuses, did not come along"}.at(m.Event)
	}
	if !hashes(in.Claims.Boot.Bank, list, m.Digest) {
		return unknown("the list that shim refuses (MokListX) is not the one that the worker shows").at(m.Event).expect("MokListXRT", hex.EncodeToString(m.Digest)).because(
			"the log was altered to hide another variable, or the facts are of another boot", "mokutil --sb-state and mokutil --list-enrolled --mokx on the worker")
	}
	sigs, err := uefi.ParseSignatureLists(list)
	if err != nil {
		return fail(claims.Proven, "MokListX cannot be read: %v", err).at(m.Event).because("the log was altered to hide another variable", "mokutil --sb-state on the worker")
	}
	return pass(claims.Proven, "shim refuses %d more images and keys (MokListX)", len(sigs)).at(m.Event)
}

func (in *Input) judgeMOK(m *claims.Named, content []byte) []Finding {
	sigs, err := uefi.ParseSignatureLists(content)
	if err != nil {
		return one(fail(claims.Proven, "the machine owner key list cannot be read: %v", err).at(m.Event).because("the list was written by something else than shim", "mokutil --list-enrolled on the worker; mokutil --reset"))
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
