package uefi_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/uefi"
	"touchstone.dev/touchstone/internal/uefi/uefitest"
)

// variable returns the content of a captured variable, without its attributes.
func variable(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return b[4:]
}

func TestParseSignatureListsReal(t *testing.T) {
	tests := []struct {
		name  string
		count int
		first string // subject or hash
		owner string
	}{
		{"PK", 1, "CN=Debian UEFI Secure Boot (PK/KEK key),O=Debian,1.2.840.113549.1.9.1=#0c1d64656269616e2d646576656c406c697374732e64656269616e2e6f7267", uefi.GlobalVariable},
		{"KEK", 2, "", "a0baa8a3-041d-48a8-bc87-c36d121b5e3d"},
		{"db", 2, "CN=Microsoft Windows Production PCA 2011,O=Microsoft Corporation,L=Redmond,ST=Washington,C=US", uefi.MicrosoftOwner},
		{"dbx", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "a0baa8a3-041d-48a8-bc87-c36d121b5e3d"},
		{"MokListRT", 1, "CN=Debian Secure Boot CA", uefi.ShimLock},
		{"MokListXRT", 114, "", "ade9e48f-9cb8-98e6-31af-b4e6009e2fe3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := uefi.ParseSignatureLists(variable(t, tt.name))
			if err != nil {
				t.Fatalf("ParseSignatureLists(%s): %v", tt.name, err)
			}
			if len(got) != tt.count {
				t.Fatalf("ParseSignatureLists(%s): got %d signatures, want %d", tt.name, len(got), tt.count)
			}
			if s := got[0].Subject(); tt.first != "" && s != tt.first {
				t.Errorf("Subject: got %q, want %q", s, tt.first)
			}
			if got[0].Owner != tt.owner {
				t.Errorf("Owner: got %q, want %q", got[0].Owner, tt.owner)
			}
		})
	}
}

func TestParseSignatureLists(t *testing.T) {
	hash := bytes.Repeat([]byte{7}, 32)
	unknown := "01020304-0506-0708-090a-0b0c0d0e0f10"
	good := uefitest.List(uefitest.SHA256, hash, bytes.Repeat([]byte{8}, 32))
	edit := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	tests := []struct {
		name  string
		in    []byte
		count int
		err   string
	}{
		{"nothing", nil, 0, ""},
		{"two hashes", good, 2, ""},
		{"two lists", append(bytes.Clone(good), uefitest.List(unknown, []byte("key"))...), 3, ""},
		{"list without entries", uefitest.List(uefitest.SHA256), 0, ""},
		{"cut in the header", good[:20], 0, "a list needs 28"},
		{"cut in an entry", good[:len(good)-1], 0, "list says it has"},
		{"trailing byte", append(bytes.Clone(good), 0), 0, "a list needs 28"},
		{"list size below its header", edit(16, 5), 0, "list says it has"},
		{"header beyond the list", edit(21, 0xff), 0, "header of"},
		{"signature size zero", edit(24, 0), 0, "signature size 0"},
		{"signature size of another type", edit(24, 47), 0, "want 48"},
		{"too long", make([]byte, uefi.MaxDatabase+1), 0, "at most"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := uefi.ParseSignatureLists(tt.in)
			if tt.err != "" {
				if !errors.Is(err, uefi.ErrSignatureList) || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("ParseSignatureLists: got error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || len(got) != tt.count {
				t.Fatalf("ParseSignatureLists: got %d signatures and error %v, want %d", len(got), err, tt.count)
			}
		})
	}
	got, err := uefi.ParseSignatureLists(good)
	if err != nil {
		t.Fatal(err)
	}
	want := uefi.Signature{Type: uefi.TypeSHA256, Owner: uefitest.Owner, Data: hash, SHA256: [32]byte(hash)}
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Errorf("signature (-want +got):\n%s", diff)
	}
}

func TestParseSignatureData(t *testing.T) {
	signer := newSigner(t, "authority", nil)
	owner := uefitest.List(uefitest.SHA256, make([]byte, 32))[28:44]
	tests := []struct {
		name, kind, owner string
		in                []byte
	}{
		{"certificate", uefi.TypeX509, uefitest.Owner, append(bytes.Clone(owner), signer.Cert.Raw...)},
		{"hash", uefi.TypeSHA256, uefitest.Owner, append(bytes.Clone(owner), make([]byte, 32)...)},
		{"shim's vendor certificate", uefi.TypeX509, "", signer.Cert.Raw},
		{"neither", "unknown", uefitest.Owner, append(bytes.Clone(owner), 1, 2, 3)},
	}
	for _, tt := range tests {
		got, err := uefi.ParseSignatureData(tt.in)
		if err != nil || got.Type != tt.kind || got.Owner != tt.owner {
			t.Errorf("ParseSignatureData(%s): got type %q, owner %q, error %v; want %q, %q", tt.name, got.Type, got.Owner, err, tt.kind, tt.owner)
		}
	}
	if _, err := uefi.ParseSignatureData(owner); !errors.Is(err, uefi.ErrSignatureList) {
		t.Errorf("ParseSignatureData(owner only): got %v, want ErrSignatureList", err)
	}
}

