package softtpm

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// ErrActivate says that a credential was not made for this TPM and its attestation key, or was damaged.
var ErrActivate = errors.New("credential cannot be activated")

// Activate decrypts a credential that was made for this TPM's endorsement key and the Name of its attestation key
// (TPM2_ActivateCredential; part 1, 24 and annex C.6.1). It takes a TPM2B_ID_OBJECT and a TPM2B_ENCRYPTED_SECRET.
func (t *TPM) Activate(blob, secret []byte) ([]byte, error) {
	seed, err := t.sharedSeed(secret)
	if err != nil {
		return nil, err
	}
	id, rest, ok := cutSized(blob)
	mac, encrypted, ok2 := cutSized(id)
	if !ok || !ok2 || len(rest) != 0 {
		return nil, fmt.Errorf("%w: blob is no TPM2B_ID_OBJECT", ErrActivate)
	}
	h := hmac.New(sha256.New, tpm2.KDFa(crypto.SHA256, seed, "INTEGRITY", nil, nil, 256))
	h.Write(encrypted)
	h.Write(t.akName)
	if !hmac.Equal(mac, h.Sum(nil)) {
		return nil, fmt.Errorf("%w: it is for another TPM or attestation key", ErrActivate)
	}
	block, err := aes.NewCipher(tpm2.KDFa(crypto.SHA256, seed, "STORAGE", t.akName, nil, 128))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrActivate, err)
	}
	plain := make([]byte, len(encrypted))
	//nolint:staticcheck // the TPM specification asks for CFB; the MAC above protects it
	cipher.NewCFBDecrypter(block, make([]byte, aes.BlockSize)).XORKeyStream(plain, encrypted)
	value, rest, ok := cutSized(plain)
	if !ok || len(rest) != 0 {
		return nil, fmt.Errorf("%w: decrypted to garbage", ErrActivate)
	}
	return value, nil
}

// sharedSeed computes the seed that both sides know, from the one-time point in a TPM2B_ENCRYPTED_SECRET.
func (t *TPM) sharedSeed(secret []byte) ([]byte, error) {
	point, rest, ok := cutSized(secret)
	x, afterX, okX := cutSized(point)
	y, afterY, okY := cutSized(afterX)
	if !ok || !okX || !okY || len(rest)+len(afterY) != 0 || len(x) > 32 || len(y) > 32 {
		return nil, fmt.Errorf("%w: secret is no TPM2B_ENCRYPTED_SECRET with a point on P-256", ErrActivate)
	}
	raw := make([]byte, 65)
	raw[0] = 4
	copy(raw[33-len(x):], x)
	copy(raw[65-len(y):], y)
	peer, err := ecdh.P256().NewPublicKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrActivate, err)
	}
	own, err := t.ek.ECDH()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrActivate, err)
	}
	z, err := own.ECDH(peer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrActivate, err)
	}
	ownX := mustPoint(&t.ek.PublicKey)[1:33]
	return tpm2.KDFe(crypto.SHA256, z, "IDENTITY", raw[1:33], ownX, 256), nil
}

// cutSized cuts a TPM2B from the front of b.
func cutSized(b []byte) (field, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if n > len(b)-2 {
		return nil, nil, false
	}
	return b[2 : 2+n], b[2+n:], true
}
