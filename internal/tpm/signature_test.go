package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // to show that it is refused
	"crypto/sha256"
	"errors"
	"math/big"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/tpm"
)

func TestParseSignatureAgreesWithGoTPM(t *testing.T) {
	for _, kind := range []string{"ecc", "rsa"} {
		b := readFile(t, "corpus/good/tpm/quote-"+kind+".sig")
		got := mustSignature(t, b)
		oracle, err := tpm2.Unmarshal[tpm2.TPMTSignature](b)
		if err != nil {
			t.Fatal(err)
		}
		if got.Alg != tpm.Alg(oracle.SigAlg) {
			t.Errorf("%s: Alg: got %v, want %v", kind, got.Alg, oracle.SigAlg)
		}
		if ec, err := oracle.Signature.ECDSA(); err == nil {
			if !bytes.Equal(got.R, ec.SignatureR.Buffer) || !bytes.Equal(got.S, ec.SignatureS.Buffer) || got.Hash != tpm.Alg(ec.Hash) {
				t.Errorf("%s: got %+v, want %+v", kind, got, ec)
			}
		} else if r, err := oracle.Signature.RSASSA(); err != nil || !bytes.Equal(got.RSA, r.Sig.Buffer) || got.Hash != tpm.Alg(r.Hash) {
			t.Errorf("%s: got %+v, want %+v, %v", kind, got, r, err)
		}
	}
}

func TestParseSignatureRefuses(t *testing.T) {
	good := readFile(t, "corpus/good/tpm/quote-ecc.sig")
	for _, tt := range []struct {
		name string
		sig  []byte
		want error
	}{
		{"null", []byte{0x00, 0x10}, tpm.ErrSignature},
		{"HMAC", []byte{0x00, 0x05, 0x00, 0x0b, 1, 2}, tpm.ErrUnsupported},
		{"unknown hash", append([]byte{0, 0x18, 0, 0x12}, good[4:]...), tpm.ErrUnsupported},
		{"trailing byte", append(bytes.Clone(good), 0), tpm.ErrTrailing},
		{"length bomb", []byte{0x00, 0x14, 0x00, 0x0b, 0xff, 0xff}, tpm.ErrMalformed},
		{"coordinate longer than P-521", []byte{0x00, 0x18, 0x00, 0x0b, 0x00, 0x43}, tpm.ErrMalformed},
	} {
		if s, err := tpm.ParseSignature(tt.sig); !errors.Is(err, tt.want) {
			t.Errorf("ParseSignature(%s): got %+v, %v, want error %v", tt.name, s, err, tt.want)
		}
	}
	for _, kind := range []string{"ecc", "rsa"} {
		b := readFile(t, "corpus/good/tpm/quote-"+kind+".sig")
		for n := range b {
			if _, err := tpm.ParseSignature(b[:n]); !errors.Is(err, tpm.ErrTruncated) {
				t.Errorf("ParseSignature(first %d bytes of %s): got %v, want %v", n, kind, err, tpm.ErrTruncated)
			}
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	soft, ak, msg, sig := softQuote(t)
	good := mustSignature(t, sig)
	other := mustPublic(t, readFile(t, "corpus/good/tpm/ak-ecc.pub"))
	rsaKey := mustPublic(t, readFile(t, "corpus/good/tpm/ak-rsa.pub"))
	change := func(f func(*tpm.Signature)) *tpm.Signature {
		s := *mustSignature(t, sig)
		f(&s)
		return &s
	}
	flipped := bytes.Clone(msg)
	flipped[len(flipped)-1] ^= 1
	for _, tt := range []struct {
		name string
		key  *tpm.Public
		msg  []byte
		sig  *tpm.Signature
	}{
		{"nil signature", ak, msg, nil},
		{"nil key", nil, msg, good},
		{"empty key", &tpm.Public{}, msg, good},
		{"empty signature", ak, msg, &tpm.Signature{}},
		{"another key", other, msg, good},
		{"a key of another type", rsaKey, msg, good},
		{"one bit of the message", ak, flipped, good},
		{"signature of another message", ak, msg, mustSignature(t, soft.Sign([]byte("other")))},
		{"R of zero", ak, msg, change(func(s *tpm.Signature) { s.R = nil })},
		{"hash not that of the key", ak, msg, change(func(s *tpm.Signature) { s.Hash = tpm.AlgSHA384 })},
		{"scheme not that of the key", ak, msg, change(func(s *tpm.Signature) { s.Alg = tpm.AlgRSASSA })},
		{"RSA scheme with a curve key", &tpm.Public{Key: ak.Key}, msg, change(func(s *tpm.Signature) { s.Alg = tpm.AlgRSASSA })},
		{"curve scheme with an RSA key", &tpm.Public{Key: rsaKey.Key}, msg, good},
	} {
		if err := tt.key.Verify(tt.msg, tt.sig); !errors.Is(err, tpm.ErrSignature) {
			t.Errorf("Verify, %s: got %v, want %v", tt.name, err, tpm.ErrSignature)
		}
	}
}

// TestVerifySchemes signs by every scheme with keys that are free to choose, and shows that SHA-1 is refused where it verifies.
func TestVerifySchemes(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	msg := []byte("message")
	digest := sha256.Sum256(msg)
	rsaPublic := &tpm.Public{Type: tpm.AlgRSA, Key: &rsaKey.PublicKey}
	for _, salt := range []int{rsa.PSSSaltLengthEqualsHash, rsa.PSSSaltLengthAuto, 0} {
		b, err := rsa.SignPSS(rand.Reader, rsaKey, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: salt})
		if err != nil {
			t.Fatal(err)
		}
		if err := rsaPublic.Verify(msg, &tpm.Signature{Alg: tpm.AlgRSAPSS, Hash: tpm.AlgSHA256, RSA: b}); err != nil {
			t.Errorf("Verify rsapss with salt %d: %v", salt, err)
		}
		if err := rsaPublic.Verify(msg, &tpm.Signature{Alg: tpm.AlgRSASSA, Hash: tpm.AlgSHA256, RSA: b}); !errors.Is(err, tpm.ErrSignature) {
			t.Errorf("Verify rsapss as rsassa: got %v, want %v", err, tpm.ErrSignature)
		}
	}
	weak := sha1.Sum(msg) //nolint:gosec // to show that it is refused
	b, err := rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA1, weak[:])
	if err != nil {
		t.Fatal(err)
	}
	if err := rsaPublic.Verify(msg, &tpm.Signature{Alg: tpm.AlgRSASSA, Hash: tpm.AlgSHA1, RSA: b}); !errors.Is(err, tpm.ErrSignature) {
		t.Errorf("Verify rsassa with sha1: got %v, want %v", err, tpm.ErrSignature)
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		var r, s *big.Int
		if r, s, err = ecdsa.Sign(rand.Reader, key, digest[:]); err != nil {
			t.Fatal(err)
		}
		p := &tpm.Public{Type: tpm.AlgECC, Key: &key.PublicKey}
		if err := p.Verify(msg, &tpm.Signature{Alg: tpm.AlgECDSA, Hash: tpm.AlgSHA256, R: r.Bytes(), S: s.Bytes()}); err != nil {
			t.Errorf("Verify ecdsa on %s: %v", curve.Params().Name, err)
		}
	}
}

