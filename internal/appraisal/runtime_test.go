package appraisal

import (
	"fmt"
	"testing"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/tpm"
)

// changed changes what the IMA list showed.
func changed(change func(*Runtime)) func(*world) {
	return func(w *world) { w.after = append(w.after, func(in *Input) { change(in.Runtime) }) }
}

func noList(w *world) { w.entries = nil }

func imaAny(w *world) { w.spec.Runtime.IMA = "any" }

// buffer adds a measured buffer.
func (w *world) buffer(name string) { w.run(name, name).Buffer = []byte(name) }

// loads adds a module, as IMA sees it.
func (w *world) loads(path, content string) { w.run(path, content) }

// says makes the worker say that modules of these names are loaded, too.
func (w *world) says(names ...string) {
	for _, n := range names {
		w.facts[evidence.FactModules] = append(w.facts[evidence.FactModules], n+" 4096 0 - Live 0x0\n"...)
	}
}

var moduleCases = []ruleCase{
	{RuleModules, "good", nil, Pass, "10 modules", claims.Proven},
	{RuleModules, "unknown", func(w *world) { w.loads("/tmp/rootkit.ko", "rootkit") }, Fail, "/tmp/rootkit.ko", claims.Proven},
	{RuleModules, "unknown, as the worker says loaded", func(w *world) {
		w.loads("/tmp/rootkit.ko.xz", "rootkit")
		w.says("rootkit")
	}, Fail, "loaded, as the worker says", claims.Proven},
	{RuleModules, "tried, but not loaded", func(w *world) {
		w.loads("/lib/modules/other.ko", "x")
		w.source(linux).Modules = append(w.source(linux).Modules, reference.Module{Name: "other", Path: "/other.ko", Kernel: "6.1.0-56-cloud-amd64", SHA256: fmt.Sprintf("%x", sum("x"))})
	}, Pass, "other", claims.Proven},
	{RuleModules, "of another kernel", func(w *world) {
		w.loads("/lib/modules/old.ko", "x")
		w.source(linux).Modules = append(w.source(linux).Modules, reference.Module{Name: "old", Path: "/old.ko", Kernel: "6.1.0-1-amd64", SHA256: fmt.Sprintf("%x", sum("x"))})
	}, Fail, "6.1.0-1-amd64", claims.Proven},
	{RuleModules, "of another kernel, under another name", func(w *world) {
		w.loads("/tmp/data", "x")
		w.source(linux).Modules = append(w.source(linux).Modules, reference.Module{Name: "old", Path: "/old.ko", Kernel: "6.1.0-1-amd64", SHA256: fmt.Sprintf("%x", sum("x"))})
	}, Fail, "6.1.0-1-amd64", claims.Proven},
	{RuleModules, "loaded but never measured", func(w *world) { w.says("hidden") }, Unknown, "hidden", claims.NotKnown},
	{RuleModules, "not said", func(w *world) { w.taken(evidence.FactModules) }, Unknown, "did not say", claims.NotKnown},
	{RuleModules, "more than can be judged", changed(func(r *Runtime) { r.MoreModules = 5 }), Fail, "5 more", claims.Proven},
	{RuleModules, "no list", noList, Unknown, "without the IMA list", claims.NotKnown},
	{RuleModules, "any", all(noList, func(w *world) { w.spec.Kernel.Modules = "any" }), Pass, "not judged", claims.NotKnown},
}

