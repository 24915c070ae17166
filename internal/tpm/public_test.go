package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

func TestParsePublic(t *testing.T) {
	for _, kind := range []string{"ecc", "rsa"} {
		sized := readFile(t, "corpus/good/tpm/ak-"+kind+".pub")
		bare := mustPublic(t, sized[2:])
		p := mustPublic(t, sized)
		if !bytes.Equal(p.Area(), sized[2:]) || !bytes.Equal(bare.Area(), sized[2:]) {
			t.Errorf("%s: Area: got %x, want %x", kind, p.Area(), sized[2:])
		}
		if got, want := p.Name(), readHex(t, "corpus/good/tpm/ak-"+kind+".name"); !bytes.Equal(got, want) {
			t.Errorf("%s: Name: got %x, want %x", kind, got, want)
		}
		fromPEM := mustPublic(t, readFile(t, "corpus/good/tpm/ak-"+kind+".pem"))
		if fromPEM.Type != p.Type || fromPEM.Name() != nil || fromPEM.Area() != nil || !sameKey(fromPEM, p) {
			t.Errorf("%s: PEM: got %+v, want the key of %+v and nothing else", kind, fromPEM, p)
		}
		if err := fromPEM.CheckAttestationKey(); !errors.Is(err, tpm.ErrNoAttributes) {
			t.Errorf("%s: CheckAttestationKey of PEM: got %v, want %v", kind, err, tpm.ErrNoAttributes)
		}
		if err := fromPEM.Verify(readFile(t, "corpus/good/tpm/quote-"+kind+".attest"), mustSignature(t, readFile(t, "corpus/good/tpm/quote-"+kind+".sig"))); err != nil {
			t.Errorf("%s: Verify with key from PEM: %v", kind, err)
		}
	}
	ek := mustPublic(t, readFile(t, "corpus/good/tpm/ek.pub"))
	if err := ek.CheckEndorsementKey(); err != nil {
		t.Errorf("CheckEndorsementKey: %v", err)
	}
	if err := ek.CheckAttestationKey(); err == nil {
		t.Errorf("CheckAttestationKey(EK): got nil")
	}
}

func sameKey(a, b *tpm.Public) bool {
	switch k := a.Key.(type) {
	case *rsa.PublicKey:
		return k.Equal(b.Key)
	case *ecdsa.PublicKey:
		return k.Equal(b.Key)
	}
	return false
}

// TestNameOfAnotherKey shows that the Name covers every byte of the public area.
func TestNameOfAnotherKey(t *testing.T) {
	area := softtpm.New([]byte("name")).AKArea()
	want := mustPublic(t, area).Name()
	for i := range area {
		changed := bytes.Clone(area)
		changed[i] ^= 0x40
		if p, err := tpm.ParsePublic(changed); err == nil && bytes.Equal(p.Name(), want) {
			t.Errorf("Name after a change of byte %d: unchanged", i)
		}
	}
}

