package ima_test

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/ima/imatest"
	"touchstone.dev/touchstone/internal/tpm"
)

var sha1Digest = imatest.Digest(1)[:20]

// first is the template of the first entry of a list where others have the given one.
func first(template string) string {
	if strings.Contains(template, "|") {
		return template
	}
	return "ima-ng"
}

func TestTemplates(t *testing.T) {
	d, sig := imatest.Digest(7), []byte{3, 2, 4, 1, 2, 3, 4}
	file := imatest.Fields{Alg: tpm.AlgSHA256, Digest: d, Path: "/bin/true"}
	hash := sha256.Sum256([]byte("ro quiet"))
	sum := hash[:]
	with := func(f func(*imatest.Fields)) imatest.Fields {
		c := file
		f(&c)
		return c
	}
	for _, test := range []struct {
		template string
		fields   imatest.Fields
		want     ima.Entry // the fields that the template has
	}{
		{"ima", imatest.Fields{Digest: sha1Digest, Path: "/bin/true"}, ima.Entry{Alg: tpm.AlgSHA1, Digest: sha1Digest, Path: "/bin/true"}},
		{"ima", imatest.Fields{Digest: sha1Digest, Path: strings.Repeat("a", 255)}, ima.Entry{Alg: tpm.AlgSHA1, Digest: sha1Digest, Path: strings.Repeat("a", 255)}},
		{"ima-ng", file, ima.Entry{Alg: tpm.AlgSHA256, Digest: d, Path: "/bin/true"}},
		{"ima-ngv2", with(func(f *imatest.Fields) { f.Type = "verity" }), ima.Entry{Alg: tpm.AlgSHA256, Type: "verity", Digest: d, Path: "/bin/true"}},
		{"ima-sig", with(func(f *imatest.Fields) { f.Signature = sig }), ima.Entry{Alg: tpm.AlgSHA256, Digest: d, Path: "/bin/true", Signature: sig}},
		{"ima-sigv2", with(func(f *imatest.Fields) { f.Signature = sig }), ima.Entry{Alg: tpm.AlgSHA256, Type: "ima", Digest: d, Path: "/bin/true", Signature: sig}},
		{
			"ima-buf", with(func(f *imatest.Fields) { f.Path, f.Digest, f.Buffer = "kexec-cmdline", sum, []byte("ro quiet") }),
			ima.Entry{Alg: tpm.AlgSHA256, Digest: sum, Path: "kexec-cmdline", Buffer: []byte("ro quiet")},
		},
		{
			"ima-modsig", with(func(f *imatest.Fields) { f.ModAlg, f.ModDigest, f.ModSig = tpm.AlgSHA1, sha1Digest, []byte("cms") }),
			ima.Entry{Alg: tpm.AlgSHA256, Digest: d, Path: "/bin/true", Signature: []byte{}, ModSig: []byte("cms"), Extra: &ima.Extra{ModAlg: tpm.AlgSHA1, ModDigest: sha1Digest}},
		},
		{
			"evm-sig", with(func(f *imatest.Fields) {
				f.EVMSignature, f.UID, f.GID, f.Mode = sig, 1000, 7, 0o100755
				f.XattrNames, f.XattrValues = []string{"security.ima", "security.capability"}, [][]byte{{1, 2}, {3}}
			}),
			ima.Entry{Alg: tpm.AlgSHA256, Digest: d, Path: "/bin/true", Extra: &ima.Extra{
				EVMSignature: sig, UID: 1000, GID: 7, Mode: 0o100755,
				XattrNames: []string{"security.ima", "security.capability"}, XattrValues: [][]byte{{1, 2}, {3}},
			}},
		},
		{"d|n", imatest.Fields{Digest: sha1Digest, Path: "/bin/true"}, ima.Entry{Alg: tpm.AlgSHA1, Digest: sha1Digest, Path: "/bin/true"}},
		{"n-ng|iuid|d-ng", with(func(f *imatest.Fields) { f.UID = 5 }), ima.Entry{Alg: tpm.AlgSHA256, Digest: d, Path: "/bin/true", Extra: &ima.Extra{UID: 5}}},
		{"d-ng|xattrnames|n-ng", with(func(f *imatest.Fields) { f.XattrNames = []string{"security.selinux"} }), ima.Entry{Alg: tpm.AlgSHA256, Digest: d, Path: "/bin/true", Extra: &ima.Extra{XattrNames: []string{"security.selinux"}}}},
		{"d-ng|n-ng", with(func(f *imatest.Fields) { f.AlgName = "sm3" }), ima.Entry{Digest: d, Path: "/bin/true", Problem: `file digest: unknown hash algorithm "sm3": want sha1, sha256, sha384 or sha512`}},
		{"ima-ng", with(func(f *imatest.Fields) { f.Violation = true }), ima.Entry{Violation: true, Alg: tpm.AlgSHA256, Digest: make([]byte, 20), Path: "/bin/true"}},
		{"ima", imatest.Fields{Violation: true, Path: "/bin/true"}, ima.Entry{Violation: true, Alg: tpm.AlgSHA1, Digest: make([]byte, 20), Path: "/bin/true"}},
	} {
		for _, big := range []bool{false, true} {
			b := imatest.New(tpm.HashAlgs...)
			if big {
				b.BigEndian()
			}
			b.Aggregate(first(test.template), &tpm.Bank{Alg: tpm.AlgSHA1}).Add(test.template, test.fields)
			res, err := ima.Verify(b.Bytes(), ima.State{}, b.PCRs())
			if err != nil {
				t.Errorf("Verify(%s, big endian %v): %v", test.template, big, err)
				continue
			}
			got := entries(res)[1]
			if got.Template != test.template || got.PCR != 10 || len(got.TemplateHash) != 20 {
				t.Errorf("Verify(%s): got template %q, PCR %d", test.template, got.Template, got.PCR)
			}
			got.Index, got.Offset, got.Template, got.PCR, got.TemplateHash, got.Data = 0, 0, "", 0, nil, nil
			if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })); diff != "" {
				t.Errorf("Verify(%s, big endian %v) (-want +got):\n%s", test.template, big, diff)
			}
		}
	}
}

