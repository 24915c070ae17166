package tpm_test

import (
	"bytes"
	"errors"
	"testing"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

func TestMakeCredential(t *testing.T) {
	soft := softtpm.New([]byte("one"))
	ek, ak := mustPublic(t, soft.EKArea()), mustPublic(t, soft.AKArea())
	secret := []byte("thirty-two bytes of a secret ...")
	blob, encrypted, err := tpm.MakeCredential(ek, ak.Name(), secret)
	if err != nil {
		t.Fatalf("MakeCredential: %v", err)
	}
	got, err := soft.Activate(blob, encrypted)
	if err != nil || !bytes.Equal(got, secret) {
		t.Errorf("Activate: got %q, %v, want %q", got, err, secret)
	}
	if _, err := softtpm.New([]byte("two")).Activate(blob, encrypted); !errors.Is(err, softtpm.ErrActivate) {
		t.Errorf("Activate in another TPM: got %v, want %v", err, softtpm.ErrActivate)
	}
	// The Name of one key with the public area of another: the right TPM does not hold that key.
	foreign := mustPublic(t, softtpm.New([]byte("two")).AKArea())
	blob, encrypted, err = tpm.MakeCredential(ek, foreign.Name(), secret)
	if err != nil {
		t.Fatalf("MakeCredential: %v", err)
	}
	if _, err := soft.Activate(blob, encrypted); !errors.Is(err, softtpm.ErrActivate) {
		t.Errorf("Activate for the Name of another key: got %v, want %v", err, softtpm.ErrActivate)
	}
	if _, _, err := tpm.MakeCredential(mustPublic(t, readFile(t, "corpus/good/tpm/ek.pub")), ak.Name(), secret); err != nil {
		t.Errorf("MakeCredential for an RSA EK: %v", err)
	}
}

func TestMakeCredentialRefuses(t *testing.T) {
	soft := softtpm.New([]byte("one"))
	ek, ak := mustPublic(t, soft.EKArea()), mustPublic(t, soft.AKArea())
	secret := make([]byte, 32)
	for _, tt := range []struct {
		name         string
		ek           *tpm.Public
		akName, text []byte
	}{
		{"no EK", nil, ak.Name(), secret},
		{"an AK as EK", ak, ak.Name(), secret},
		{"EK from PEM", mustPublic(t, readFile(t, "corpus/good/tpm/ak-rsa.pem")), ak.Name(), secret},
		{"no Name", ek, nil, secret},
		{"Name of a key from PEM", ek, mustPublic(t, readFile(t, "corpus/good/tpm/ak-ecc.pem")).Name(), secret},
		{"Name cut", ek, ak.Name()[:20], secret},
		{"Name is a handle", ek, []byte{0x40, 0, 0, 1}, secret},
		{"no secret", ek, ak.Name(), nil},
		{"secret too long", ek, ak.Name(), make([]byte, 33)},
	} {
		if _, _, err := tpm.MakeCredential(tt.ek, tt.akName, tt.text); !errors.Is(err, tpm.ErrCredential) {
			t.Errorf("MakeCredential, %s: got %v, want %v", tt.name, err, tpm.ErrCredential)
		}
	}
}
