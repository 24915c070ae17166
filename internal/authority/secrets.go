package authority

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/crypto/scrypt"

	"touchstone.dev/touchstone/internal/store"
)

// Cost of scrypt for a passphrase (RFC 7914): 32 MiB and some 100 ms, once at start.
const (
	scryptN, scryptR, scryptP = 1 << 15, 8, 1
	keySize                   = 32
)

// vault keeps secrets in the settings of the store, each sealed with AES-256-GCM under the key-encryption key and bound to its name.
type vault struct {
	store store.Store
	aead  cipher.AEAD
}

// openVault derives the key-encryption key and checks it against the store. A key file that does not exist is made when the store is new.
func openVault(ctx context.Context, c *Config, st store.Store) (*vault, error) {
	_, err := st.Setting(ctx, "kek.check")
	fresh := errors.Is(err, store.ErrNotFound)
	if err != nil && !fresh {
		return nil, err
	}
	var key []byte
	if c.PassphraseFile != "" {
		key, err = passphraseKey(ctx, c.PassphraseFile, st, fresh)
	} else {
		key, err = fileKey(c.KeyFile, fresh)
	}
	if err != nil {
		return nil, err
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	v := &vault{store: st, aead: aead}
	if fresh {
		return v, v.put(ctx, map[string][]byte{"kek.check": []byte("aias")})
	}
	if _, err := v.get(ctx, "kek.check"); err != nil {
		return nil, errors.New("the key file or passphrase is not the one that this data folder was made with: restore the right one")
	}
	return v, nil
}

// keeper seals secrets at rest under the key-encryption key. aad names the secret and its place: moved elsewhere it does not open.
type keeper interface {
	Wrap(ctx context.Context, plain, aad []byte) ([]byte, error)
	Unwrap(ctx context.Context, sealed, aad []byte) ([]byte, error)
}

// Wrap seals a secret that is kept outside of the settings.
func (v *vault) Wrap(_ context.Context, plain, aad []byte) ([]byte, error) {
	return seal(v.aead, plain, string(aad)), nil
}

// Unwrap opens what Wrap sealed.
func (v *vault) Unwrap(_ context.Context, sealed, aad []byte) ([]byte, error) {
	return unseal(v.aead, sealed, string(aad))
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func fileKey(path string, fresh bool) ([]byte, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && fresh {
		key = randomBytes(keySize)
		if err := writeNew(path, key); err != nil {
			return nil, fmt.Errorf("make the key file: %w", err)
		}
		return key, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w: restore it, without it the keys of AIAS are lost", err)
	}
	if len(key) != keySize {
		return nil, fmt.Errorf("key file %s has %d bytes: want %d random bytes", path, len(key), keySize)
	}
	return key, nil
}

func passphraseKey(ctx context.Context, path string, st store.Store, fresh bool) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	pass := strings.TrimRight(string(data), "\r\n")
	if len(pass) < 12 {
		return nil, fmt.Errorf("passphrase in %s has %d characters: want at least 12", path, len(pass))
	}
	salt, err := st.Setting(ctx, "kek.salt")
	if errors.Is(err, store.ErrNotFound) && fresh {
		salt = randomBytes(16)
		err = st.PutSettings(ctx, map[string][]byte{"kek.salt": salt}, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("read the salt of the passphrase: %w", err)
	}
	return scrypt.Key([]byte(pass), salt, scryptN, scryptR, scryptP, keySize)
}

// get returns a secret, or an error that wraps store.ErrNotFound.
func (v *vault) get(ctx context.Context, name string) ([]byte, error) {
	sealed, err := v.store.Setting(ctx, name)
	if err != nil {
		return nil, err
	}
	plain, err := unseal(v.aead, sealed, name)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	return plain, nil
}

// put writes secrets, all or none.
func (v *vault) put(ctx context.Context, secrets map[string][]byte) error {
	sealed := map[string][]byte{}
	for name, plain := range secrets {
		sealed[name] = seal(v.aead, plain, name)
	}
	return v.store.PutSettings(ctx, sealed, nil)
}

// key returns a random secret that is made when it is first asked for.
func (v *vault) key(ctx context.Context, name string) ([]byte, error) {
	k, err := v.get(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		k = randomBytes(keySize)
		err = v.put(ctx, map[string][]byte{name: k})
	}
	return k, err
}

// seal encrypts with a random nonce in front; purpose is authenticated with it.
func seal(aead cipher.AEAD, plain []byte, purpose string) []byte {
	nonce := randomBytes(aead.NonceSize())
	return aead.Seal(nonce, nonce, plain, []byte(purpose))
}

func unseal(aead cipher.AEAD, sealed []byte, purpose string) ([]byte, error) {
	n := aead.NonceSize()
	if len(sealed) < n {
		return nil, errors.New("sealed data is too short")
	}
	return aead.Open(nil, sealed[:n], sealed[n:], []byte(purpose))
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the program instead
	return b
}
