package authority

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/scrypt"

	"touchstone.dev/touchstone/internal/keystore"
	"touchstone.dev/touchstone/internal/store"
)

// Data folders of the first version sealed their secrets with AES-256-GCM directly under the key of the key file, or under one that scrypt
// (RFC 7914) derived from the passphrase. They are taken over at the first start of a later version.
const (
	earlierCheck = "kek.check" // there as long as the secrets are of that form
	earlierSalt  = "kek.salt"

	scryptN, scryptR, scryptP = 1 << 15, 8, 1
)

// earlierSecrets are all that those versions kept.
var earlierSecrets = []string{"ca.root.key", "ca.issuing.key", "key.challenge", "key.session", "key.result", "key.tag"}

// openEarlier returns the key of a data folder of the first version, nil when it is none. It tries each key file and passphrase of the
// configuration.
func openEarlier(ctx context.Context, c *Config, st store.Store) (cipher.AEAD, error) {
	check, err := st.Setting(ctx, earlierCheck)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var problems []error
	for _, s := range append([]keystore.Source{c.Keys.Source}, c.Keys.Older...) {
		key, err := earlierKey(ctx, s, st)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if key == nil {
			continue
		}
		aead, err := newAEAD(key)
		if err != nil {
			return nil, err
		}
		if _, err := unseal(aead, check, earlierCheck); err == nil {
			return aead, nil
		}
	}
	return nil, errors.Join(append(problems,
		errors.New("no key file or passphrase under keys is the one that this data folder was made with: restore the right one"))...)
}

func earlierKey(ctx context.Context, s keystore.Source, st store.Store) ([]byte, error) {
	switch {
	case s.File != "":
		key, err := os.ReadFile(s.File)
		if err == nil && len(key) != keySize {
			err = fmt.Errorf("key file %s has %d bytes: want %d random bytes", s.File, len(key), keySize)
		}
		return key, err
	case s.PassphraseFile != "":
		text, err := os.ReadFile(s.PassphraseFile)
		if err != nil {
			return nil, fmt.Errorf("read the passphrase: %w", err)
		}
		salt, err := st.Setting(ctx, earlierSalt)
		if err != nil {
			return nil, ignoreMissing(err)
		}
		return scrypt.Key([]byte(strings.TrimRight(string(text), "\r\n")), salt, scryptN, scryptR, scryptP, keySize)
	}
	return nil, nil
}

// takeOver seals the secrets of the first version anew, in one step.
func (v *vault) takeOver(ctx context.Context, earlier cipher.AEAD) error {
	secrets := map[string][]byte{}
	for _, name := range earlierSecrets {
		sealed, err := v.store.Setting(ctx, name)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if secrets[name], err = unseal(earlier, sealed, name); err != nil {
			return fmt.Errorf("secret %s: %w", name, err)
		}
	}
	return v.put(ctx, secrets, map[string][]byte{earlierCheck: nil, earlierSalt: nil})
}
