package appraisal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unicode/utf16"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/uefi"
	"touchstone.dev/touchstone/internal/uefi/uefitest"
)

// boots is the golden corpus; its boot `good` is the world that each case changes in one point.
const boots = "../../test/boots"

var now = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// world is everything that the rules look at, before it is read: the log and what the TPM holds always agree, unless a case says otherwise.
type world struct {
	t       testing.TB
	log     *eventlogtest.Builder // nil: no firmware log
	bank    tpm.Alg
	quoted  tpm.PCRSet
	facts   map[string][]byte
	entries []ima.Entry // nil: no IMA list
	sources []reference.Source
	spec    *policy.Spec
	policy  *policy.Policy
	// after changes the input when all is read.
	after []func(*Input)
}

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{boots}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newWorld(t testing.TB) *world {
	t.Helper()
	p, err := policy.Parse(policy.Default())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, bank: tpm.AlgSHA256, quoted: tpm.PCRs(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14), facts: map[string][]byte{}, policy: p, spec: &p.Spec}
	if w.log, err = eventlogtest.Open(read(t, "corpus/good/eventlog.bin")); err != nil {
		t.Fatal(err)
	}
	if w.sources, err = reference.ReadSources(boots + "/references"); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{evidence.FactLockdown, evidence.FactTainted, evidence.FactSigEnforce, evidence.FactCommandLine, evidence.FactModules, evidence.FactVersion} {
		w.facts[f] = read(t, "corpus/good", f)
	}
	w.facts[evidence.FactEFIPrefix+"MokListXRT-"+uefi.ShimLock] = read(t, "corpus/good/efivars/MokListXRT-"+uefi.ShimLock)
	if err := ima.Parse(read(t, "corpus/good/ima.bin"), func(e *ima.Entry) error { w.entries = append(w.entries, *e); return nil }); err != nil {
		t.Fatal(err)
	}
	return w
}

// input reads the world as the verifier does.
func (w *world) input() *Input {
	w.t.Helper()
	c := &claims.Claims{Bank: w.bank, Quote: claims.Quote{Banks: []tpm.Alg{w.bank}, PCRs: w.quoted, Enrolled: true}, Facts: claims.ReadFacts(w.facts), BootError: "none came along"}
	values := eventlogtest.New(w.bank).PCRs(w.bank)
	if w.log != nil {
		boot, err := claims.ReadBoot(w.log.Bytes(), w.bank)
		if err != nil {
			w.t.Fatal(err)
		}
		c.Boot, c.BootError, values = boot, "", w.log.PCRs(w.bank)
	}
	for i := range values.Values {
		if !w.quoted.Has(i) {
			values.Values[i] = nil
		}
	}
	c.Values = &values
	c.Compare([]tpm.Bank{values})
	refs, err := reference.Compile(w.sources)
	if err != nil {
		w.t.Fatal(err)
	}
	in := &Input{Claims: c, Policy: w.policy, References: refs, Now: now}
	if w.entries != nil {
		in.Runtime = new(Runtime)
		in.Runtime.Observe(w.entries, w.policy, refs)
	}
	for _, change := range w.after {
		change(in)
	}
	return in
}

// event returns the entry of the log in PCR pcr whose data hold text.
func (w *world) event(pcr uint32, text string) *eventlogtest.Entry {
	w.t.Helper()
	i := slices.IndexFunc(w.log.Entries, func(e eventlogtest.Entry) bool { return e.PCR == pcr && bytes.Contains(e.Data, []byte(text)) })
	if i < 0 {
		w.t.Fatalf("no event of PCR %d with %q", pcr, text)
	}
	return &w.log.Entries[i]
}

// say replaces data and digest of an event.
func say(e *eventlogtest.Entry, data []byte) { e.Data, e.Over, e.Digests = data, nil, nil }

// measure replaces the digest of an event whose data are only a label.
func measure(e *eventlogtest.Entry, content string) { e.Over, e.Digests = []byte(content), nil }

// command runs a GRUB command behind all others.
func (w *world) command(text string) {
	w.log.AddOver(8, eventlog.IPLType, []byte("grub_cmd: "+text+"\x00"), []byte(text))
}

// file lets GRUB read a file behind all others.
func (w *world) file(name, content string) {
	w.log.AddOver(9, eventlog.IPLType, []byte(name+"\x00"), []byte(content))
}

// image starts another image behind all others.
func (w *world) image(content string) {
	w.log.AddOver(4, eventlog.EFIBootServicesApplication, make([]byte, 32), []byte(content))
}

