package reference_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/uefi/uefitest"
)

// listOf makes a source of n files whose digests are those of their numbers.
func listOf(name string, n int) reference.Source {
	s := reference.Source{Kind: reference.KindFiles, Name: name, File: name, SHA256: strings.Repeat("ab", 32), Imported: day}
	for i := range n {
		s.Files = append(s.Files, reference.File{Path: fmt.Sprintf("/usr/lib/%s/file-%d", name, i), SHA256: hex.EncodeToString(digestOf(i))})
	}
	return s
}

func digestOf(i int) []byte {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	return sum[:]
}

func compile(tb testing.TB, sources ...reference.Source) *reference.Set {
	tb.Helper()
	set, err := reference.Compile(sources)
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

func TestSetID(t *testing.T) {
	a, b := listOf("a", 3), listOf("b", 2)
	later := a
	later.Imported, later.Note = day.Add(time.Hour), "again"
	more := listOf("b", 3)
	id := compile(t, a, b).ID()
	if len(id) != 64 {
		t.Errorf("ID: got %q, want a SHA-256", id)
	}
	if got := compile(t, b, later).ID(); got != id {
		t.Errorf("ID(other order, imported later): got %s, want %s", got, id)
	}
	if got := compile(t, a, more).ID(); got == id {
		t.Error("ID(one file more): got the same")
	}
}

func TestSetFile(t *testing.T) {
	mod := reference.Source{Kind: reference.KindPackage, Name: "kernel", Version: "1", SHA256: "00", Modules: []reference.Module{
		{Name: "m", Path: "/lib/modules/1/m.ko.xz", Kernel: "1", SHA256: hex.EncodeToString(digestOf(100)), Content: hex.EncodeToString(digestOf(101)), Signer: "CN=key"}}}
	set := compile(t, listOf("b", 2), listOf("a", 1), mod)
	if f, ok := set.File(tpm.AlgSHA256, digestOf(0)); !ok || f.Source != "a" || f.Path != "/usr/lib/a/file-0" || f.Module != nil {
		t.Errorf("File(in two sources): got %+v, %v, want that of source a", f, ok)
	}
	for _, i := range []int{100, 101} {
		if f, ok := set.File(tpm.AlgSHA256, digestOf(i)); !ok || f.Module == nil || f.Module.Signer != "CN=key" || f.Source != "kernel 1" {
			t.Errorf("File(module digest %d): got %+v, %v", i, f, ok)
		}
	}
	for _, in := range [][]byte{nil, {}, digestOf(7), digestOf(0)[:31], append(digestOf(0), 0)} {
		if _, ok := set.File(tpm.AlgSHA256, in); ok {
			t.Errorf("File(%x): got a file", in)
		}
	}
	if _, ok := set.File(tpm.AlgSHA1, digestOf(0)); ok {
		t.Error("File(sha1): got a file")
	}
	digest := digestOf(0)
	if n := testing.AllocsPerRun(100, func() { set.File(tpm.AlgSHA256, digest) }); n != 0 {
		t.Errorf("File: %v allocations, want 0", n)
	}
}

// TestSetFiles: many files asked for together get the answers that each gets alone.
func TestSetFiles(t *testing.T) {
	mod := reference.Source{Kind: reference.KindPackage, Name: "kernel", Version: "1", SHA256: "00", Modules: []reference.Module{
		{Name: "m", Path: "/m.ko", Kernel: "1", SHA256: hex.EncodeToString(digestOf(7))}}}
	for _, set := range []*reference.Set{{}, compile(t, listOf("a", 1)), compile(t, listOf("b", 60), mod)} {
		for _, n := range []int{0, 1, 31, 32, 33, 100} {
			ask := make([]reference.FileQuery, n)
			for i := range ask {
				ask[i] = reference.FileQuery{Alg: tpm.AlgSHA256, Digest: digestOf(i), Known: true, Ref: reference.FileRef{Path: "left over"}}
				switch i % 10 {
				case 3:
					ask[i].Digest = ask[i].Digest[:31]
				case 5:
					ask[i].Alg = tpm.AlgSHA1
				case 6:
					ask[i].Digest = nil
				}
			}
			set.Files(ask)
			for i, q := range ask {
				if want, known := set.File(q.Alg, q.Digest); q.Known != known || q.Ref != want {
					t.Errorf("Files(%d of %d): got %+v, %v, want %+v, %v", i, n, q.Ref, q.Known, want, known)
				}
			}
		}
	}
}

// TestSetImageMerged has one image unsigned in one package and signed in another: they share their Authenticode digest.
func TestSetImageMerged(t *testing.T) {
	ca := newSigner(t, "CA", nil)
	sections := []uefitest.Section{{Name: ".text", Data: []byte("loader")}}
	var sources []reference.Source
	for i, signers := range [][]*uefitest.Signer{nil, {newSigner(t, "signer", ca)}} {
		b, err := uefitest.BuildImage(sections, signers...)
		if err != nil {
			t.Fatal(err)
		}
		im, _, err := reference.ReadImage("/boot/loader.efi", b, &reference.Options{})
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, reference.Source{Kind: reference.KindPackage, Name: fmt.Sprint("loader-", i), SHA256: "00", Images: []reference.Image{im}})
	}
	set := compile(t, sources...)
	digest, err := hex.DecodeString(sources[0].Images[0].Authenticode["sha384"])
	if err != nil {
		t.Fatal(err)
	}
	im, ok := set.Image(tpm.AlgSHA384, digest)
	if !ok || im.Source != "loader-0" || im.SignedBy(ca.Cert) == nil {
		t.Errorf("Image: got %+v, %v, want that of loader-0 with the signer of loader-1", im, ok)
	}
	if unsigned, ok := set.ImageFile(mustHex(t, sources[0].Images[0].SHA256)); !ok || len(unsigned.Signers) != 0 {
		t.Error("ImageFile(unsigned): the file itself has no signer")
	}
	if _, ok := set.Image(tpm.AlgSHA256, digest); ok {
		t.Error("Image(SHA-384 digest as SHA-256): got an image")
	}
}