func TestParsePublicRefuses(t *testing.T) {
	ecc, rsaArea := readFile(t, "corpus/good/tpm/ak-ecc.pub")[2:], readFile(t, "corpus/good/tpm/ak-rsa.pub")[2:]
	at := func(area []byte, offset int, value ...byte) []byte {
		b := bytes.Clone(area)
		copy(b[offset:], value)
		return b
	}
	const scheme, curve, rsaBits = 12, 16, 16 // offsets in areas without policy
	for _, tt := range []struct {
		name string
		area []byte
		want error
	}{
		{"TPM2B with a byte too many", append(readFile(t, "corpus/good/tpm/ak-ecc.pub"), 0), tpm.ErrTrailing},
		{"TPMT with a byte too many", append(bytes.Clone(ecc), 0), tpm.ErrTrailing},
		{"keyed hash object", at(readFile(t, "corpus/good/tpm/ak-ecc.pub"), 2, 0x00, 0x08), tpm.ErrUnsupported},
		{"unknown name algorithm", at(ecc, 2, 0x00, 0x10), tpm.ErrUnsupported},
		{"reserved attribute 0", at(ecc, 7, ecc[7]|1), tpm.ErrMalformed},
		{"reserved attribute 29", at(ecc, 4, ecc[4]|0x20), tpm.ErrMalformed},
		{"length bomb in the policy", at(ecc, 8, 0xff, 0xff), tpm.ErrMalformed},
		{"unknown scheme", at(ecc, scheme, 0x12, 0x34), tpm.ErrUnsupported},
		{"RSA scheme of a curve key", at(ecc, scheme, 0x00, 0x14), tpm.ErrUnsupported},
		{"curve P-192", at(ecc, curve, 0, 1), tpm.ErrUnsupported},
		{"curve P-224", at(ecc, curve, 0, 2), tpm.ErrUnsupported},
		{"curve BN-256", at(ecc, curve, 0, 0x10), tpm.ErrUnsupported},
		{"curve SM2", at(ecc, curve, 0, 0x20), tpm.ErrUnsupported},
		{"point of P-256 on P-384", at(ecc, curve, 0, 4), tpm.ErrMalformed},
		{"point not on the curve", at(ecc, len(ecc)-1, ecc[len(ecc)-1]^1), tpm.ErrMalformed},
		{"point at infinity", append(bytes.Clone(ecc[:20]), 0, 0, 0, 0), tpm.ErrMalformed},
		{"RSA of 1024 bits", append(at(rsaArea, rsaBits, 0x04, 0x00)[:22], append([]byte{0, 128}, rsaArea[24:152]...)...), tpm.ErrUnsupported},
		{"RSA bits not those of the modulus", at(rsaArea, rsaBits, 0x0c, 0x00), tpm.ErrMalformed},
		{"RSA exponent 3", at(rsaArea, rsaBits+2, 0, 0, 0, 3), tpm.ErrUnsupported},
		{"RSA exponent 2^32-1", at(rsaArea, rsaBits+2, 0xff, 0xff, 0xff, 0xff), tpm.ErrUnsupported},
		{"RSA modulus even", at(rsaArea, len(rsaArea)-1, rsaArea[len(rsaArea)-1]&^1), tpm.ErrMalformed},
		{"RSA length bomb", at(rsaArea, 22, 0xff, 0xff), tpm.ErrMalformed},
		{"PEM of a certificate", readFile(t, "tpm-ca/root.pem"), tpm.ErrUnsupported},
		{"PEM cut", readFile(t, "corpus/good/tpm/ak-ecc.pem")[:90], tpm.ErrTruncated},
		{"two PEM blocks", bytes.Repeat(readFile(t, "corpus/good/tpm/ak-ecc.pem"), 2), tpm.ErrTrailing},
		{"PEM of 1024 bits", weakPEM(t), tpm.ErrUnsupported},
		{"PEM on P-224", curvePEM(t, elliptic.P224()), tpm.ErrUnsupported},
	} {
		if p, err := tpm.ParsePublic(tt.area); !errors.Is(err, tt.want) {
			t.Errorf("ParsePublic(%s): got %+v, %v, want error %v", tt.name, p, err, tt.want)
		}
	}
	for _, name := range []string{"corpus/good/tpm/ak-ecc.pub", "corpus/good/tpm/ak-rsa.pub", "corpus/good/tpm/ek.pub"} {
		b := readFile(t, name)
		for n := range b {
			if _, err := tpm.ParsePublic(b[:n]); !errors.Is(err, tpm.ErrTruncated) {
				t.Errorf("ParsePublic(first %d bytes of %s): got %v, want %v", n, name, err, tpm.ErrTruncated)
			}
			if n+2 < len(b) {
				if _, err := tpm.ParsePublic(b[2 : 2+n]); !errors.Is(err, tpm.ErrTruncated) {
					t.Errorf("ParsePublic(first %d bytes of the area in %s): got %v, want %v", n, name, err, tpm.ErrTruncated)
				}
			}
		}
	}
}