// cmdline changes the command line wherever the worker shows it.
func (w *world) cmdline(line string) {
	for _, prefix := range []string{"grub_cmd: linux /vmlinuz ", "kernel_cmdline: /vmlinuz "} {
		_, text, _ := bytes.Cut([]byte(prefix+line), []byte(": "))
		e := w.event(8, prefix)
		e.Data, e.Over, e.Digests = []byte(prefix+line+"\x00"), text, nil
	}
	w.facts[evidence.FactCommandLine] = []byte("BOOT_IMAGE=/vmlinuz " + line + "\n")
}

const goodWords = "ima_policy=tcb module.sig_enforce=1"

func wide(s string) []byte {
	var b []byte
	for _, c := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return b
}

// variable is UEFI_VARIABLE_DATA.
func (w *world) variable(owner, name string, data []byte) []byte {
	w.t.Helper()
	g, err := uefi.ParseGUID(owner)
	if err != nil {
		w.t.Fatal(err)
	}
	b := binary.LittleEndian.AppendUint64(g[:], uint64(len(name)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	return append(append(b, wide(name)...), data...)
}

// set changes the content of a variable that the firmware measured; keep returns what it held.
func (w *world) set(name string, change func(old []byte) []byte) {
	w.t.Helper()
	for i := range w.log.Entries {
		e := &w.log.Entries[i]
		if e.PCR != 7 || e.Type != eventlog.EFIVariableDriverConfig {
			continue
		}
		ev := eventlog.Event{Type: e.Type, Data: e.Data}
		v, err := ev.Variable()
		if err != nil || v.Name != name {
			continue
		}
		say(e, w.variable(v.GUID, name, change(slices.Clone(v.Data))))
		return
	}
	w.t.Fatalf("no variable %s", name)
}

// replace is a change to some content.
func replace(b []byte) func([]byte) []byte { return func([]byte) []byte { return b } }

// drop takes events out of the log, and out of what the TPM measured.
func (w *world) drop(pcr uint32, text []byte) {
	w.log.Entries = slices.DeleteFunc(w.log.Entries, func(e eventlogtest.Entry) bool { return e.PCR == pcr && bytes.Contains(e.Data, text) })
}

// addAuthority says that a key let an image run.
func (w *world) addAuthority(owner, name string, content []byte) {
	g, _ := uefi.ParseGUID(uefi.ShimLock)
	w.log.Add(7, eventlog.EFIVariableAuthority, w.variable(owner, name, append(g[:], content...)))
}

// source finds a source of the references.
func (w *world) source(name string) *reference.Source {
	w.t.Helper()
	i := slices.IndexFunc(w.sources, func(s reference.Source) bool { return s.Name == name })
	if i < 0 {
		w.t.Fatalf("no source %s", name)
	}
	return &w.sources[i]
}

const (
	capture = "OVMF 2022.11 q35"
	linux   = "linux-image-6.1.0-56-cloud-amd64"
)

// without drops a source.
func (w *world) without(names ...string) {
	w.sources = slices.DeleteFunc(w.sources, func(s reference.Source) bool { return slices.Contains(names, s.Name) })
}

// run adds a measured file.
func (w *world) run(path, content string) *ima.Entry {
	w.entries = append(w.entries, ima.Entry{Index: uint64(len(w.entries)), PCR: 10, Alg: tpm.AlgSHA256, Digest: sum(content), Path: path})
	return &w.entries[len(w.entries)-1]
}

// know makes a file known.
func (w *world) know(source, path, content string) {
	w.sources = append(w.sources, reference.Source{Kind: reference.KindFiles, Name: source, Files: []reference.File{{Path: path, SHA256: hex.EncodeToString(sum(content))}}})
}

func sum(content string) []byte {
	h := tpm.AlgSHA256.Hash().New()
	h.Write([]byte(content))
	return h.Sum(nil)
}

// evil is a certificate that nobody trusts.
var evil = func() []byte {
	s, err := uefitest.NewSigner("Evil CA", nil)
	if err != nil {
		panic(err)
	}
	return s.Cert.Raw
}()

// fact changes one; nil takes it away.
func (w *world) fact(name, value string) { w.facts[name] = []byte(value) }

// taken takes a fact away.
func (w *world) taken(name string) { delete(w.facts, name) }

func dump(v any) string {
	b, _ := json.MarshalIndent(v, "", " ")
	return string(b)
}