var runtimeCases = []ruleCase{
	{"runtime.list", "good", nil, Pass, "entries", claims.Proven},
	{"runtime.list", "altered", all(noList, func(w *world) {
		w.after = append(w.after, func(in *Input) { in.RuntimeError = "12 entries replayed" })
	}), Fail, "12 entries replayed", claims.Proven},
	{"runtime.list", "none", noList, Unknown, "no IMA list", claims.NotKnown},
	{"runtime.list", "none, any", all(noList, imaAny), Pass, "none required", claims.NotKnown},
	{"runtime.list", "altered, any", all(noList, imaAny, func(w *world) {
		w.after = append(w.after, func(in *Input) { in.RuntimeError = "12 entries replayed" })
	}), Fail, "12 entries replayed", claims.Proven},

	{"runtime.boot-aggregate", "good", nil, Pass, "agrees", claims.Proven},
	{"runtime.boot-aggregate", "of another boot", changed(func(r *Runtime) { r.AggregateError = "PCR 0 to 9 hash to another value" }), Fail, "PCR 0 to 9", claims.Proven},
	{"runtime.boot-aggregate", "not to be computed", changed(func(r *Runtime) { r.AggregateError, r.AggregateUnknown = "PCR 8 is not quoted", true }), Unknown, "PCR 8", claims.NotKnown},
	{"runtime.boot-aggregate", "missing", func(w *world) { w.entries = w.entries[1:] }, Unknown, "does not start", claims.NotKnown},
	{"runtime.boot-aggregate", "further down", func(w *world) { w.entries = append(w.entries[1:], w.entries[0]); w.entries[len(w.entries)-1].Index = 9 }, Unknown, "does not start", claims.NotKnown},
	{"runtime.boot-aggregate", "empty list, any", all(imaAny, func(w *world) { w.entries = []ima.Entry{} }), Pass, "empty", claims.Proven},
	{"runtime.boot-aggregate", "no list", noList, Unknown, "without the IMA list", claims.NotKnown},

	{"runtime.active", "good", nil, Pass, "/init", claims.Proven},
	{"runtime.active", "only boot_aggregate", func(w *world) { w.entries = w.entries[:1] }, Unknown, "1 entries", claims.NotKnown},
	{"runtime.active", "only modules", func(w *world) {
		w.entries = w.entries[:1]
		w.loads("/lib/modules/x.ko", "x")
	}, Unknown, "not measured", claims.NotKnown},
	{"runtime.active", "a module under the name of a program", func(w *world) {
		w.entries = w.entries[:1]
		w.loads("/init", "x")
		w.source(linux).Modules = append(w.source(linux).Modules, reference.Module{Name: "x", Path: "/x.ko", Kernel: "6.1.0-56-cloud-amd64", SHA256: fmt.Sprintf("%x", sum("x"))})
	}, Unknown, "not measured", claims.NotKnown},
	{"runtime.active", "any", all(imaAny, func(w *world) { w.entries = w.entries[:1] }), Pass, "not required", claims.Proven},
	{"runtime.active", "no list", noList, Unknown, "without the IMA list", claims.NotKnown},

	{"runtime.files", "good", nil, Pass, "known files", claims.Proven},
	{"runtime.files", "unknown", func(w *world) { w.run("/usr/bin/miner", "miner") }, Fail, "/usr/bin/miner", claims.Proven},
	{"runtime.files", "known name, other content", func(w *world) { w.run("/init", "evil") }, Fail, "/init", claims.Proven},
	{"runtime.files", "allowed by path", func(w *world) {
		w.spec.Runtime.AllowPaths = []string{"/var/log/*"}
		w.run("/var/log/x", "x")
	}, Pass, "1 allowed by path", claims.Proven},
	{"runtime.files", "another algorithm", func(w *world) { w.run("/init", "x").Alg = tpm.AlgSHA1 }, Fail, "sha1:", claims.Proven},
	{"runtime.files", "entry that cannot be read", func(w *world) { w.run("/x", "x").Problem = "unknown template" }, Fail, "unknown template", claims.Proven},
	{"runtime.files", "thousands", func(w *world) {
		for i := range 5000 {
			w.run("/x", fmt.Sprint(i))
		}
	}, Fail, fmt.Sprintf("%d more", 5000-MaxSamples), claims.Proven},
	{"runtime.files", "any", func(w *world) {
		w.run("/usr/bin/miner", "miner")
		w.spec.Runtime.Files = "any"
	}, Pass, "1 unknown", claims.Proven},
	{"runtime.files", "no list", noList, Unknown, "without the IMA list", claims.NotKnown},
	{"runtime.files", "no list, any", all(noList, imaAny), Pass, "none required", claims.NotKnown},

	{"runtime.must-match", "none broken", nil, Pass, "0 rules", claims.Proven},
	{"runtime.must-match", "right source", kubelet("kubelet", "kubelet 1.37", "kubelet"), Pass, "1 rules", claims.Proven},
	{"runtime.must-match", "known from elsewhere", kubelet("kubelet", "busybox", "busybox"), Fail, "must be of kubelet", claims.Proven},
	{"runtime.must-match", "unknown", kubelet("kubelet", "kubelet", "another"), Fail, "is unknown", claims.Proven},
	{"runtime.must-match", "unknown, and allowed by path", all(kubelet("kubelet", "kubelet", "another"), func(w *world) { w.spec.Runtime.AllowPaths = []string{"/usr/*"} }), Fail, "is unknown", claims.Proven},
	{"runtime.must-match", "no list", noList, Unknown, "without the IMA list", claims.NotKnown},

	{"runtime.violations", "none", nil, Pass, "no violations", claims.Proven},
	{"runtime.violations", "deny", func(w *world) { w.run("/var/log/x", "x").Violation = true }, Fail, "/var/log/x", claims.Proven},
	{"runtime.violations", "warn", func(w *world) {
		w.run("/var/log/x", "x").Violation = true
		w.spec.Runtime.Violations = "warn"
	}, Warn, "/var/log/x", claims.Proven},
	{"runtime.violations", "thousands, warn", func(w *world) {
		for range 3000 {
			w.run("/var/log/x", "x").Violation = true
		}
		w.spec.Runtime.Violations = "warn"
	}, Warn, "more violations", claims.Proven},
	{"runtime.violations", "no list", noList, Unknown, "without the IMA list", claims.NotKnown},

	{"runtime.buffers", "none", nil, Pass, "no measured buffers", claims.Proven},
	{"runtime.buffers", "a key", func(w *world) { w.buffer(".ima") }, Warn, ".ima", claims.Proven},
	{"runtime.buffers", "kexec", func(w *world) { w.buffer("kexec-cmdline") }, Fail, "kexec", claims.Proven},
	{"runtime.buffers", "kexec behind a crowd", func(w *world) {
		for i := range 2 * MaxSamples {
			w.buffer(fmt.Sprint("key", i))
		}
		w.buffer("kexec-cmdline")
	}, Fail, "kexec", claims.Proven},
	{"runtime.buffers", "no list", noList, Unknown, "without the IMA list", claims.NotKnown},

	{"runtime.asset-tag", "none", nil, Pass, "no asset tags", claims.NotKnown},
	{"runtime.asset-tag", "shown", func(w *world) { w.fact(evidence.FactAssetTag, `{"site":"berlin","class":"gold"}`) }, Pass, "class=gold, site=berlin", claims.Claimed},
	{"runtime.asset-tag", "proven", tagged(claims.AssetTag{State: claims.TagProven, Tags: map[string]string{"site": "muc", "country": "de"}}), Pass, "certified by the TPM: country=de, site=muc", claims.Proven},
	{"runtime.asset-tag", "proven beside a claim", all(tagged(claims.AssetTag{State: claims.TagProven, Tags: map[string]string{"site": "muc"}}),
		func(w *world) { w.fact(evidence.FactAssetTag, `{"site":"berlin"}`) }), Pass, "site=berlin", claims.Claimed},
	{"runtime.asset-tag", "on their way", tagged(claims.AssetTag{State: claims.TagNotTold}), Pass, "on their way", claims.NotKnown},
	{"runtime.asset-tag", "on their way, some stay", tagged(claims.AssetTag{State: claims.TagNotTold, Tags: map[string]string{"site": "muc"}}), Pass, "since the last ones: site=muc", claims.NotKnown},
	{"runtime.asset-tag", "absent", wrongTag(claims.TagAbsent), Warn, "certifies none yet", claims.NotKnown},
	{"runtime.asset-tag", "overdue", wrongTag(claims.TagOverdue), Fail, "still certifies none", claims.NotKnown},
	{"runtime.asset-tag", "not certified", wrongTag(claims.TagUncertified), Fail, "not by this TPM for this challenge", claims.NotKnown},
	{"runtime.asset-tag", "wrong index", wrongTag(claims.TagIndex), Fail, "not as it must be", claims.Proven},
	{"runtime.asset-tag", "forged", wrongTag(claims.TagForged), Fail, "not signed by this AIAS", claims.Proven},
	{"runtime.asset-tag", "copied", wrongTag(claims.TagCopied), Fail, "issued for another worker", claims.Proven},
	{"runtime.asset-tag", "rolled back", wrongTag(claims.TagOld), Fail, "what there should be", claims.Proven},
	{"runtime.asset-tag", "ahead", wrongTag(claims.TagAhead), Fail, "what there is", claims.Proven},
	{"runtime.asset-tag", "shown offline", tagged(claims.AssetTag{State: claims.TagShown, Observed: "serial 3"}), Pass, "serial 3", claims.Proven},
	{"runtime.asset-tag", "state that nobody knows", wrongTag("odd"), Unknown, "odd", claims.NotKnown},
}