// What the kernel would not write is replayed all the same, and says what is wrong with it.
func TestProblems(t *testing.T) {
	field := func(s string) []byte { return append([]byte{byte(len(s)), 0, 0, 0}, s...) }
	good := string(field("sha256:\x00" + string(imatest.Digest(1))))
	for _, test := range []struct{ template, data, want string }{
		{"ima-ngv9", "anything", `unknown template or template field "ima-ngv9"`},
		{"d-ng|d-ng", good + good, "names the field d-ng twice"},
		{strings.Repeat("d|", 15) + "n", "", "more than 15 fields"},
		{"ima-ng", "\x01", "end before its last field"},
		{"ima-ng", "\xff\xff\xff\xff", "end before its last field"},
		{"ima-ng", good, "end before its last field"},
		{"ima-ng", good + string(field("/a\x00")) + "x", "1 bytes after the last field"},
		{"ima-ng", good + string(field("/a")), "does not end with NUL"},
		{"ima-ng", good + string(field("/a\x00b\x00")), "holds a NUL"},
		{"ima-ng", string(field("sha256")) + string(field("/a\x00")), "names no algorithm"},
		{"ima-ng", string(field("sha256:\x00short")) + string(field("/a\x00")), "file digest of 5 bytes: want 32"},
		{"ima-ngv2", good + string(field("/a\x00")), "names no type"},
		{"d|n", string(field("short")) + string(field("/a\x00")), "want 20"},
		{"iuid", string(field("abc")), "number of 3 bytes"},
		{"xattrnames|xattrlengths|xattrvalues", string(field("a|b\x00")) + string(field("\x01\x00\x00\x00")) + string(field("x")), "with 4 bytes of lengths"},
		{"xattrnames|xattrlengths|xattrvalues", string(field("a\x00")) + string(field("\x02\x00\x00\x00")) + string(field("x")), "shorter than"},
		{"xattrnames|xattrlengths|xattrvalues", string(field("a\x00")) + string(field("\x00\x00\x00\x00")) + string(field("x")), "longer than"},
		{"xattrvalues", string(field("x")), "without names"},
	} {
		// As the first entry, so that user-defined templates are read.
		b := imatest.New().Raw(test.template, []byte(test.data)).File("/bin/after", imatest.Digest(2))
		res, err := ima.Verify(b.Bytes(), ima.State{}, b.PCRs())
		if err != nil {
			t.Errorf("Verify(%s %q): %v", test.template, test.data, err)
			continue
		}
		if got := entries(res)[0].Problem; !strings.Contains(got, test.want) {
			t.Errorf("Verify(%s %q): got problem %q, want %q", test.template, test.data, got, test.want)
		}
		if got := entries(res)[1]; got.Problem != "" || got.Path != "/bin/after" {
			t.Errorf("Verify(%s %q): got %+v after it, want a clean entry", test.template, test.data, got)
		}
	}
}