func TestCheckAttestationKeyAttributes(t *testing.T) {
	area := softtpm.New([]byte("attributes")).AKArea()
	attributes := binary.BigEndian.Uint32(area[4:])
	with := func(a uint32) *tpm.Public {
		b := bytes.Clone(area)
		binary.BigEndian.PutUint32(b[4:], a)
		return mustPublic(t, b)
	}
	for _, tt := range []struct {
		name string
		flip uint32
	}{
		{"fixedTPM", tpm.AttrFixedTPM},
		{"fixedParent", tpm.AttrFixedParent},
		{"sensitiveDataOrigin", tpm.AttrSensitiveDataOrigin},
		{"restricted", tpm.AttrRestricted},
		{"sign", tpm.AttrSign},
		{"decrypt", tpm.AttrDecrypt},
	} {
		err := with(attributes ^ tt.flip).CheckAttestationKey()
		var attr *tpm.AttributeError
		if !errors.As(err, &attr) || attr.Attribute != tt.name {
			t.Errorf("CheckAttestationKey with %s flipped: got %v", tt.name, err)
		}
	}
	err := with(0).CheckAttestationKey()
	for _, name := range []string{"fixedTPM", "fixedParent", "sensitiveDataOrigin", "restricted", "sign"} {
		if err == nil || !strings.Contains(err.Error(), "attribute "+name+" is not set") {
			t.Errorf("CheckAttestationKey with no attribute: got %v, want %s named", err, name)
		}
	}
	if err := with(attributes).CheckAttestationKey(); err != nil {
		t.Errorf("CheckAttestationKey: %v", err)
	}
	if err := (&tpm.Public{}).CheckAttestationKey(); err == nil {
		t.Error("CheckAttestationKey of nothing: got nil")
	}
}

func TestCheckAttestationKeyScheme(t *testing.T) {
	area := softtpm.New([]byte("scheme")).AKArea()
	free := append(append(bytes.Clone(area[:12]), 0x00, 0x10), area[16:]...) // no scheme: would sign by SHA-1 if asked
	sha1 := bytes.Clone(area)
	sha1[15] = 0x04
	sha1Name := bytes.Clone(area)
	sha1Name[3] = 0x04
	for name, b := range map[string][]byte{"no scheme": free, "sha1 scheme": sha1, "sha1 name": sha1Name} {
		if err := mustPublic(t, b).CheckAttestationKey(); !errors.Is(err, tpm.ErrUnsupported) {
			t.Errorf("CheckAttestationKey, %s: got %v, want %v", name, err, tpm.ErrUnsupported)
		}
	}
}

func weakPEM(t *testing.T) []byte {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return encodePEM(t, &key.PublicKey)
}

func curvePEM(t *testing.T, curve elliptic.Curve) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return encodePEM(t, &key.PublicKey)
}

func encodePEM(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func FuzzParsePublic(f *testing.F) {
	for _, name := range []string{"ak-ecc.pub", "ak-rsa.pub", "ek.pub", "ak-ecc.pem", "ak-rsa.pem"} {
		f.Add(readFile(f, "corpus/good/tpm/"+name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := tpm.ParsePublic(b)
		if err != nil {
			return
		}
		_ = p.CheckAttestationKey()
		_, _, _ = tpm.MakeCredential(p, append([]byte{0, 0x0b}, make([]byte, 32)...), []byte("secret"))
		if p.Area() == nil {
			return
		}
		// Whatever we accept means the same to go-tpm: no two readers may see two keys in the same bytes.
		oracle, err := tpm2.Unmarshal[tpm2.TPMTPublic](p.Area())
		if err != nil {
			t.Fatalf("ParsePublic(%x): accepted, go-tpm says %v", b, err)
		}
		if !bytes.Equal(tpm2.Marshal(oracle), p.Area()) {
			t.Errorf("ParsePublic(%x): Area %x is not canonical", b, p.Area())
		}
	})
}
