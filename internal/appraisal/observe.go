package appraisal

import (
	"encoding/hex"
	"strings"

	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/tpm"
)

// Limits on what Runtime keeps of one boot, so that a hostile list cannot fill memory.
const (
	MaxSamples = 32   // entries of one kind that are kept in full; the others are counted
	MaxModules = 1024 // modules that are kept; more is a finding
	maxPath    = 512  // bytes of a path that are kept
)

// Runtime is what the IMA list showed so far in one boot, judged with one policy and one set of references. It grows with what is
// wrong, not with the list, and is kept between attestations.
type Runtime struct {
	Entries        uint64   `cbor:"1,keyasint"`
	Known          uint64   `cbor:"2,keyasint"`           // entries whose file is in the references
	Allowed        uint64   `cbor:"3,keyasint"`           // unknown, at a path where the policy allows it
	Unknown        Tally    `cbor:"4,keyasint,omitempty"` // files that nothing knows
	Violations     Tally    `cbor:"5,keyasint,omitempty"` // files that changed while they were measured
	Problems       Tally    `cbor:"6,keyasint,omitempty"` // entries that cannot be read
	Mismatches     Tally    `cbor:"7,keyasint,omitempty"` // known content at a path where it does not belong
	Buffers        Tally    `cbor:"8,keyasint,omitempty"` // measured buffers: keys, critical data
	Modules        []Module `cbor:"9,keyasint,omitempty"` // kernel modules loaded or tried
	MoreModules    uint64   `cbor:"10,keyasint,omitempty"`
	Proof          string   `cbor:"11,keyasint,omitempty"` // a path that proves that programs are measured
	Aggregate      bool     `cbor:"12,keyasint"`           // the list starts with a boot_aggregate
	AggregateError string   `cbor:"13,keyasint,omitempty"` // why it does not agree with the quoted PCRs
	// AggregateUnknown says that AggregateError is no disagreement: the PCRs that it covers are not quoted.
	AggregateUnknown bool `cbor:"14,keyasint,omitempty"`
	// Kexec are command lines of kernels that were loaded for kexec, apart from Buffers so that others cannot crowd them out.
	Kexec Tally `cbor:"15,keyasint,omitempty"`
}

// Tally counts entries and keeps the first of them.
type Tally struct {
	Count uint64   `cbor:"1,keyasint,omitempty"`
	First []Sample `cbor:"2,keyasint,omitempty"`
}

// Sample is one entry of the IMA list.
type Sample struct {
	Index  uint64 `cbor:"1,keyasint"`
	Path   string `cbor:"2,keyasint"`
	Digest string `cbor:"3,keyasint,omitempty"` // "sha256:..."
	Note   string `cbor:"4,keyasint,omitempty"`
}

// Module is a kernel module in the IMA list. It was loaded or at least tried: IMA measures it before its signature is checked.
type Module struct {
	Index  uint64 `cbor:"1,keyasint"`
	Name   string `cbor:"2,keyasint"` // as /proc/modules shows it; guessed from the path when unknown
	Path   string `cbor:"3,keyasint"`
	Digest string `cbor:"4,keyasint,omitempty"`
	Known  bool   `cbor:"5,keyasint,omitempty"`
	Source string `cbor:"6,keyasint,omitempty"`
	Kernel string `cbor:"7,keyasint,omitempty"` // release that it was built for
	Signer string `cbor:"8,keyasint,omitempty"`
}

// Observe judges further entries of the list, and keeps nothing of them. The result depends on p and refs: a Runtime goes on only with the
// same ones.
func (r *Runtime) Observe(entries []ima.Entry, p *policy.Policy, refs *reference.Set) {
	var queries [32]reference.FileQuery
	for len(entries) > 0 {
		some := entries[:min(len(entries), len(queries))]
		for i := range some {
			queries[i].Alg, queries[i].Digest = some[i].Alg, some[i].Digest
		}
		refs.Files(queries[:len(some)])
		for i := range some {
			r.observe(&some[i], &p.Spec.Runtime, &queries[i])
		}
		entries = entries[len(some):]
	}
}

