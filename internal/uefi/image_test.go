package uefi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/uefi"
	"touchstone.dev/touchstone/internal/uefi/uefitest"
)

func newSigner(tb testing.TB, name string, issuer *uefitest.Signer) *uefitest.Signer {
	tb.Helper()
	s, err := uefitest.NewSigner(name, issuer)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

const sbat = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\nshim,4,UEFI shim,shim,1,https://github.com/rhboot/shim\n"

func build(tb testing.TB, signers ...*uefitest.Signer) []byte {
	tb.Helper()
	b, err := uefitest.BuildImage([]uefitest.Section{{Name: ".text", Data: bytes.Repeat([]byte{0x90}, 700)}, {Name: ".sbat", Data: []byte(sbat)},
		{Name: ".vendor_cert", Data: uefitest.VendorTable(nil, nil)}}, signers...)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestImage(t *testing.T) {
	ca := newSigner(t, "db", nil)
	one, two := newSigner(t, "signer one", ca), newSigner(t, "signer two", ca)
	one.SignedAt = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) // long after the certificate ended: firmware does not care
	b := build(t, one, two)
	im, err := uefi.ParseImage(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(im.Section(".sbat")); got != sbat {
		t.Errorf("Section(.sbat): got %q, want %q", got, sbat)
	}
	if im.Section(".vendor_cert") == nil || im.Section(".none") != nil {
		t.Error("Section: the long name is not found, or one is that is not there")
	}
	unsigned := build(t)
	if got, want := im.Digest(tpm.AlgSHA256), uefitest.Digest(unsigned); !bytes.Equal(got, want) {
		t.Errorf("Digest: got %x, want %x", got, want)
	}
	if im.Digest(tpm.AlgRSA) != nil || len(im.Digest(tpm.AlgSHA384)) != 48 {
		t.Error("Digest: wrong for an algorithm that is no hash, or for SHA-384")
	}
	signatures, err := im.Signatures()
	if err != nil || len(signatures) != 2 {
		t.Fatalf("Signatures: got %d, %v, want 2", len(signatures), err)
	}
	for i, name := range []string{"signer one", "signer two"} {
		s := signatures[i]
		if s.Err != nil || s.Signer().Subject.CommonName != name || len(s.Chain) != 2 {
			t.Errorf("signature %d: got %v by %v, want %s", i, s.Err, s.Signer().Subject, name)
		}
		if !uefi.ChainsTo(s.Chain, ca.Cert) || !uefi.ChainsTo(s.Chain[:1], ca.Cert) || !uefi.ChainsTo(s.Chain, s.Chain[0]) {
			t.Errorf("ChainsTo(%s): got false, want true", name)
		}
	}
	if uefi.ChainsTo(signatures[0].Chain, two.Cert) || uefi.ChainsTo(nil, ca.Cert) {
		t.Error("ChainsTo: got true for a stranger")
	}
}

func TestChainsToImpostor(t *testing.T) {
	ca := newSigner(t, "same name", nil)
	impostor := newSigner(t, "same name", nil)
	leaf := newSigner(t, "leaf", ca)
	im, err := uefi.ParseImage(build(t, leaf))
	if err != nil {
		t.Fatal(err)
	}
	s, err := im.Signatures()
	if err != nil {
		t.Fatal(err)
	}
	if uefi.ChainsTo(s[0].Chain, impostor.Cert) {
		t.Error("ChainsTo(another key of the same name): got true, want false")
	}
}

func TestBadSignatures(t *testing.T) {
	wrongKey, wrongDigest := newSigner(t, "wrong key", nil), newSigner(t, "wrong digest", nil)
	wrongKey.WrongKey, wrongDigest.WrongDigest = true, true
	good := build(t, newSigner(t, "good", nil))
	changed := bytes.Clone(good)
	changed[0x800] ^= 1
	cutSig := bytes.Clone(good)
	at := int(binary.LittleEndian.Uint32(good[0x400+24+112+32:]))
	cutSig[at+12] ^= 0x40
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"valid", good, nil},
		{"section changed", changed, uefi.ErrDigestMismatch},
		{"digest of another image", build(t, wrongDigest), uefi.ErrDigestMismatch},
		{"signed by another key", build(t, wrongKey), uefi.ErrBadSignature},
		{"garbage", cutSig, uefi.ErrSignatureFormat},
	}
	for _, tt := range tests {
		im, err := uefi.ParseImage(tt.in)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		s, err := im.Signatures()
		if err != nil || len(s) != 1 {
			t.Fatalf("%s: got %d signatures, %v", tt.name, len(s), err)
		}
		if !errors.Is(s[0].Err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, s[0].Err, tt.want)
		}
	}
}

