package tpm_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

// TestQuoteOfRealBoot checks both quotes of a real boot from their bytes to the PCR values.
func TestQuoteOfRealBoot(t *testing.T) {
	for _, kind := range []string{"ecc", "rsa"} {
		t.Run(kind, func(t *testing.T) {
			msg := readFile(t, "corpus/good/tpm/quote-"+kind+".attest")
			q, err := tpm.ParseQuote(msg)
			if err != nil {
				t.Fatalf("ParseQuote: %v", err)
			}
			ak := mustPublic(t, readFile(t, "corpus/good/tpm/ak-"+kind+".pub"))
			if err := ak.CheckAttestationKey(); err != nil {
				t.Errorf("CheckAttestationKey: %v", err)
			}
			sig := mustSignature(t, readFile(t, "corpus/good/tpm/quote-"+kind+".sig"))
			if err := ak.Verify(msg, sig); err != nil {
				t.Errorf("Verify: %v", err)
			}
			if got, want := q.ExtraData, readHex(t, "corpus/good/tpm/nonce.hex"); !bytes.Equal(got, want) {
				t.Errorf("ExtraData: got %x, want %x", got, want)
			}
			want := []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14)}}
			if diff := cmp.Diff(want, q.Selections); diff != "" {
				t.Errorf("Selections (-want +got):\n%s", diff)
			}
			digest, err := tpm.PCRDigest(sig.Hash, q.Selections, readBanks(t))
			if err != nil || !bytes.Equal(digest, q.PCRDigest) {
				t.Errorf("PCRDigest: got %x, %v, want %x", digest, err, q.PCRDigest)
			}
			if q.ResetCount != 2 || q.RestartCount != 0 || q.Clock == 0 || !q.Safe {
				t.Errorf("clock: got %d, %d, %d, %v", q.Clock, q.ResetCount, q.RestartCount, q.Safe)
			}
		})
	}
}

// TestParseQuoteAgreesWithGoTPM compares every field with go-tpm's decoder.
func TestParseQuoteAgreesWithGoTPM(t *testing.T) {
	_, _, soft, _ := softQuote(t)
	for _, msg := range [][]byte{readFile(t, "corpus/good/tpm/quote-ecc.attest"), readFile(t, "corpus/good/tpm/quote-rsa.attest"), soft} {
		got, err := tpm.ParseQuote(msg)
		if err != nil {
			t.Fatalf("ParseQuote: %v", err)
		}
		oracle, err := tpm2.Unmarshal[tpm2.TPMSAttest](msg)
		if err != nil {
			t.Fatal(err)
		}
		info, err := oracle.Attested.Quote()
		if err != nil {
			t.Fatal(err)
		}
		want := &tpm.Quote{
			QualifiedSigner: oracle.QualifiedSigner.Buffer, ExtraData: oracle.ExtraData.Buffer,
			Clock: oracle.ClockInfo.Clock, ResetCount: oracle.ClockInfo.ResetCount, RestartCount: oracle.ClockInfo.RestartCount,
			Safe: oracle.ClockInfo.Safe, FirmwareVersion: oracle.FirmwareVersion, PCRDigest: info.PCRDigest.Buffer,
		}
		for _, s := range info.PCRSelect.PCRSelections {
			sel := tpm.Selection{Alg: tpm.Alg(s.Hash)}
			for i, b := range s.PCRSelect {
				sel.PCRs |= tpm.PCRSet(b) << (8 * i)
			}
			want.Selections = append(want.Selections, sel)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParseQuote (-go-tpm +got):\n%s", diff)
		}
	}
}