func (r *Runtime) observe(e *ima.Entry, rules *policy.Runtime, file *reference.FileQuery) {
	r.Entries++
	switch {
	case e.Index == 0 && e.Path == ima.AggregateName:
		r.Aggregate = true
	case e.Violation:
		r.Violations.add(e, "")
	case e.Problem != "":
		r.Problems.add(e, e.Problem)
	case len(e.Buffer) > 0 && e.Path == "kexec-cmdline":
		r.Kexec.add(e, "")
	case len(e.Buffer) > 0:
		r.Buffers.add(e, "")
	default:
		r.file(e, rules, &file.Ref, file.Known)
	}
}

func (r *Runtime) file(e *ima.Entry, rules *policy.Runtime, ref *reference.FileRef, known bool) {
	r.mustMatch(e, rules, ref, known)
	if (known && ref.Module != nil) || isModule(e.Path) {
		r.module(e, ref, known)
		return
	}
	if r.Proof == "" {
		for _, p := range rules.Proof {
			if p == e.Path {
				r.Proof = p
				break
			}
		}
	}
	switch {
	case known:
		r.Known++
	case policy.MatchAny(rules.AllowPaths, e.Path):
		r.Allowed++
	default:
		r.Unknown.add(e, unknownNote(e))
	}
}

// mustMatch holds a file against the rules on its path. Content that nothing knows breaks them too, even where the policy allows it otherwise.
func (r *Runtime) mustMatch(e *ima.Entry, rules *policy.Runtime, ref *reference.FileRef, known bool) {
	for i := range rules.MustMatch {
		m := &rules.MustMatch[i]
		switch {
		case !policy.Match(m.Path, e.Path):
		case !known:
			r.Mismatches.add(e, "is unknown, must be of "+m.Source)
		case !policy.Match(m.Source, ref.Source) && !policy.Match(m.Source, firstWord(ref.Source)):
			r.Mismatches.add(e, "is "+ref.Path+" of "+ref.Source+", must be of "+m.Source)
		}
	}
}

func unknownNote(e *ima.Entry) string {
	if e.Alg != tpm.AlgSHA256 {
		return "measured with " + e.Alg.String() + ", references hold SHA-256: add ima_hash=sha256 to the command line"
	}
	return ""
}

func (r *Runtime) module(e *ima.Entry, ref *reference.FileRef, known bool) {
	m := Module{Index: e.Index, Path: clip(e.Path), Known: known, Name: moduleName(e.Path)}
	if known {
		r.Known++
		m.Source = ref.Source
		if ref.Module != nil {
			m.Name, m.Kernel, m.Signer = ref.Module.Name, ref.Module.Kernel, ref.Module.Signer
		}
	} else {
		m.Digest = digestText(e)
	}
	if len(r.Modules) >= MaxModules {
		r.MoreModules++
		return
	}
	r.Modules = append(r.Modules, m)
}

func (t *Tally) add(e *ima.Entry, note string) {
	t.Count++
	if len(t.First) < MaxSamples {
		t.First = append(t.First, Sample{Index: e.Index, Path: clip(e.Path), Digest: digestText(e), Note: note})
	}
}

func digestText(e *ima.Entry) string {
	if len(e.Digest) == 0 {
		return ""
	}
	return e.Alg.String() + ":" + hex.EncodeToString(e.Digest[:min(len(e.Digest), 64)])
}

func clip(s string) string { return strings.Clone(s[:min(len(s), maxPath)]) }

func firstWord(s string) string {
	w, _, _ := strings.Cut(s, " ")
	return w
}

// isModule tells a kernel module by its name: no template says which hook measured a file. A module under another name is judged as a file.
func isModule(path string) bool {
	_, ok := trimModule(path)
	return ok
}

func trimModule(path string) (string, bool) {
	s := path
	for _, ext := range [...]string{".xz", ".zst", ".gz"} {
		if cut, ok := strings.CutSuffix(path, ext); ok {
			s = cut
			break
		}
	}
	if s, ok := strings.CutSuffix(s, ".ko"); ok {
		return s, true
	}
	return path, false
}

func moduleName(path string) string {
	s, _ := trimModule(path)
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		s = s[i+1:]
	}
	return strings.ReplaceAll(clip(s), "-", "_")
}