// tagged puts an asset tag into the claims.
func tagged(tag claims.AssetTag) func(*world) {
	return func(w *world) { w.after = append(w.after, func(in *Input) { in.Claims.AssetTag = tag }) }
}

func wrongTag(state claims.TagState) func(*world) {
	return tagged(claims.AssetTag{State: state, Expected: "what there should be", Observed: "what there is"})
}

// kubelet demands a source for the kubelet, and runs one.
func kubelet(want, source, content string) func(*world) {
	return func(w *world) {
		w.spec.Runtime.MustMatch = []policy.MustMatch{{Path: "/usr/bin/kubelet", Source: want}}
		w.know(source, "/usr/bin/kubelet", source[:7])
		w.run("/usr/bin/kubelet", content)
	}
}

// TestObserveGrowsWithWhatIsWrong: a list of any length takes little memory.
func TestObserveGrowsWithWhatIsWrong(t *testing.T) {
	w := newWorld(t)
	in := w.input()
	r := new(Runtime)
	long := make([]byte, 1<<16)
	for i := range 20_000 {
		r.Observe([]ima.Entry{{Index: uint64(i), Alg: tpm.AlgSHA256, Digest: sum(fmt.Sprint(i)), Path: "/" + string(long)}, {Path: "/x.ko", Alg: tpm.AlgSHA256, Digest: sum("x")},
			{Path: "kexec-cmdline", Buffer: []byte("x")}}, in.Policy, in.References)
	}
	if len(r.Unknown.First) != MaxSamples || len(r.Modules) != MaxModules || len(r.Kexec.First) != MaxSamples || len(r.Unknown.First[0].Path) > maxPath || r.Entries != 60_000 {
		t.Errorf("Observe: got %d samples, %d modules, %d entries", len(r.Unknown.First), len(r.Modules), r.Entries)
	}
}