func TestParseQuoteRefuses(t *testing.T) {
	soft, ak, good, _ := softQuote(t)
	certify, _ := soft.Certify(soft.AKArea(), nil, softtpm.Clock{})
	at := func(offset int, value ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[offset:], value)
		return b
	}
	const (
		extraSize = 6 + 2 + 34
		clock     = extraSize + 2 + 5
		list      = clock + 17 + 8
	)
	tests := []struct {
		name string
		msg  []byte
		want error
	}{
		{"magic 0: forged structure under a real restricted key", softtpm.WithMagic(good, 0), tpm.ErrMagic},
		{"magic in the wrong byte order", softtpm.WithMagic(good, 0x474354ff), tpm.ErrMagic},
		{"certification in place of a quote", certify, tpm.ErrNotQuote},
		{"unknown type", softtpm.WithType(good, 0x1234), tpm.ErrNotQuote},
		{"one byte more", append(bytes.Clone(good), 0), tpm.ErrTrailing},
		{"empty", nil, tpm.ErrTruncated},
		{"length bomb in the signer's name", at(6, 0xff, 0xff), tpm.ErrMalformed},
		{"length bomb in the nonce", at(extraSize, 0xff, 0xff), tpm.ErrMalformed},
		{"safe flag of 2", at(clock+16, 2), tpm.ErrMalformed},
		{"four thousand million selections", at(list, 0xff, 0xff, 0xff, 0xff), tpm.ErrMalformed},
		{"more selections than bytes", at(list, 0, 0, 0, 16)[:list+10], tpm.ErrTruncated},
		{"bit map of 255 bytes", at(list+6, 0xff), tpm.ErrMalformed},
		{"PCR 24 selected", append(append(bytes.Clone(good[:list+6]), 4, 0, 0, 0, 1), good[list+10:]...), tpm.ErrMalformed},
		{"length bomb in the digest", at(list+10, 0xff, 0xff), tpm.ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The signature is perfect each time: only the decoder stands between the forgery and a verdict.
			if err := ak.Verify(tt.msg, mustSignature(t, soft.Sign(tt.msg))); err != nil {
				t.Fatalf("Verify: %v", err)
			}
			if q, err := tpm.ParseQuote(tt.msg); !errors.Is(err, tt.want) {
				t.Errorf("ParseQuote: got %+v, %v, want error %v", q, err, tt.want)
			}
		})
	}
	for n := range good {
		if _, err := tpm.ParseQuote(good[:n]); !errors.Is(err, tpm.ErrTruncated) {
			t.Errorf("ParseQuote(first %d bytes): got %v, want %v", n, err, tpm.ErrTruncated)
		}
	}
}

func TestPCRDigest(t *testing.T) {
	banks := readBanks(t)
	sha1 := &tpm.Bank{Alg: tpm.AlgSHA1}
	sha1.Values[0] = make([]byte, 20)
	sha1.Values[1] = make([]byte, 19)
	banks[tpm.AlgSHA1] = sha1
	two := []tpm.Selection{{Alg: tpm.AlgSHA1, PCRs: tpm.PCRs(0)}, {Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(7, 0)}}
	h := tpm.AlgSHA384.Hash().New()
	h.Write(sha1.Values[0])
	h.Write(banks[tpm.AlgSHA256].Values[0])
	h.Write(banks[tpm.AlgSHA256].Values[7])
	if got, err := tpm.PCRDigest(tpm.AlgSHA384, two, banks); err != nil || !bytes.Equal(got, h.Sum(nil)) {
		t.Errorf("PCRDigest of two banks: got %x, %v, want %x", got, err, h.Sum(nil))
	}
	for _, tt := range []struct {
		name string
		hash tpm.Alg
		sel  tpm.Selection
		want string
	}{
		{"bank not given", tpm.AlgSHA256, tpm.Selection{Alg: tpm.AlgSHA512, PCRs: tpm.PCRs(3)}, "no values of bank sha512"},
		{"value not given", tpm.AlgSHA256, tpm.Selection{Alg: tpm.AlgSHA1, PCRs: tpm.PCRs(0, 5)}, "PCR 5 in bank sha1 is missing"},
		{"value too short", tpm.AlgSHA256, tpm.Selection{Alg: tpm.AlgSHA1, PCRs: tpm.PCRs(1)}, "has 19 bytes, want 20"},
		{"unknown hash", tpm.AlgNull, tpm.Selection{}, "no known hash"},
	} {
		if _, err := tpm.PCRDigest(tt.hash, []tpm.Selection{tt.sel}, banks); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("PCRDigest, %s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzParseQuote(f *testing.F) {
	_, _, soft, _ := softQuote(f)
	for _, seed := range [][]byte{readFile(f, "corpus/good/tpm/quote-ecc.attest"), readFile(f, "corpus/good/tpm/quote-rsa.attest"), soft} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := tpm.ParseQuote(b)
		if err != nil {
			return
		}
		if binary.BigEndian.Uint32(b) != 0xff544347 || len(q.Selections) > 16 || len(q.PCRDigest) > 64 {
			t.Errorf("ParseQuote(%x): accepted as %+v", b, q)
		}
		if _, err := tpm.ParseCertify(b); err == nil {
			t.Errorf("ParseCertify(%x): accepted a quote", b)
		}
	})
}
