package authority

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/scrypt"

	"touchstone.dev/touchstone/internal/keystore"
	"touchstone.dev/touchstone/internal/store"
)

// asEarlier turns the data folder of a stopped AIAS into one of the first version: its secrets sealed directly under key.
func asEarlier(t *testing.T, w *world, key []byte, settings map[string][]byte) {
	t.Helper()
	ctx := context.Background()
	st, err := store.Open(ctx, filepath.Join(w.cfg.Data, "aias.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close() //nolint:errcheck // written below
	v, err := openVault(ctx, &w.Authority.cfg, st)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := newAEAD(key)
	if err != nil {
		t.Fatal(err)
	}
	settings[earlierCheck] = seal(aead, []byte("aias"), earlierCheck)
	for _, later := range []string{keysSetting, ledgerSecret, ledgerCursor} {
		settings[later] = nil
	}
	if err := os.RemoveAll(filepath.Join(w.cfg.Data, LedgerDir)); err != nil {
		t.Fatal(err)
	}
	for _, name := range earlierSecrets {
		plain, err := v.get(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		settings[name] = seal(aead, plain, name)
	}
	if err := st.PutSettings(ctx, settings, nil); err != nil {
		t.Fatal(err)
	}
}

// TestTakeOver: a data folder of the first version goes on: same CA, same signing key, enrolled nodes; and its secrets are of the new form.
func TestTakeOver(t *testing.T) {
	for name, how := range map[string]func(t *testing.T, w *world){
		"key file": func(t *testing.T, w *world) {
			key, err := os.ReadFile(filepath.Join(w.cfg.Data, "aias.key"))
			if err != nil {
				t.Fatal(err)
			}
			asEarlier(t, w, key, map[string][]byte{})
		},
		"passphrase": func(t *testing.T, w *world) {
			salt := randomBytes(16)
			key, err := scrypt.Key([]byte("correct horse battery"), salt, scryptN, scryptR, scryptP, keySize)
			if err != nil {
				t.Fatal(err)
			}
			asEarlier(t, w, key, map[string][]byte{earlierSalt: salt})
			file := filepath.Join(t.TempDir(), "passphrase")
			if err := os.WriteFile(file, []byte("correct horse battery\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			w.cfg.Keys.Source = keystore.Source{PassphraseFile: file}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m := w.enrolled("worker-1")
			m.attest()
			jwks, root := w.jwks, w.ca.root.Raw
			w.stop()
			how(t, w)
			w.start()
			m.connect()
			m.attest()
			if !bytes.Equal(w.jwks, jwks) || !bytes.Equal(w.ca.root.Raw, root) {
				t.Error("after the first start of this version: another CA or another key of results")
			}
			checkSealed(t, w)
			w.restart()
			m.connect()
			m.attest()
		})
	}
}

// checkSealed fails unless all secrets are sealed under the current key.
func checkSealed(t *testing.T, w *world) {
	t.Helper()
	if _, err := w.store.Setting(t.Context(), earlierCheck); !notFound(err) {
		t.Errorf("setting %s: got %v, want it gone", earlierCheck, err)
	}
	sealed, err := w.store.SealedAfter(t.Context(), "", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, s := range sealed {
		found[s.Key] = true
		if id, err := keystore.SealedBy(s.Data); err != nil || id != w.secrets.ID() {
			t.Errorf("%s: sealed by %q, %v; want %q", s.Key, id, err, w.secrets.ID())
		}
		if _, err := w.secrets.Unwrap(t.Context(), s.Data, []byte(s.AAD)); err != nil {
			t.Errorf("%s: %v", s.Key, err)
		}
	}
	for _, name := range earlierSecrets {
		if !found[name] {
			t.Errorf("SealedAfter() leaves out %s", name)
		}
	}
}

// TestTakeOverRefuses: with the wrong key nothing is changed.
func TestTakeOverRefuses(t *testing.T) {
	w := newWorld(t)
	w.stop()
	path := filepath.Join(w.cfg.Data, "aias.key")
	right, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	asEarlier(t, w, right, map[string][]byte{})
	for name, key := range map[string][]byte{"another key": randomBytes(keySize), "short": []byte("x"), "none": nil} {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if key != nil {
			if err := os.WriteFile(path, key, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		st, err := store.Open(t.Context(), filepath.Join(w.cfg.Data, "aias.db"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(t.Context(), w.cfg, Dependencies{Store: st, Load: w.load}); err == nil || !strings.Contains(err.Error(), "restore the right one") {
			t.Errorf("%s: New(): got %v, want a refusal", name, err)
		}
		_ = st.Close()
	}
	if err := os.WriteFile(path, right, 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	checkSealed(t, w)
}