func TestCertificate(t *testing.T) {
	signer := newSigner(t, "old platform key", nil)
	odd := bytes.Clone(signer.Cert.Raw)
	odd[15] |= 0x80 // the serial number follows 30 82 LL LL 30 82 LL LL a0 03 02 01 02 02 LL: negative now
	if bytes.Equal(odd[:2], []byte{0x30, 0x81}) || odd[13] != 2 {
		odd = bytes.Clone(signer.Cert.Raw)
		i := bytes.Index(odd, []byte{0xa0, 3, 2, 1, 2, 2})
		odd[i+7] |= 0x80
	}
	for name, der := range map[string][]byte{"plain": signer.Cert.Raw, "negative serial": odd} {
		s := uefi.Signature{Type: uefi.TypeX509, Data: der}
		c, err := s.Certificate()
		if err != nil {
			t.Errorf("Certificate(%s): %v", name, err)
			continue
		}
		if c.Subject.CommonName != "old platform key" || s.Subject() != "CN=old platform key" || !bytes.Equal(c.RawSubject, signer.Cert.RawSubject) {
			t.Errorf("Certificate(%s): got subject %q", name, c.Subject)
		}
	}
	if _, err := (uefi.Signature{Type: uefi.TypeSHA256}).Certificate(); !errors.Is(err, uefi.ErrNotCertificate) {
		t.Errorf("Certificate(hash): got %v, want ErrNotCertificate", err)
	}
	if _, err := uefi.ParseCertificate(append(bytes.Clone(odd), 0)); err == nil {
		t.Error("ParseCertificate(trailing byte): got no error")
	}
}

func TestGUID(t *testing.T) {
	g, err := uefi.ParseGUID("{605DAB50-E046-4300-ABB6-3DD810DD8B23}")
	if err != nil || g.String() != uefi.ShimLock || uefi.GUIDName(g.String()) != "shim lock" {
		t.Errorf("ParseGUID: got %s, %v, want %s", g, err, uefi.ShimLock)
	}
	if want := []byte{0x50, 0xab, 0x5d, 0x60, 0x46, 0xe0, 0x00, 0x43}; !bytes.Equal(g[:8], want) {
		t.Errorf("ParseGUID: got % x, want % x", g[:8], want)
	}
	for _, bad := range []string{"", "605dab50-e046-4300-abb6-3dd810dd8b2", "605dab50xe046-4300-abb6-3dd810dd8b23", "g05dab50-e046-4300-abb6-3dd810dd8b23"} {
		if _, err := uefi.ParseGUID(bad); err == nil {
			t.Errorf("ParseGUID(%q): got no error", bad)
		}
	}
}

func FuzzSignatureLists(f *testing.F) {
	for _, name := range []string{"PK", "db", "dbx", "MokListRT", "MokListXRT"} {
		f.Add(variable(f, name))
	}
	f.Add(uefitest.SignedUpdate(uefitest.List(uefitest.SHA256, make([]byte, 32))))
	f.Add(uefitest.VendorTable(uefitest.List(uefitest.SHA256, make([]byte, 32)), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if sigs, err := uefi.ParseSignatureLists(b); err == nil {
			for _, s := range sigs {
				_ = s.Subject()
				if s.Type != uefi.TypeSHA256 && s.SHA256 != sha256.Sum256(s.Data) {
					t.Errorf("SHA256 of %s differs from its data", s.Type)
				}
			}
		}
		if s, err := uefi.ParseSignatureData(b); err == nil {
			_ = s.Subject()
		}
		if d, err := uefi.ParseDBX(b); err == nil && len(d.Signatures) == 0 {
			t.Error("ParseDBX: empty revocation list without error")
		}
		_, _ = uefi.ParseVendorTable(b)
	})
}

func BenchmarkSignatureLists(b *testing.B) {
	data := variable(b, "MokListXRT")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := uefi.ParseSignatureLists(data); err != nil {
			b.Fatal(err)
		}
	}
}
