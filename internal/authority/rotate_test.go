package authority

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"touchstone.dev/touchstone/internal/keystore"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

// withImageKeys gives AIAS image keys, and returns what is in them.
func withImageKeys(t *testing.T, w *world, n int) map[string][]byte {
	t.Helper()
	keys := map[string][]byte{}
	for i := range n {
		id := fmt.Sprintf("%032x", i)
		keys[id] = randomBytes(keySize)
		wrapped, err := w.secrets.Wrap(t.Context(), keys[id], sealedFor(id))
		if err != nil {
			t.Fatal(err)
		}
		k := store.ImageKey{ID: id, Wrapped: wrapped, Conditions: []byte("{}"), Created: w.now(), By: "ann"}
		if err := w.store.AddImageKey(t.Context(), k, store.Act{At: w.now(), Operator: "ann", Act: "image-key.create", Object: id}); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

// checkImageKeys fails unless each is there and opens.
func checkImageKeys(t *testing.T, w *world, keys map[string][]byte) {
	t.Helper()
	for id, want := range keys {
		k, err := w.store.ImageKey(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := w.secrets.Unwrap(t.Context(), k.Wrapped, sealedFor(id)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("image key %s: got %x, %v; want %x", id, got, err, want)
		}
	}
}

// TestRotateWhileServing: nothing stops, all secrets move, and the older key goes only when nothing can be under it any more.
func TestRotateWhileServing(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	keys := withImageKeys(t, w, 2*resealBatch+7)
	jwks, before := w.jwks, w.secrets.ID()
	late, err := w.secrets.Wrap(t.Context(), []byte("late"), sealedFor("late")) // sealed before, stored after
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.admin.RotateKeys(t.Context())
	if err != nil || r.To == before || len(r.From) != 1 || r.From[0] != before || r.Resealed < len(keys)+len(earlierSecrets) || r.Resumed {
		t.Fatalf("RotateKeys(): got %+v, %v; want all secrets moved from %s", r, err, before)
	}
	if err := w.store.AddImageKey(t.Context(), store.ImageKey{ID: "late", Wrapped: late, Conditions: []byte("{}")}, store.Act{}); err != nil {
		t.Fatal(err)
	}
	l, err := w.admin.Keys(t.Context())
	if err != nil || len(l.Keys) != 2 || l.Keys[0].Secrets != 1 || !l.Keys[1].Current || l.Moving {
		t.Errorf("Keys() after a rotation: got %+v, %v; want one secret left under the older key", l, err)
	}
	m.attest()
	w.settleKeys(t.Context(), 0)
	if l, err = w.admin.Keys(t.Context()); err != nil || len(l.Keys) != 1 || l.Keys[0].ID != r.To {
		t.Errorf("Keys() when it has settled: got %+v, %v; want %s only", l, err, r.To)
	}
	keys["late"] = []byte("late")
	for range 2 {
		checkSealed(t, w)
		checkImageKeys(t, w, keys)
		w.restart()
		m.connect()
		m.attest()
	}
	if !bytes.Equal(w.jwks, jwks) {
		t.Error("after a rotation: another key of results")
	}
	acts, err := w.admin.Acts(t.Context(), 2)
	if err != nil || acts[1].Act != "keys.rotate" || acts[1].Object != r.To {
		t.Errorf("acts: got %+v, %v; want the rotation", acts, err)
	}
}

// fullStore takes only some batches of resealed secrets.
type fullStore struct {
	store.Store
	left int
}

func (f *fullStore) Reseal(ctx context.Context, old []store.Sealed, data [][]byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errFull
	}
	return f.Store.Reseal(ctx, old, data)
}

// TestRotationStops: a rotation that stops half-way loses nothing, and is brought to its end by the next.
func TestRotationStops(t *testing.T) {
	w := newWorld(t)
	keys := withImageKeys(t, w, 2*resealBatch)
	w.vault.store = &fullStore{w.store, 1}
	_, err := w.admin.RotateKeys(t.Context())
	wantProblem(t, "rotation on a full disk", err, http.StatusConflict, "rotation")
	checkImageKeys(t, w, keys)
	w.restart()
	checkImageKeys(t, w, keys)
	if l, err := w.admin.Keys(t.Context()); err != nil || len(l.Keys) != 2 || l.Keys[0].Secrets == 0 || l.Keys[1].Secrets == 0 {
		t.Fatalf("Keys() half-way: got %+v, %v; want secrets under both", l, err)
	}
	r, err := w.admin.RotateKeys(t.Context())
	if err != nil || !r.Resumed {
		t.Errorf("RotateKeys() again: got %+v, %v; want the first to be ended", r, err)
	}
	w.settleKeys(t.Context(), 0)
	w.restart()
	checkSealed(t, w)
	checkImageKeys(t, w, keys)
}

// TestMoveToPassphrase: the way from the key file of the first start to a passphrase, as an administrator goes it.
func TestMoveToPassphrase(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	file := w.Authority.cfg.Keys.Source
	pass := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(pass, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.cfg.Keys = keystore.Config{Source: keystore.Source{PassphraseFile: pass}, Older: []keystore.Source{file}}
	w.restart()
	if l, err := w.admin.Keys(t.Context()); err != nil || !l.Moving {
		t.Errorf("Keys() before the move: got %+v, %v; want it to tell", l, err)
	}
	if _, err := w.admin.RotateKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.settleKeys(t.Context(), 0)
	w.cfg.Keys.Older = nil
	if err := os.Remove(file.File); err != nil {
		t.Fatal(err)
	}
	w.restart()
	m.connect()
	m.attest()
	checkSealed(t, w)
	w.cfg.Keys = keystore.Config{Source: file}
	w.stop()
	st, err := store.Open(t.Context(), filepath.Join(w.cfg.Data, "aias.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close() //nolint:errcheck // only read
	if _, err := New(t.Context(), w.cfg, Dependencies{Store: st, Load: w.load}); !errors.Is(err, keystore.ErrUnknownKey) {
		t.Errorf("New() with the place of before: got %v, want %v", err, keystore.ErrUnknownKey)
	}
}

func TestRotateIsForOperators(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	for _, path := range []string{protocol.PathKeys, protocol.PathLedgerKey} {
		wantProblem(t, "node asks "+path, w.call(m.http, http.MethodGet, path, nil, nil), http.StatusForbidden, "role")
	}
	wantProblem(t, "node rotates", w.call(m.http, http.MethodPost, protocol.PathKeysRotate, nil, nil), http.StatusForbidden, "role")
}
