package appraisal

import (
	"fmt"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/uefi"
	"touchstone.dev/touchstone/internal/uefi/uefitest"
)

const imageSecurity = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"

// addKey puts a certificate into a signature database.
func addKey(old []byte) []byte { return append(old, uefi.EncodeX509List(uefitest.Owner, evil)...) }

// addHash puts a hash into one.
func addHash(content string) func([]byte) []byte {
	return func(old []byte) []byte { return append(old, uefitest.List(uefitest.SHA256, sum(content))...) }
}

// measured adds a variable before the separator, as firmware does.
func measured(name string, data []byte) func(*world) {
	return func(w *world) {
		e := *w.event(7, string(wide("SecureBoot")))
		say(&e, w.variable(uefi.GlobalVariable, name, data))
		w.log.Entries = append(w.log.Entries[:1:1], append([]eventlogtest.Entry{e}, w.log.Entries[1:]...)...)
	}
}

// revoke imports a revocation list.
func revoke(hash, name string) func(*world) {
	return func(w *world) {
		w.sources = append(w.sources, reference.Source{Kind: reference.KindDBX, Name: "the list", Revoked: []reference.Revoked{{Type: "sha256", Hash: hash, Name: name}}})
	}
}

var secureBootCases = []ruleCase{
	{"secure-boot.log", "good", nil, Pass, "PCR 7", claims.Proven},
	{"secure-boot.log", "not what the TPM holds", differs(7), Fail, "does not replay", claims.Proven},
	{"secure-boot.log", "not quoted", unquoted(7), Fail, "not quoted", claims.NotKnown},
	{"secure-boot.log", "other data than measured", func(w *world) { w.event(7, string(wide("SecureBoot"))).Data[52] ^= 1 }, Fail, "do not hash", claims.Proven},
	{"secure-boot.log", "event retyped", func(w *world) { w.log.Add(7, eventlog.EFISPDMDevicePolicy, []byte("UEFI Debug Mode")) }, Fail, "device certificates", claims.Proven},

	{"secure-boot.state", "on", nil, Pass, "on", claims.Proven},
	{"secure-boot.state", "off", func(w *world) { w.set("SecureBoot", replace([]byte{0})) }, Fail, "SecureBoot = 00", claims.Proven},
	{"secure-boot.state", "empty", func(w *world) { w.set("SecureBoot", replace(nil)) }, Fail, "SecureBoot = empty", claims.Proven},
	{"secure-boot.state", "off at a second measurement", measured("SecureBoot", []byte{0}), Fail, "off", claims.Proven},
	{"secure-boot.state", "not measured", func(w *world) { w.drop(7, wide("SecureBoot")) }, Unknown, "did not measure", claims.NotKnown},
	{"secure-boot.state", "not quoted", unquoted(7), Unknown, "not quoted", claims.NotKnown},
	{"secure-boot.state", "any", func(w *world) {
		w.set("SecureBoot", replace([]byte{0}))
		w.spec.SecureBoot.State = "any"
	}, Pass, "not judged", claims.Proven},

	{"secure-boot.mode", "good", nil, Pass, "platform key", claims.Proven},
	{"secure-boot.mode", "setup mode", func(w *world) { w.set("PK", replace(nil)) }, Fail, "setup mode", claims.Proven},
	{"secure-boot.mode", "setup mode measured", measured("SetupMode", []byte{1}), Fail, "SetupMode", claims.Proven},
	{"secure-boot.mode", "audit mode", measured("AuditMode", []byte{1}), Fail, "AuditMode", claims.Proven},
	{"secure-boot.mode", "user mode", measured("SetupMode", []byte{0}), Pass, "SetupMode=00", claims.Proven},
	{"secure-boot.mode", "any", func(w *world) {
		w.set("PK", replace(nil))
		measured("AuditMode", []byte{1})(w)
		w.spec.SecureBoot.State = "any"
	}, Pass, "AuditMode=01", claims.Proven},
	{"secure-boot.mode", "no log", noLog, Unknown, "no firmware log", claims.NotKnown},

	{"secure-boot.keys", "good", nil, Pass, capture, claims.Proven},
	{"secure-boot.keys", "key added to db", func(w *world) { w.set("db", addKey) }, Fail, "Evil CA", claims.Proven},
	{"secure-boot.keys", "hash added to db", func(w *world) { w.set("db", addHash("evil loader")) }, Fail, fmt.Sprintf("%x", sum("evil loader")), claims.Proven},
	{"secure-boot.keys", "KEK replaced", func(w *world) { w.set("KEK", replace(addKey(nil))) }, Fail, "KEK lacks", claims.Proven},
	{"secure-boot.keys", "PK replaced", func(w *world) { w.set("PK", replace(addKey(nil))) }, Fail, "PK holds a key", claims.Proven},
	{"secure-boot.keys", "db not measured", func(w *world) { w.drop(7, w.variable(imageSecurity, "db", nil)[32:]) }, Unknown, "did not measure db", claims.NotKnown},
	{"secure-boot.keys", "two halves of two references", func(w *world) {
		w.set("KEK", addKey)
		other := *w.source(capture)
		k := *other.Keys
		k.KEK, k.DB = append(k.KEK[:len(k.KEK):len(k.KEK)], reference.Signature{Type: "x509", SHA256: fmt.Sprintf("%x", sum(string(evil)))}), nil
		other.Name, other.Firmware, other.Keys = "node other", nil, &k
		w.sources = append(w.sources, other)
	}, Fail, "KEK holds a key", claims.Proven},
	{"secure-boot.keys", "no reference", func(w *world) { w.source(capture).Keys = nil }, Unknown, "no reference", claims.NotKnown},
	{"secure-boot.keys", "any", func(w *world) {
		w.set("db", addKey)
		w.spec.SecureBoot.Keys = "any"
	}, Pass, "not compared", claims.Proven},
	{"secure-boot.keys", "not quoted", unquoted(7), Unknown, "not quoted", claims.NotKnown},

	{"secure-boot.dbx", "good", nil, Pass, "dbx holds all", claims.Proven},
	{"secure-boot.dbx", "rolled back", func(w *world) { w.set("dbx", replace(nil)) }, Fail, "lacks", claims.Proven},
	{"secure-boot.dbx", "replaced by as many others", func(w *world) { w.set("dbx", replace(addHash("harmless")(nil))) }, Fail, "lacks", claims.Proven},
	{"secure-boot.dbx", "more than wanted", func(w *world) { w.set("dbx", addHash("a new hole")) }, Pass, "holds all", claims.Proven},
	{"secure-boot.dbx", "older than the imported list", revoke(fmt.Sprintf("%x", sum("a new hole")), "BOOTX64.EFI of 2027"), Fail, "BOOTX64.EFI of 2027", claims.Proven},
	{"secure-boot.dbx", "not measured", func(w *world) { w.drop(7, wide("dbx")) }, Unknown, "did not measure", claims.NotKnown},
	{"secure-boot.dbx", "no reference", func(w *world) { w.source(capture).Keys = nil }, Unknown, "no reference", claims.NotKnown},
	{"secure-boot.dbx", "imported list alone", func(w *world) {
		w.source(capture).Keys = nil
		revoke(fmt.Sprintf("%x", sum("a hole")), "")(w)
		w.set("dbx", addHash("a hole"))
	}, Pass, "holds all 1", claims.Proven},
	{"secure-boot.dbx", "any", func(w *world) {
		w.set("dbx", replace(nil))
		w.spec.SecureBoot.DBX = "any"
	}, Pass, "0 entries", claims.Proven},
	{"secure-boot.dbx", "not quoted", unquoted(7), Unknown, "not quoted", claims.NotKnown},

	{"secure-boot.actions", "none", nil, Pass, "no debugger", claims.Proven},
	{"secure-boot.actions", "debugger", action("UEFI Debug Mode"), Fail, "UEFI Debug Mode", claims.Proven},
	{"secure-boot.actions", "no DMA protection", action("DMA Protection Disabled"), Fail, "DMA Protection Disabled", claims.Proven},
	{"secure-boot.actions", "accepted", func(w *world) {
		action("DMA Protection Disabled")(w)
		w.spec.SecureBoot.Actions = []string{"DMA Protection Disabled"}
	}, Pass, "", claims.Proven},
	{"secure-boot.actions", "another than accepted", func(w *world) {
		action("UEFI Debug Mode")(w)
		w.spec.SecureBoot.Actions = []string{"DMA Protection Disabled"}
	}, Fail, "UEFI Debug Mode", claims.Proven},
	{"secure-boot.actions", "not quoted", unquoted(7), Unknown, "not quoted", claims.NotKnown},
}

func action(text string) func(*world) {
	return func(w *world) { w.log.Add(7, eventlog.EFIAction, []byte(text)) }
}
