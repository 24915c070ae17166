package authority

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"touchstone.dev/touchstone/internal/keystore"
	"touchstone.dev/touchstone/internal/store"
)

// keySize is the size of a random secret.
const keySize = 32

// keysSetting holds the records of the key-encryption keys, beside what is sealed under them.
const keysSetting = "keystore.keys"

// vault keeps secrets in the settings of the store, each sealed by the ring of key-encryption keys and bound to its name.
type vault struct {
	store store.Store
	ring  *keystore.Ring
}

// LoadKeys is for keystore.Open.
func (v *vault) LoadKeys(ctx context.Context) ([]byte, error) {
	b, err := v.store.Setting(ctx, keysSetting)
	return b, ignoreMissing(err)
}

// SaveKeys is for keystore.Open.
func (v *vault) SaveKeys(ctx context.Context, records []byte) error {
	return v.store.PutSettings(ctx, map[string][]byte{keysSetting: records}, nil)
}

// openVault opens the key-encryption keys that the configuration names; a new store gets its first.
func openVault(ctx context.Context, c *Config, st store.Store) (*vault, error) {
	v := &vault{store: st}
	earlier, err := openEarlier(ctx, c, st)
	if err != nil {
		return nil, err
	}
	if v.ring, err = keystore.Open(ctx, c.Keys, v); err != nil {
		return nil, err
	}
	if earlier != nil {
		err = v.takeOver(ctx, earlier)
	}
	return v, err
}

// get returns a secret, or an error that wraps store.ErrNotFound.
func (v *vault) get(ctx context.Context, name string) ([]byte, error) {
	sealed, err := v.store.Setting(ctx, name)
	if err != nil {
		return nil, err
	}
	plain, err := v.ring.Unwrap(ctx, sealed, aadOf(name))
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	return plain, nil
}

// aadOf binds a secret to its setting, as store.SealedAfter tells it.
func aadOf(name string) []byte { return []byte("setting/" + name) }

// put writes secrets, and other settings beside them, all or none.
func (v *vault) put(ctx context.Context, secrets, plain map[string][]byte) error {
	values := map[string][]byte{}
	for name, b := range plain {
		values[name] = b
	}
	for name, b := range secrets {
		sealed, err := v.ring.Wrap(ctx, b, aadOf(name))
		if err != nil {
			return fmt.Errorf("secret %s: %w", name, err)
		}
		values[name] = sealed
	}
	return v.store.PutSettings(ctx, values, nil)
}

// key returns a random secret that is made when it is first asked for.
func (v *vault) key(ctx context.Context, name string) ([]byte, error) {
	k, err := v.get(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		k = randomBytes(keySize)
		err = v.put(ctx, map[string][]byte{name: k}, nil)
	}
	return k, err
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
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

func ignoreMissing(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
