package tpm_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

func TestParseCertify(t *testing.T) {
	soft, ak, quote, _ := softQuote(t)
	_, area := soft.TLSKey()
	msg, sig := soft.Certify(area, []byte("nonce"), softtpm.Clock{Clock: 5, ResetCount: 6})
	c, err := tpm.ParseCertify(msg)
	if err != nil {
		t.Fatalf("ParseCertify: %v", err)
	}
	tls := mustPublic(t, area)
	if !bytes.Equal(c.Name, tls.Name()) || string(c.ExtraData) != "nonce" || c.Clock != 5 || c.ResetCount != 6 {
		t.Errorf("ParseCertify: got %+v, want Name %x", c, tls.Name())
	}
	if err := ak.Verify(msg, mustSignature(t, sig)); err != nil {
		t.Errorf("Verify: %v", err)
	}
	if err := tls.CheckResidentKey(); err != nil {
		t.Errorf("CheckResidentKey: %v", err)
	}
	oracle, err := tpm2.Unmarshal[tpm2.TPMSAttest](msg)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := oracle.Attested.Certify(); err != nil || !bytes.Equal(info.QualifiedName.Buffer, c.QualifiedName) {
		t.Errorf("QualifiedName: got %x, go-tpm says %+v, %v", c.QualifiedName, info, err)
	}
	if _, err := tpm.ParseCertify(quote); !errors.Is(err, tpm.ErrNotCertify) {
		t.Errorf("ParseCertify(quote): got %v, want %v", err, tpm.ErrNotCertify)
	}
	if _, err := tpm.ParseCertify(softtpm.WithMagic(msg, 0)); !errors.Is(err, tpm.ErrMagic) {
		t.Errorf("ParseCertify(magic 0): got %v, want %v", err, tpm.ErrMagic)
	}
	for n := range msg {
		if _, err := tpm.ParseCertify(msg[:n]); !errors.Is(err, tpm.ErrTruncated) {
			t.Errorf("ParseCertify(first %d bytes): got %v, want %v", n, err, tpm.ErrTruncated)
		}
	}
}

func TestVerifyCertified(t *testing.T) {
	soft, ak, _, _ := softQuote(t)
	_, area := soft.TLSKey()
	tls, nonce := mustPublic(t, area), []byte("nonce")
	msg, sig := soft.Certify(area, nonce, softtpm.Clock{})
	if err := tpm.VerifyCertified(ak, tls, nonce, msg, sig); err != nil {
		t.Errorf("VerifyCertified: %v", err)
	}
	other := softtpm.New([]byte("other"))
	_, otherArea := other.TLSKey()
	loose := bytes.Clone(area)
	loose[7] &^= byte(tpm.AttrFixedTPM)
	looseMsg, looseSig := soft.Certify(loose, nonce, softtpm.Clock{})
	forged := softtpm.WithMagic(msg, 0)
	quote, quoteSig := soft.Quote(nonce, nil, nil, softtpm.Clock{})
	for _, tt := range []struct {
		name     string
		ak, key  *tpm.Public
		nonce    []byte
		msg, sig []byte
	}{
		{"certified by another TPM", mustPublic(t, other.AKArea()), tls, nonce, msg, sig},
		{"another key than the certified one", ak, mustPublic(t, otherArea), nonce, msg, sig},
		{"another nonce", ak, tls, []byte("Nonce"), msg, sig},
		{"no nonce", ak, tls, nil, msg, sig},
		{"key that can leave the TPM", ak, mustPublic(t, loose), nonce, looseMsg, looseSig},
		{"forged message", ak, tls, nonce, forged, soft.Sign(forged)},
		{"quote", ak, tls, nonce, quote, quoteSig},
		{"signed by an unrestricted key", tls, tls, nonce, msg, sig},
		{"AK from PEM", mustPublic(t, encodePEM(t, ak.Key)), tls, nonce, msg, sig},
		{"key from PEM", ak, mustPublic(t, encodePEM(t, tls.Key)), nonce, msg, sig},
		{"nil keys", nil, nil, nonce, msg, sig},
		{"no signature", ak, tls, nonce, msg, nil},
		{"no message", ak, tls, nonce, nil, sig},
	} {
		if err := tpm.VerifyCertified(tt.ak, tt.key, tt.nonce, tt.msg, tt.sig); err == nil {
			t.Errorf("VerifyCertified, %s: got nil, want an error", tt.name)
		}
	}
}

func FuzzParseCertify(f *testing.F) {
	soft := softtpm.New([]byte("fuzz"))
	msg, _ := soft.Certify(soft.EKArea(), []byte("nonce"), softtpm.Clock{Safe: true})
	f.Add(msg)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := tpm.ParseCertify(b); err == nil && (len(c.Name) > 66 || len(c.ExtraData) > 66) {
			t.Errorf("ParseCertify(%x): accepted as %+v", b, c)
		}
	})
}
