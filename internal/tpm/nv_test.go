package tpm_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

const nvAttributes = tpm.NVOwnerWrite | tpm.NVAuthRead

func TestParseNVCertify(t *testing.T) {
	soft, ak, quote, _ := softQuote(t)
	contents := bytes.Repeat([]byte{7}, 184)
	public := softtpm.NVPublic(0x01a7a600, nvAttributes, len(contents))
	msg, sig := soft.CertifyNV(public, contents, []byte("nonce"), softtpm.Clock{Clock: 5, ResetCount: 6, RestartCount: 1, Safe: true})
	c, err := tpm.ParseNVCertify(msg)
	if err != nil {
		t.Fatalf("ParseNVCertify: %v", err)
	}
	p, err := tpm.ParseNVPublic(public)
	if err != nil {
		t.Fatalf("ParseNVPublic: %v", err)
	}
	if p.Index != 0x01a7a600 || p.Attributes != nvAttributes|tpm.NVWritten || p.DataSize != 184 || p.NameAlg != tpm.AlgSHA256 {
		t.Errorf("ParseNVPublic: got %+v", p)
	}
	if !bytes.Equal(c.Name, p.Name()) || string(c.ExtraData) != "nonce" || c.ResetCount != 6 || c.RestartCount != 1 || !c.Safe || !bytes.Equal(c.Contents, contents) {
		t.Errorf("ParseNVCertify: got %+v, want Name %x", c, p.Name())
	}
	if err := ak.Verify(msg, mustSignature(t, sig)); err != nil {
		t.Errorf("Verify: %v", err)
	}
	oracle, err := tpm2.Unmarshal[tpm2.TPMSAttest](msg)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := oracle.Attested.NV(); err != nil || !bytes.Equal(info.IndexName.Buffer, c.Name) || !bytes.Equal(info.NVContents.Buffer, c.Contents) {
		t.Errorf("go-tpm reads %+v, %v", info, err)
	}
	if _, err := tpm.ParseNVCertify(quote); !errors.Is(err, tpm.ErrNotNV) {
		t.Errorf("ParseNVCertify(quote): got %v, want %v", err, tpm.ErrNotNV)
	}
	for n := range msg {
		if _, err := tpm.ParseNVCertify(msg[:n]); !errors.Is(err, tpm.ErrTruncated) {
			t.Errorf("ParseNVCertify(first %d bytes): got %v, want %v", n, err, tpm.ErrTruncated)
		}
	}
	for n := range public {
		if _, err := tpm.ParseNVPublic(public[:n]); err == nil {
			t.Errorf("ParseNVPublic(first %d bytes): got nil", n)
		}
	}
}

