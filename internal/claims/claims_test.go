package claims

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm"
)

const corpus = "../../test/boots/corpus/"

func readLog(t testing.TB, boot string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(corpus, boot, "eventlog.bin"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func names(n []Named) (out []string) {
	for _, x := range n {
		out = append(out, x.Name)
	}
	return out
}

// TestReadBoot: what real logs say.
func TestReadBoot(t *testing.T) {
	for _, tt := range []struct {
		boot                        string
		images, authorities         int
		commandLines                int
		files, mok, sections, stubs []string
	}{
		{"good", 4, 2, 1, []string{"(hd0,gpt1)/EFI/debian/grub.cfg", "/vmlinuz", "/initrd.img"}, []string{"MokList", "MokListX", "MokListTrusted"}, nil, nil},
		{"mok-enrolled", 4, 3, 1, []string{"(hd0,gpt1)/EFI/debian/grub.cfg", "/vmlinuz", "/initrd.img"}, []string{"MokList", "MokListX", "MokListTrusted"}, nil, nil},
		{"uki-own", 1, 1, 0, nil, nil, []string{".linux", ".linux", ".osrel", ".osrel", ".cmdline", ".cmdline", ".initrd", ".initrd"}, []string{StubLoadOptions, StubInitrd}},
	} {
		b, err := ReadBoot(readLog(t, tt.boot), tpm.AlgSHA256)
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Images) != tt.images || len(b.Authorities) != tt.authorities || len(b.CommandLines) != tt.commandLines || len(b.Problems) != 0 {
			t.Errorf("ReadBoot(%s): got %d images, %d authorities, %d command lines, problems %v", tt.boot, len(b.Images), len(b.Authorities), len(b.CommandLines), b.Problems)
		}
		for _, d := range []string{cmp.Diff(tt.files, names(b.Files)), cmp.Diff(tt.mok, names(b.MOK)), cmp.Diff(tt.sections, names(b.Sections)), cmp.Diff(tt.stubs, names(b.StubTags))} {
			if d != "" {
				t.Errorf("ReadBoot(%s) (-want +got):\n%s", tt.boot, d)
			}
		}
	}
	if _, err := ReadBoot(readLog(t, "good"), tpm.AlgSHA384); err == nil {
		t.Error("ReadBoot: want an error for a bank that the log does not cover")
	}
}

func TestWords(t *testing.T) {
	for line, want := range map[string][]string{
		"":                         nil,
		"  a  b\tc\n":              {"a", "b", "c"},
		`x="1 2" y`:                {"x=1 2", "y"},
		"a\x00b":                   {"a", "b"},
		`"dyndbg=file a +p" quiet`: {"dyndbg=file a +p", "quiet"},
	} {
		if d := cmp.Diff(want, Words(line)); d != "" {
			t.Errorf("Words(%q) (-want +got):\n%s", line, d)
		}
	}
}

func TestReadFacts(t *testing.T) {
	f := ReadFacts(map[string][]byte{
		evidence.FactLockdown: []byte("none [integrity] confidentiality\n"), evidence.FactTainted: []byte("8192\n"), evidence.FactSigEnforce: []byte("Y\n"),
		evidence.FactModules: []byte("virtio_net 73728 0 - Live 0x0\nefivarfs 1 2\n"), evidence.FactVersion: []byte("Linux version 6.1.0 (x)\n"),
		evidence.FactAssetTag: []byte(`{"site":"berlin"}`), mokListRT: []byte("\x06\x00\x00\x00list"),
	})
	if f.Lockdown != "integrity" || f.Taint == nil || *f.Taint != 8192 || f.SigEnforce == nil || !*f.SigEnforce || f.Kernel != "6.1.0" ||
		f.AssetTag["site"] != "berlin" || string(f.MOKList) != "list" || !cmp.Equal(f.Modules, []string{"virtio_net", "efivarfs"}) || f.Problems != nil {
		t.Errorf("ReadFacts: got %+v", f)
	}
	f = ReadFacts(map[string][]byte{evidence.FactLockdown: []byte("?"), evidence.FactTainted: []byte("-1"), evidence.FactSigEnforce: []byte("yes"),
		evidence.FactAssetTag: []byte("["), evidence.FactMEIStatus: []byte("zz"), evidence.FactMSRBootGrd: []byte("zz"), mokListRT: []byte("ab")})
	if f.Lockdown != "" || f.Taint != nil || f.SigEnforce != nil || f.AssetTag != nil || f.MEI != nil || f.BootGuard != nil || f.MOKList != nil || len(f.Problems) != 6 {
		t.Errorf("ReadFacts(garbage): got %+v", f)
	}
}

// FuzzReadBoot: a hostile log never panics, whatever is asked of it.
func FuzzReadBoot(f *testing.F) {
	log := readLog(f, "uki-own")
	f.Add(log[:700])
	f.Add(log)
	f.Fuzz(func(_ *testing.T, b []byte) {
		boot, err := ReadBoot(bytes.Clone(b), tpm.AlgSHA256)
		if err != nil {
			return
		}
		boot.GRUBLoad()
		boot.AllCommandLines()
		c := Claims{Boot: boot, Bank: tpm.AlgSHA256}
		c.Compare([]tpm.Bank{{Alg: tpm.AlgSHA256}})
	})
}

// FuzzReadFacts: neither does any content of a fact.
func FuzzReadFacts(f *testing.F) {
	all := []string{evidence.FactLockdown, evidence.FactTainted, evidence.FactSigEnforce, evidence.FactCommandLine, evidence.FactModules,
		evidence.FactVersion, evidence.FactMEIStatus, evidence.FactMSRBootGrd, evidence.FactAssetTag, mokListRT, mokListXRT}
	f.Add([]byte("none [integrity]"))
	f.Add([]byte("0x1"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		raw := make(map[string][]byte)
		for _, name := range all {
			raw[name] = b
		}
		facts := ReadFacts(raw)
		Words(facts.CommandLine)
	})
}