func TestParseImageErrors(t *testing.T) {
	good := build(t, newSigner(t, "good", nil))
	edit := func(at int, v uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	const opt, section = 0x400 + 24, 0x400 + 24 + 240
	tests := []struct {
		name string
		in   []byte
		want string
	}{
		{"empty", nil, "no MZ"},
		{"text", bytes.Repeat([]byte("text"), 100), "no MZ"},
		{"header cut", good[:0x420], "malformed PE image"},
		{"headers larger than the file", edit(opt+60, 1<<30), "headers of"},
		{"no directories", edit(opt+108, 4), "data directories"},
		{"certificate table outside", edit(opt+112+32, 1<<30), "certificate table at"},
		{"section outside", edit(section+20, 1<<30), "ends after the file"},
		{"section twice", edit(section+16, 0xa00), "overlap"},
	}
	for _, tt := range tests {
		_, err := uefi.ParseImage(tt.in)
		if !errors.Is(err, uefi.ErrImage) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ParseImage(%s): got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestParseVendorTable(t *testing.T) {
	ca := newSigner(t, "vendor", nil)
	hashes := uefitest.List(uefitest.SHA256, make([]byte, 32), bytes.Repeat([]byte{1}, 32))
	for name, authorized := range map[string][]byte{"certificate": ca.Cert.Raw, "database": uefitest.List(uefitest.X509, ca.Cert.Raw)} {
		got, err := uefi.ParseVendorTable(uefitest.VendorTable(authorized, hashes))
		if err != nil || len(got.Authorized) != 1 || len(got.Deauthorized) != 2 {
			t.Fatalf("ParseVendorTable(%s): got %+v, %v", name, got, err)
		}
		if s := got.Authorized[0].Subject(); s != "CN=vendor" {
			t.Errorf("ParseVendorTable(%s): got %q, want CN=vendor", name, s)
		}
	}
	bad := uefitest.VendorTable(ca.Cert.Raw, nil)
	for _, in := range [][]byte{nil, bad[:len(bad)-1], uefitest.VendorTable([]byte("neither"), nil)} {
		if _, err := uefi.ParseVendorTable(in); !errors.Is(err, uefi.ErrVendorTable) {
			t.Errorf("ParseVendorTable(%d bytes): got %v, want ErrVendorTable", len(in), err)
		}
	}
}

func FuzzImage(f *testing.F) {
	f.Add(build(f))
	f.Add(build(f, newSigner(f, "a", nil), newSigner(f, "b", nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := uefi.ParseImage(b)
		if err != nil {
			return
		}
		im.Digest(tpm.AlgSHA256)
		if s, err := im.Signatures(); err == nil {
			for i := range s {
				if s[i].Err == nil && s[i].Signer() == nil {
					t.Error("a valid signature without a signer")
				}
			}
		}
	})
}

func BenchmarkImage(b *testing.B) {
	image := build(b, newSigner(b, "signer", nil))
	b.Run("digest", func(b *testing.B) {
		b.SetBytes(int64(len(image)))
		for b.Loop() {
			im, err := uefi.ParseImage(image)
			if err != nil {
				b.Fatal(err)
			}
			im.Digest(tpm.AlgSHA256)
		}
	})
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			im, err := uefi.ParseImage(image)
			if err != nil {
				b.Fatal(err)
			}
			if s, err := im.Signatures(); err != nil || s[0].Err != nil {
				b.Fatal(err)
			}
		}
	})
}
