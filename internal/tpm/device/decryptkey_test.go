package device

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"testing"

	"touchstone.dev/touchstone/internal/tpm"
)

// TestDecryptionKey: the key works in the state that it was made for, comes back after a reboot into the same state, and the Verifier can
// tell which state that is.
func TestDecryptionKey(t *testing.T) {
	if err := shared.process.Reboot(context.Background()); err != nil {
		t.Fatal(err)
	}
	dev, pcrs := open(t), tpm.PCRs(0, 7, 9)
	ak := mustAK(t, dev, "ecc")
	make := func() *DecryptionKey {
		t.Helper()
		key, err := dev.DecryptionKey(tpm.AlgSHA256, pcrs)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	key := make()
	message, signature, err := dev.CertifyDecryption(ak, key, []byte("nonce"))
	if err != nil {
		t.Fatal(err)
	}
	banks, err := dev.ReadPCRs([]tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: pcrs}})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := tpm.PCRPolicy(banks[0], pcrs)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(policy []byte) error {
		return tpm.VerifyDecryptionKey(mustPublic(t, ak.Public()), mustPublic(t, key.Area()), policy, []byte("nonce"), message, signature)
	}
	if err := verify(policy); err != nil {
		t.Errorf("VerifyDecryptionKey(): %v", err)
	}
	other := bytes.Clone(policy)
	other[3] ^= 1
	for _, p := range [][]byte{other, nil} {
		if err := verify(p); !errors.Is(err, tpm.ErrNotCertified) {
			t.Errorf("VerifyDecryptionKey() of another state: got %v, want %v", err, tpm.ErrNotCertified)
		}
	}
	exchange(t, key)
	if err := shared.process.Reboot(context.Background()); err != nil {
		t.Fatal(err)
	}
	exchange(t, key)
	if again := make(); !again.PublicKey().Equal(key.PublicKey()) {
		t.Error("after a reboot: another key for the same state")
	}
	if err := dev.Extend(9, map[tpm.Alg][]byte{tpm.AlgSHA256: bytes.Repeat([]byte{1}, 32)}); err != nil {
		t.Fatal(err)
	}
	peer, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.ECDH(peer.PublicKey()); !errors.Is(err, ErrStateChanged) {
		t.Errorf("ECDH() in another state: got %v, want %v", err, ErrStateChanged)
	}
	if now := make(); now.PublicKey().Equal(key.PublicKey()) {
		t.Error("in another state: the same key")
	} else {
		exchange(t, now)
	}
	if left, err := dev.handles(0x02000000, 0x03ffffff); err != nil || len(left) != 0 {
		t.Errorf("sessions left in the TPM: got %x, %v, want none", left, err)
	}
}

// exchange does the key's part inside the TPM and the other's outside.
func exchange(t testing.TB, key *DecryptionKey) {
	t.Helper()
	peer, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.ECDH(key.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := key.ECDH(peer.PublicKey()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("ECDH(): got %x, %v, want %x", got, err, want)
	}
}

func BenchmarkDecryptionKeyECDH(b *testing.B) {
	dev := open(b)
	key, err := dev.DecryptionKey(tpm.AlgSHA256, tpm.PCRs(0, 7))
	if err != nil {
		b.Fatal(err)
	}
	peer, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := key.ECDH(peer.PublicKey()); err != nil {
			b.Fatal(err)
		}
	}
}