func mustHex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestCompileRefuses(t *testing.T) {
	base := func(edit func(*reference.Source)) reference.Source {
		s := reference.Source{Kind: reference.KindPackage, Name: "x", SHA256: "00"}
		edit(&s)
		return s
	}
	tests := []struct {
		name, want string
		in         reference.Source
	}{
		{"kind", "is not known", base(func(s *reference.Source) { s.Kind = "surprise" })},
		{"name", "no name", base(func(s *reference.Source) { s.Name = "" })},
		{"digest", "is not a SHA-256", base(func(s *reference.Source) { s.Files = []reference.File{{Path: "/a", SHA256: "12"}} })},
		{"digest of another alphabet", "is not a SHA-256", base(func(s *reference.Source) { s.Files = []reference.File{{Path: "/a", SHA256: strings.Repeat("z", 64)}} })},
		{"module without a name", "no name", base(func(s *reference.Source) { s.Modules = []reference.Module{{Path: "/m"}} })},
		{"image without a digest", "no Authenticode", base(func(s *reference.Source) { s.Images = []reference.Image{{Path: "/i"}} })},
		{"bank", "unknown hash", base(func(s *reference.Source) {
			s.Images = []reference.Image{{Path: "/i", SHA256: strings.Repeat("0", 64), Authenticode: map[string]string{"md5": "00"}}}
		})},
		{"revoked", "is not a hash", base(func(s *reference.Source) { s.Revoked = []reference.Revoked{{Type: "sha256", Hash: "x"}} })},
		{"SBAT", "SBAT", base(func(s *reference.Source) { s.SBAT = "grub,3" })},
		{"CA", "CA", base(func(s *reference.Source) { s.CAs = []reference.Certificate{{DER: []byte("x")}} })},
	}
	for _, tt := range tests {
		if _, err := reference.Compile([]reference.Source{tt.in}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Compile(%s): got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestZeroSet(t *testing.T) {
	var set reference.Set
	_, file := set.File(tpm.AlgSHA256, digestOf(0))
	_, image := set.Image(tpm.AlgSHA256, digestOf(0))
	_, _, revoked := set.Revoked(digestOf(0))
	if file || image || revoked || set.IsVendorKey(nil) || set.EKRoots() == nil {
		t.Error("the zero Set knows something")
	}
	if set.HasImages() || set.HasFiles() || set.HasModules() || set.HasFirmware() || set.HasKeys() || set.HasDBX() || set.HasSBAT() || set.HasEKRoots() {
		t.Error("the zero Set has something")
	}
}

// TestExtract holds the repository's own extract to what the captured boots measured into PCR 4.
func TestExtract(t *testing.T) {
	set, err := reference.Load("../../test/boots/references")
	if err != nil {
		t.Fatal(err)
	}
	for digest, role := range map[string]string{
		"80a66d53a945d2286fcadd780fae1c225aa732079cd67b5225dc78aaab4e2ff8": "shim",
		"a68f6d71ebddaa19751ff8d729f67d11b0df8e4c49400c3e7e90de16119e1265": "grub",
		"5f21ff2c0d5d899842b28a8b19901ba72cf7a7ab93c02a77fadc6ff72be85b31": "kernel",
	} {
		im, ok := set.Image(tpm.AlgSHA256, mustHex(t, digest))
		if !ok || im.Role != role || len(im.Signers) == 0 {
			t.Errorf("Image(%s): got %+v, %v", role, im, ok)
			continue
		}
		signed := 0
		for _, key := range set.VendorKeys() {
			if im.SignedBy(parse(t, key.DER)) != nil {
				signed++
			}
		}
		if (signed == 1) != (role != "shim") {
			t.Errorf("%s is signed by %d of shim's own keys", role, signed)
		}
	}
	if len(set.ModuleKeys()) != 1 || !set.HasModules() || set.HasDBX() {
		t.Errorf("extract: got %d module keys, modules %v, dbx %v", len(set.ModuleKeys()), set.HasModules(), set.HasDBX())
	}
	if !bytes.Equal(set.ModuleKeys()[0].DER, parse(t, set.ModuleKeys()[0].DER).Raw) {
		t.Error("the module key is no certificate")
	}
}

const fleetDigests = 200_000

func BenchmarkSetFile(b *testing.B) {
	set := compile(b, listOf("big", fleetDigests))
	known, unknown := digestOf(fleetDigests/2), digestOf(fleetDigests)
	for name, digest := range map[string][]byte{"known": known, "unknown": unknown} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set.File(tpm.AlgSHA256, digest)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	s := listOf("big", fleetDigests)
	b.ReportAllocs()
	for b.Loop() {
		compile(b, s)
	}
}
