package keystore

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
)

// Limits of the sealed form.
const (
	MaxSecret  = 1 << 20 // bytes of a secret
	magic      = "TSS1"  // the last character is the version
	maxID      = 64
	maxWrapped = 4096 // bytes of a wrapped data key; a transit server's are text
	keySize    = 32
	overhead   = 12 + 16 // nonce and tag
)

// envelope is a parsed sealed form. Its slices point into it.
type envelope struct {
	id         string
	wrapped    []byte // data key
	ciphertext []byte // nonce, ciphertext, tag
}

// SealedBy returns the ID of the key that sealed data was sealed under.
func SealedBy(sealed []byte) (string, error) {
	e, err := parse(sealed)
	return e.id, err
}

func parse(b []byte) (envelope, error) {
	if !bytes.HasPrefix(b, []byte(magic)) {
		if len(b) >= len(magic) && bytes.HasPrefix(b, []byte(magic[:3])) {
			return envelope{}, fmt.Errorf("%w: its format %q is of another version of this program", ErrSealed, b[:len(magic)])
		}
		return envelope{}, fmt.Errorf("%w: it has not the form of a sealed secret", ErrSealed)
	}
	id, rest, ok := cut(b[len(magic):], 1)
	if !ok || checkID(string(id)) != nil {
		return envelope{}, fmt.Errorf("%w: bad key ID", ErrSealed)
	}
	wrapped, rest, ok := cut(rest, 2)
	if !ok || len(wrapped) == 0 || len(wrapped) > maxWrapped {
		return envelope{}, fmt.Errorf("%w: bad data key", ErrSealed)
	}
	if len(rest) < overhead || len(rest) > MaxSecret+overhead {
		return envelope{}, fmt.Errorf("%w: %d bytes of ciphertext", ErrSealed, len(rest))
	}
	return envelope{string(id), wrapped, rest}, nil
}

// cut takes a field whose size stands before it in n bytes.
func cut(b []byte, n int) (field, rest []byte, ok bool) {
	if len(b) < n {
		return nil, nil, false
	}
	size := 0
	for _, c := range b[:n] {
		size = size<<8 | int(c)
	}
	if b = b[n:]; len(b) < size {
		return nil, nil, false
	}
	return b[:size], b[size:], true
}

func seal(ctx context.Context, k KEK, plain, aad []byte) ([]byte, error) {
	if len(plain) > MaxSecret {
		return nil, fmt.Errorf("a secret of %d bytes: at most %d can be sealed", len(plain), MaxSecret)
	}
	id := k.ID()
	if err := checkID(id); err != nil {
		return nil, err
	}
	key := randomKey()
	defer clear(key)
	bound := bind(id, aad)
	wrapped, err := k.Wrap(ctx, key, bound)
	if err != nil {
		return nil, fmt.Errorf("seal under key %s: %w", id, err)
	}
	if len(wrapped) == 0 || len(wrapped) > maxWrapped {
		return nil, fmt.Errorf("seal under key %s: a wrapped data key has %d bytes", id, len(wrapped))
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	b := append([]byte(magic), byte(len(id)))
	b = append(b, id...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(wrapped))), wrapped...)
	return aead.Seal(b, nil, plain, bound), nil //nolint:gosec // a nonce is made by the AEAD
}

func (e envelope) open(ctx context.Context, k KEK, aad []byte) ([]byte, error) {
	bound := bind(e.id, aad)
	key, err := k.Unwrap(ctx, e.wrapped, bound)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	if len(key) != keySize {
		return nil, ErrSealed
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, e.ciphertext, bound)
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

// bind is what both encryptions of a sealed form authenticate: format and key ID, whose size is told, then the caller's data.
func bind(id string, aad []byte) []byte {
	b := append([]byte(magic), byte(len(id)))
	b = append(b, id...)
	return append(b, aad...)
}

// newAEAD returns AES-256-GCM that puts a random nonce in front. A key here seals once (a data key) or data keys only (a KEK): the
// 2^32 messages that random nonces are good for are never reached.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func randomKey() []byte {
	k := make([]byte, keySize)
	_, _ = rand.Read(k) // never fails: crypto/rand ends the program instead
	return k
}