func FuzzParseSignature(f *testing.F) {
	f.Add(readFile(f, "corpus/good/tpm/quote-ecc.sig"))
	f.Add(readFile(f, "corpus/good/tpm/quote-rsa.sig"))
	ecc, rsaKey := mustPublic(f, readFile(f, "corpus/good/tpm/ak-ecc.pub")), mustPublic(f, readFile(f, "corpus/good/tpm/ak-rsa.pub"))
	msg := []byte("nobody signed this")
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := tpm.ParseSignature(b)
		if err != nil {
			return
		}
		if ecc.Verify(msg, s) == nil || rsaKey.Verify(msg, s) == nil {
			t.Errorf("Verify(%x): accepted", b)
		}
	})
}

func benchmarkQuote(b *testing.B, kind string) {
	msg, sig := readFile(b, "corpus/good/tpm/quote-"+kind+".attest"), readFile(b, "corpus/good/tpm/quote-"+kind+".sig")
	ak, banks := mustPublic(b, readFile(b, "corpus/good/tpm/ak-"+kind+".pub")), readBanks(b)
	b.ReportAllocs()
	defer reportCPU(b)()
	for b.Loop() {
		q, err := tpm.ParseQuote(msg)
		if err != nil {
			b.Fatal(err)
		}
		s, err := tpm.ParseSignature(sig)
		if err != nil {
			b.Fatal(err)
		}
		if err := ak.Verify(msg, s); err != nil {
			b.Fatal(err)
		}
		digest, err := tpm.PCRDigest(s.Hash, q.Selections, banks)
		if err != nil || !bytes.Equal(digest, q.PCRDigest) {
			b.Fatal(err)
		}
	}
}

// reportCPU reports the CPU time of an operation: on a shared machine the wall time is that of the neighbours.
func reportCPU(b *testing.B) func() {
	used := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	start := used()
	return func() { b.ReportMetric(float64(used()-start)/float64(b.N), "cpu-ns/op") }
}

func BenchmarkVerifyQuoteECC(b *testing.B) { benchmarkQuote(b, "ecc") }
func BenchmarkVerifyQuoteRSA(b *testing.B) { benchmarkQuote(b, "rsa") }

func BenchmarkParseQuote(b *testing.B) {
	msg := readFile(b, "corpus/good/tpm/quote-ecc.attest")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tpm.ParseQuote(msg); err != nil {
			b.Fatal(err)
		}
	}
}