func TestVerifyNV(t *testing.T) {
	soft, ak, _, _ := softQuote(t)
	nonce, contents := []byte("nonce"), bytes.Repeat([]byte{7}, 184)
	public := softtpm.NVPublic(0x01a7a600, nvAttributes, len(contents))
	msg, sig := soft.CertifyNV(public, contents, nonce, softtpm.Clock{})
	p, got, err := tpm.VerifyNV(ak, nonce, public, msg, sig)
	if err != nil || !bytes.Equal(got, contents) || p.Index != 0x01a7a600 {
		t.Fatalf("VerifyNV: got %x of %+v, %v", got, p, err)
	}
	_, area := soft.TLSKey()
	certify, certifySig := soft.Certify(area, nonce, softtpm.Clock{})
	quote, quoteSig := soft.Quote(nonce, nil, nil, softtpm.Clock{})
	short, shortSig := soft.CertifyNV(public, contents[:100], nonce, softtpm.Clock{})
	part := bytes.Clone(msg)
	part[len(part)-len(contents)-3] = 1 // offset
	sha1 := bytes.Clone(public)
	sha1[5] = byte(tpm.AlgSHA1)
	changed := bytes.Clone(msg)
	changed[len(changed)-1] ^= 1
	for _, tt := range []struct {
		name             string
		ak               *tpm.Public
		nonce            []byte
		public, msg, sig []byte
	}{
		{"certified by another TPM", mustPublic(t, softtpm.New([]byte("other")).AKArea()), nonce, public, msg, sig},
		{"old nonce", ak, []byte("Nonce"), public, msg, sig},
		{"no nonce", ak, nil, public, msg, sig},
		{"another index", ak, nonce, softtpm.NVPublic(0x01a7a601, nvAttributes, len(contents)), msg, sig},
		{"other attributes", ak, nonce, softtpm.NVPublic(0x01a7a600, nvAttributes|1<<2, len(contents)), msg, sig},
		{"another size", ak, nonce, softtpm.NVPublic(0x01a7a600, nvAttributes, 185), msg, sig},
		{"part of the content", ak, nonce, public, short, shortSig},
		{"content from the middle", ak, nonce, public, part, soft.Sign(part)},
		{"Name by SHA-1", ak, nonce, sha1, msg, sig},
		{"changed content", ak, nonce, public, changed, sig},
		{"no magic", ak, nonce, public, softtpm.WithMagic(msg, 0), soft.Sign(softtpm.WithMagic(msg, 0))},
		{"a certified key", ak, nonce, public, certify, certifySig},
		{"a quote", ak, nonce, public, quote, quoteSig},
		{"trailing byte", ak, nonce, public, append(bytes.Clone(msg), 0), soft.Sign(append(bytes.Clone(msg), 0))},
		{"no key", nil, nonce, public, msg, sig},
		{"no public area", ak, nonce, nil, msg, sig},
		{"no signature", ak, nonce, public, msg, nil},
		{"no message", ak, nonce, public, nil, sig},
	} {
		if _, _, err := tpm.VerifyNV(tt.ak, tt.nonce, tt.public, tt.msg, tt.sig); !errors.Is(err, tpm.ErrNV) {
			t.Errorf("VerifyNV, %s: got %v, want %v", tt.name, err, tpm.ErrNV)
		}
	}
}

func FuzzParseNVCertify(f *testing.F) {
	soft := softtpm.New([]byte("fuzz"))
	msg, _ := soft.CertifyNV(softtpm.NVPublic(1, 0, 4), []byte("four"), []byte("nonce"), softtpm.Clock{Safe: true})
	f.Add(msg)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := tpm.ParseNVCertify(b)
		if err != nil {
			return
		}
		if len(c.Contents) > 2048 || len(c.ExtraData) > 66 {
			t.Errorf("ParseNVCertify(%x): got contents of %d bytes, extra data of %d", b, len(c.Contents), len(c.ExtraData))
		}
		info, err := tpm2.Unmarshal[tpm2.TPMSAttest](b)
		if err != nil {
			t.Fatalf("ParseNVCertify(%x) accepts what go-tpm does not: %v", b, err)
		}
		if nv, err := info.Attested.NV(); err != nil || !bytes.Equal(nv.IndexName.Buffer, c.Name) || !bytes.Equal(nv.NVContents.Buffer, c.Contents) || nv.Offset != c.Offset {
			t.Errorf("ParseNVCertify(%x): got %+v, go-tpm %+v, %v", b, c, nv, err)
		}
	})
}

func FuzzParseNVPublic(f *testing.F) {
	f.Add(softtpm.NVPublic(0x01a7a600, nvAttributes, 184))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := tpm.ParseNVPublic(b)
		if err != nil {
			return
		}
		if len(p.Name()) != 2+p.NameAlg.Size() {
			t.Errorf("ParseNVPublic(%x): Name has %d bytes", b, len(p.Name()))
		}
		if _, err := tpm.ParseNVPublic(append(bytes.Clone(b), 0)); err == nil {
			t.Errorf("ParseNVPublic(%x and a byte): got nil", b)
		}
	})
}

func BenchmarkVerifyNV(b *testing.B) {
	soft, ak, _, _ := softQuote(b)
	contents := bytes.Repeat([]byte{7}, 184)
	public := softtpm.NVPublic(0x01a7a600, nvAttributes, len(contents))
	msg, sig := soft.CertifyNV(public, contents, []byte("nonce"), softtpm.Clock{})
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := tpm.VerifyNV(ak, []byte("nonce"), public, msg, sig); err != nil {
			b.Fatal(err)
		}
	}
}