// An entry whose template was renamed replays, because the name is not hashed; it must not get a digest that its owner chose.
func TestRenamedTemplate(t *testing.T) {
	good := imatest.Digest(1)
	for _, test := range []struct{ sig, template, want string }{
		{"\x03:sha256:\x00" + string(good), "buf|n-ng|d-ngv2", "not that of the first entry"},
		{"sha256:\x00" + string(good), "sig|n-ng|d-ng", "not that of the first entry"},
		{"", "d-ng|n-ng|evmsig", "not that of the first entry"},
	} {
		b := imatest.New().Aggregate("ima-sig", &tpm.Bank{Alg: tpm.AlgSHA256})
		b.Add("ima-sig", imatest.Fields{Alg: tpm.AlgSHA256, Digest: imatest.Digest(2), Path: "/tmp/miner", Signature: []byte(test.sig)})
		data := b.Bytes()[b.Offset(1)+28+len("ima-sig")+4:]
		renamed := imatest.New().Aggregate("ima-sig", &tpm.Bank{Alg: tpm.AlgSHA256}).Raw(test.template, data)
		res, err := ima.Verify(renamed.Bytes(), ima.State{}, b.PCRs())
		if err != nil {
			t.Errorf("Verify(%s): %v", test.template, err)
			continue
		}
		if e := entries(res)[1]; e.Digest != nil || !strings.Contains(e.Problem, test.want) {
			t.Errorf("Verify(%s): got digest %x, problem %q, want none and %q", test.template, e.Digest, e.Problem, test.want)
		}
		// The same across a resume.
		first := imatest.New().Aggregate("ima-sig", &tpm.Bank{Alg: tpm.AlgSHA256})
		res, err = ima.Verify(first.Bytes(), ima.State{}, first.PCRs())
		if err != nil {
			t.Fatal(err)
		}
		res, err = ima.Verify(renamed.Since(1), res.State, b.PCRs())
		if err != nil || !strings.Contains(entries(res)[0].Problem, test.want) {
			t.Errorf("Verify(%s) after resume: got %+v, %v, want problem %q", test.template, res, err, test.want)
		}
	}
	// Types that the kernel does not write are refused in the kernel's own templates too.
	b := imatest.New().Add("ima-ngv2", imatest.Fields{Alg: tpm.AlgSHA256, Type: "\x03", Digest: good, Path: "/tmp/miner"})
	res, err := ima.Verify(b.Bytes(), ima.State{}, b.PCRs())
	if err != nil || entries(res)[0].Problem == "" {
		t.Errorf("Verify(unknown digest type): got %+v, %v, want a problem", res, err)
	}
}

// A file renamed to a buffer must not pass for one, even when its signature was chosen to be its content.
func TestRenamedToBuffer(t *testing.T) {
	content := []byte("\x03 content that is its own signature")
	sum := sha256.Sum256(content)
	for _, test := range []struct {
		name   string
		digest []byte
		sig    []byte
		path   string
		want   string
	}{
		{"unsigned file", imatest.Digest(2), nil, "/tmp/miner", "not that of the buffer"},
		{"signed file", imatest.Digest(2), []byte("\x03signature"), "/tmp/miner", "not that of the buffer"},
		{"content as signature", sum[:], content, "/tmp/miner", "under the path of a file"},
		{"true buffer", sum[:], content, "kexec-cmdline", ""},
	} {
		b := imatest.New().Add("ima-buf", imatest.Fields{Alg: tpm.AlgSHA256, Digest: test.digest, Path: test.path, Buffer: test.sig})
		res, err := ima.Verify(b.Bytes(), ima.State{}, b.PCRs())
		if err != nil {
			t.Fatal(err)
		}
		if e := entries(res)[0]; !strings.Contains(e.Problem, test.want) || (e.Problem == "") != (test.want == "") {
			t.Errorf("Verify(%s): got problem %q, want %q", test.name, e.Problem, test.want)
		}
	}
}

// A user-defined template of the first entry counts in later parts of the list too.
func TestUserTemplateResumes(t *testing.T) {
	const template = "n-ng|d-ng|iuid"
	b := imatest.New().Aggregate(template, &tpm.Bank{Alg: tpm.AlgSHA256})
	res, err := ima.Verify(b.Bytes(), ima.State{}, b.PCRs())
	if err != nil {
		t.Fatal(err)
	}
	b.Add(template, imatest.Fields{Alg: tpm.AlgSHA256, Digest: imatest.Digest(1), Path: "/bin/true"})
	res, err = ima.Verify(b.Since(1), res.State, b.PCRs())
	if err != nil || entries(res)[0].Problem != "" || entries(res)[0].Path != "/bin/true" {
		t.Errorf("Verify: got %+v, %v, want /bin/true without problem", res, err)
	}
}
