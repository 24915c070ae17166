package keystore

import (
	"context"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// key is a KEK that is in memory: from a key file, a passphrase, or unsealed by a TPM.
type key struct {
	id   string
	aead cipher.AEAD
	raw  []byte
}

// NewKey returns the KEK of 32 random bytes, which wraps by AES-256-GCM. kind ("file", "tpm") begins its ID; the rest is derived from
// the key, so that the same key always has the same ID, and a wrong one is known before anything is opened with it.
func NewKey(kind string, raw []byte) (KEK, error) { return newKey(kind, raw) }

func newKey(kind string, raw []byte) (*key, error) {
	if len(raw) != keySize {
		return nil, fmt.Errorf("a key-encryption key has %d bytes: want %d random bytes", len(raw), keySize)
	}
	name, err := hkdf.Key(sha256.New, raw, nil, "touchstone key-encryption key: name", 8)
	if err != nil {
		return nil, err
	}
	wrap, err := hkdf.Key(sha256.New, raw, nil, "touchstone key-encryption key: wrap", keySize)
	if err != nil {
		return nil, err
	}
	defer clear(wrap)
	aead, err := newAEAD(wrap)
	if err != nil {
		return nil, err
	}
	k := &key{id: kind + ":" + hex.EncodeToString(name), aead: aead, raw: raw}
	return k, checkID(k.id)
}

func (k *key) ID() string { return k.id }

func (k *key) Wrap(_ context.Context, plain, aad []byte) ([]byte, error) {
	return k.aead.Seal(nil, nil, plain, aad), nil //nolint:gosec // a nonce is made by the AEAD
}

func (k *key) Unwrap(_ context.Context, wrapped, aad []byte) ([]byte, error) {
	plain, err := k.aead.Open(nil, nil, wrapped, aad)
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}
