package reference_test

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/uefi/uefitest"
)

func parse(tb testing.TB, der []byte) *x509.Certificate {
	tb.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestImportFiles(t *testing.T) {
	hash := hex.EncodeToString(digestOf(1))
	in := hash + "  /init\n" + strings.ToUpper(hash) + " */bin/a b\n\\" + hash + "  /odd\\nname\\\\x\n"
	s, err := reference.ImportFiles(strings.NewReader(in), reference.Options{File: "/x/files.sha256", Now: day})
	if err != nil {
		t.Fatal(err)
	}
	want := []reference.File{{Path: "/init", SHA256: hash}, {Path: "/bin/a b", SHA256: hash}, {Path: "/odd\nname\\x", SHA256: hash}}
	if diff := cmp.Diff(want, s.Files); diff != "" {
		t.Errorf("Files (-want +got):\n%s", diff)
	}
	if s.Name != "files.sha256" || s.SHA256 != sum([]byte(in)) || s.Kind != reference.KindFiles {
		t.Errorf("source: got %q, %s", s.Name, s.SHA256)
	}
	for _, bad := range []string{"", "\n", hash, hash + " /one-space", hash[1:] + "  /short", strings.Repeat("z", 64) + "  /a", hash + "  /a\n\n" + hash + "  /b\n"} {
		if _, err := reference.ImportFiles(strings.NewReader(bad), reference.Options{}); !errors.Is(err, reference.ErrImport) {
			t.Errorf("ImportFiles(%q): got %v, want ErrImport", bad, err)
		}
	}
}

func TestImportDBX(t *testing.T) {
	ca := newSigner(t, "revoked CA", nil)
	lists := append(uefitest.List(uefitest.SHA256, digestOf(2), digestOf(1), digestOf(2)), uefitest.List(uefitest.X509, ca.Cert.Raw)...)
	names := `{"images":{"x64":[{"authenticodeHash":"` + strings.ToUpper(hex.EncodeToString(digestOf(1))) + `","hashType":"SHA256","filename":"shim.efi","companyName":"Example","dateOfAddition":"2020-07-29"}]}}`
	var sources []reference.Source
	for name, in := range map[string][]byte{"lists": lists, "signed": uefitest.SignedUpdate(lists), "efivars": append([]byte{0x27, 0, 0, 0}, lists...), "names": []byte(names)} {
		s, err := reference.ImportDBX(bytes.NewReader(in), reference.Options{File: name, Now: day})
		if err != nil {
			t.Fatalf("ImportDBX(%s): %v", name, err)
		}
		if want := 3; name != "names" && len(s.Revoked) != want {
			t.Errorf("ImportDBX(%s): got %d entries, want %d", name, len(s.Revoked), want)
		}
		sources = append(sources, *s)
	}
	set := compile(t, sources...)
	if r, from, ok := set.Revoked(digestOf(1)); !ok || r.Name != "shim.efi (Example)" || from != "efivars" {
		t.Errorf("Revoked: got %+v from %q, %v, want the name of the published list", r, from, ok)
	}
	if r, _, ok := set.Revoked(sha256Of(ca.Cert.Raw)); !ok || r.Type != "x509" || r.Name != "CN=revoked CA" {
		t.Errorf("Revoked(certificate): got %+v, %v", r, ok)
	}
	if _, _, ok := set.Revoked(digestOf(9)); ok || len(set.RevokedAll()) != 3 {
		t.Errorf("Revoked(other): got %v; RevokedAll: got %d, want 3", ok, len(set.RevokedAll()))
	}
	for _, bad := range []string{"", "{}", "text"} {
		if _, err := reference.ImportDBX(strings.NewReader(bad), reference.Options{}); !errors.Is(err, reference.ErrImport) {
			t.Errorf("ImportDBX(%q): got %v, want ErrImport", bad, err)
		}
	}
}

func TestImportSBAT(t *testing.T) {
	const text = "Levels:\n\nsbat,1,2025051000\nshim,4\ngrub,5\n\nsbat,1,2021030218\n"
	tests := []struct{ name, in, date, want string }{
		{"newest", text, "", "sbat,1,2025051000\nshim,4\ngrub,5\n"},
		{"chosen", text, "2021030218", "sbat,1,2021030218\n"},
		{"not there", text, "2024010100", ""},
		{"the level itself", "sbat,1,2025051000\nshim,4\n", "", "sbat,1,2025051000\nshim,4\n"},
		{"efivars file", "\x06\x00\x00\x00sbat,1,2025051000\nshim,4\n\x00", "", "sbat,1,2025051000\nshim,4\n"},
		{"prose", "no level", "", ""},
	}
	for _, tt := range tests {
		s, err := reference.ImportSBAT(strings.NewReader(tt.in), reference.Options{File: "sbat", SBATDate: tt.date, Now: day})
		if tt.want == "" {
			if !errors.Is(err, reference.ErrImport) {
				t.Errorf("ImportSBAT(%s): got %v, want ErrImport", tt.name, err)
			}
			continue
		}
		if err != nil || s.SBAT != tt.want {
			t.Errorf("ImportSBAT(%s): got %+v, %v, want %q", tt.name, s, err, tt.want)
			continue
		}
		if levels := compile(t, *s).SBAT(); len(levels) != 1 || levels[0].Level.String() != tt.want {
			t.Errorf("SBAT(%s): got %+v", tt.name, levels)
		}
	}
}

func TestImportEKRoots(t *testing.T) {
	root := newSigner(t, "root", nil)
	leaf := newSigner(t, "leaf, no CA", root)
	dir := t.TempDir()
	write := func(name string, b []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	block := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	write("README", []byte("no certificate"))
	write("vendor/leaf.pem", block(leaf.Cert.Raw))
	if _, err := reference.ImportEKRoots(dir, reference.Options{}); !errors.Is(err, reference.ErrImport) {
		t.Errorf("ImportEKRoots(no CA): got %v, want ErrImport", err)
	}
	write("vendor/both.pem", append(block(root.Cert.Raw), block([]byte("damaged"))...))
	write("again.der", root.Cert.Raw)
	var warnings []string
	s, err := reference.ImportEKRoots(dir, reference.Options{Now: day, Warn: func(m string) { warnings = append(warnings, m) }})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.CAs) != 1 || s.CAs[0].Subject != "CN=root" || s.CAs[0].File != "again.der" {
		t.Errorf("CAs: got %+v, want the root once", s.CAs)
	}
	if len(warnings) != 3 { // README, the damaged block, the leaf
		t.Errorf("warnings: got %q, want 3", warnings)
	}
	if set := compile(t, *s); !set.HasEKRoots() || len(set.EKRootList()) != 1 || len(set.EKIntermediates()) != 0 {
		t.Error("Set: want one root")
	}
	if _, err := reference.ImportEKRoots(filepath.Join(dir, "none"), reference.Options{}); !errors.Is(err, reference.ErrImport) {
		t.Errorf("ImportEKRoots(no folder): got %v, want ErrImport", err)
	}
}
