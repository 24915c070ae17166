package agent

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/cri"
	"touchstone.dev/touchstone/internal/imagekey"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
)

// imageWorld is a running agent that serves image keys, and an AIAS that gives them.
type imageWorld struct {
	*world
	key      []byte
	id       string
	releases atomic.Int32
	refusal  atomic.Pointer[Refusal]
	lost     atomic.Pointer[[]protocol.LostKey]
	store    *fakeStore
	stop     func()
}

type fakeStore struct {
	mu     sync.Mutex
	layers []string
	fail   error
	called chan struct{}
}

func (s *fakeStore) RemoveWith(_ context.Context, layers map[string]bool) (cri.Removed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range layers {
		s.layers = append(s.layers, l)
	}
	select {
	case s.called <- struct{}{}:
	default:
	}
	return cri.Removed{Images: []string{"app"}}, s.fail
}

func newImageWorld(t testing.TB) *imageWorld {
	t.Helper()
	w := &imageWorld{world: newWorld(t), key: bytes.Repeat([]byte{5}, 32), id: imagekey.NewID(), store: &fakeStore{called: make(chan struct{}, 1)}}
	w.link.challenge.Quote = []protocol.Selection{{Bank: "sha256", PCRs: imagekey.BootPCRs().Indices()}}
	w.link.release = func(r *protocol.ReleaseRequest) (*protocol.Release, error) {
		w.releases.Add(1)
		if p := w.refusal.Load(); p != nil {
			return nil, p
		}
		p, err := tpm.ParsePublic(r.Public)
		if err != nil {
			return nil, err
		}
		public, err := ecdsaToECDH(p)
		if err != nil {
			return nil, err
		}
		sealed, err := imagekey.SealTo(public, "worker-1", r.ID, w.key)
		return &protocol.Release{ID: r.ID, Sealed: sealed}, err
	}
	w.link.lost = func([]string) []protocol.LostKey {
		if l := w.lost.Load(); l != nil {
			return *l
		}
		return nil
	}
	held, err := openHeldKeys(w.cfg.StateDir, w.store, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.images = newImageKeys(slog.New(slog.DiscardHandler), w.Ask, w.now, held)
	w.Observe = nil
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- func() error { // Run without the socket, which package keyprovider tests
			for ctx.Err() == nil {
				if err := w.session(ctx); ctx.Err() == nil {
					w.rest(ctx, w.pause(err))
				}
			}
			return nil
		}()
	}()
	w.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(w.stop)
	return w
}

func ecdsaToECDH(p *tpm.Public) (*ecdh.PublicKey, error) {
	k, ok := p.Key.(interface {
		ECDH() (*ecdh.PublicKey, error)
	})
	if !ok {
		return nil, errors.New("no key on a curve")
	}
	return k.ECDH()
}

func (w *imageWorld) annotation(t testing.TB, plain string) []byte {
	t.Helper()
	b, err := imagekey.Seal(w.key, imagekey.Annotation{Key: w.id, Plain: plain}, []byte("options"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func layerDigest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestImageKeyBurst: the layers of an image that are pulled together cost one attestation and one release; after the burst there is a fresh one.
func TestImageKeyBurst(t *testing.T) {
	w := newImageWorld(t)
	var clock atomic.Int64
	w.images.now = func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
	open := func() {
		t.Helper()
		var wg sync.WaitGroup
		for i := range 20 {
			a := w.annotation(t, layerDigest(string(rune('a'+i%6))))
			wg.Go(func() {
				if got, err := w.images.Unwrap(within(t, 10*time.Second), a); err != nil || string(got) != "options" {
					t.Errorf("Unwrap(): got %q, %v", got, err)
				}
			})
		}
		wg.Wait()
	}
	open()
	if docs, releases := w.link.count(), w.releases.Load(); docs > 2 || releases != 1 {
		t.Errorf("20 layers: %d attestations, %d releases, want one of each (and the agent's first)", docs, releases)
	}
	before := w.link.count()
	clock.Store(int64(2 * burst))
	a := w.annotation(t, layerDigest("a"))
	done := make(chan error, 1)
	go func() { _, err := w.images.Unwrap(within(t, 3*time.Second), a); done <- err }()
	// The agent's clock is the real one here: its next attestation is older than the shifted clock wants, and the question ends in time.
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Unwrap() without a fresh attestation: got %v, want %v", err, context.DeadlineExceeded)
	}
	if w.link.count() == before {
		t.Error("after the burst: no attestation was made")
	}
	layers := w.images.held.layers[w.id]
	if len(layers) != 6 {
		t.Errorf("held layers: got %v, want 6", layers)
	}
}

// TestImageKeyRefused: the words of AIAS come through, nothing is kept, and a key that was open is forgotten with the trust.
func TestImageKeyRefused(t *testing.T) {
	w := newImageWorld(t)
	a := w.annotation(t, "")
	refuse := func(kind, title string) {
		w.refusal.Store(&Refusal{Problem: protocol.Problem{Type: "urn:touchstone:problem:" + kind, Title: title, Status: 403}})
	}
	refuse("image-key-refused", "image key is not for worker-1 now: level 4 is fail")
	_, err := w.images.Unwrap(within(t, 10*time.Second), a)
	var refused refusedKey
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "level 4 is fail") {
		t.Errorf("Unwrap(): got %v, want AIAS's words", err)
	}
	made := w.tpm.imageKeys
	refuse("unproven-key", "the key is bound to another state")
	before := w.releases.Load()
	if _, err := w.images.Unwrap(within(t, 10*time.Second), a); !errors.As(err, &refused) {
		t.Errorf("Unwrap(): got %v, want a refusal", err)
	}
	if again := w.releases.Load() - before; again != 2 || w.tpm.imageKeys != made+1 {
		t.Errorf("a key that is not proven: %d requests, %d new keys of the TPM, want 2 and 1", again, w.tpm.imageKeys-made)
	}
	w.refusal.Store(nil)
	if _, err := w.images.Unwrap(within(t, 10*time.Second), a); err != nil {
		t.Errorf("Unwrap() when it may: %v", err)
	}
	for name, bad := range map[string][]byte{"nothing": nil, "text": []byte("x"), "other key": w.sealedByAnother(t)} {
		if _, err := w.images.Unwrap(within(t, 10*time.Second), bad); !errors.As(err, &refused) {
			t.Errorf("Unwrap(%s): got %v, want a refusal", name, err)
		}
	}
	w.images.attested(t.Context(), Report{Time: time.Now(), Attestation: &protocol.Attestation{}})
	w.images.mu.Lock()
	if len(w.images.keys) != 0 {
		t.Error("keys are in memory after trust was lost")
	}
	w.images.mu.Unlock()
}

func (w *imageWorld) sealedByAnother(t testing.TB) []byte {
	t.Helper()
	b, err := imagekey.Seal(make([]byte, 32), imagekey.Annotation{Key: w.id}, []byte("options"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestImageKeyStateChanged: PCRs that moved since the TPM's key was made cost one more key, not the image.
func TestImageKeyStateChanged(t *testing.T) {
	w := newImageWorld(t)
	if _, err := w.images.Unwrap(within(t, 10*time.Second), w.annotation(t, "")); err != nil {
		t.Fatal(err)
	}
	w.tpm.mu.Lock()
	w.tpm.bank.Values[9] = bytes.Repeat([]byte{9}, 32)
	w.tpm.mu.Unlock()
	w.images.mu.Lock()
	clear(w.images.keys)
	w.images.mu.Unlock()
	made := w.tpm.imageKeys
	if _, err := w.images.Unwrap(within(t, 10*time.Second), w.annotation(t, "")); err != nil || w.tpm.imageKeys != made+1 {
		t.Errorf("Unwrap() after PCR 9 moved: %v, %d new keys, want one", err, w.tpm.imageKeys-made)
	}
}

// TestImageKeyAway: without AIAS, and without a session at all, the question ends in time and says why.
func TestImageKeyAway(t *testing.T) {
	w := newImageWorld(t)
	w.link.mu.Lock()
	w.link.next = func(int) (*protocol.Attestation, error) { return nil, errors.New("reach AIAS: no route") }
	w.link.mu.Unlock()
	w.images.attested(t.Context(), Report{Err: errors.New("gone")})
	if _, err := w.images.Unwrap(within(t, 10*time.Second), w.annotation(t, "")); err == nil || !strings.Contains(err.Error(), "no route") {
		t.Errorf("Unwrap() without AIAS: got %v, want why", err)
	}
	w.stop()
	if _, err := w.images.Unwrap(within(t, 100*time.Millisecond), w.annotation(t, "")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Unwrap() without a session: got %v", err)
	}
}

// TestHeldKeys: layers are remembered over restarts, and their images removed when AIAS says so; a failure is tried again.
func TestHeldKeys(t *testing.T) {
	w := newImageWorld(t)
	if _, err := w.images.Unwrap(within(t, 10*time.Second), w.annotation(t, layerDigest("a"))); err != nil {
		t.Fatal(err)
	}
	again, err := openHeldKeys(w.cfg.StateDir, w.store, w.log)
	if err != nil || !slices.Equal(again.layers[w.id], []string{layerDigest("a")}) {
		t.Fatalf("openHeldKeys(): got %v, %v", again, err)
	}
	w.store.fail = errors.New("the runtime is away")
	removed := func() {
		t.Helper()
		w.Ask()
		select {
		case <-w.store.called:
		case <-time.After(10 * time.Second):
			t.Fatal("no images were removed")
		}
	}
	w.lost.Store(&[]protocol.LostKey{{ID: w.id, Reason: "revoked"}, {ID: "unknown"}})
	for range 2 {
		removed()
		w.store.mu.Lock()
		w.store.fail = nil
		w.store.mu.Unlock()
	}
	w.images.mu.Lock()
	if _, open := w.images.keys[w.id]; open {
		t.Error("a key is in memory that AIAS would not give any more")
	}
	w.images.mu.Unlock()
	removed() // an image that was pulled once more, from layers that the runtime still had
	w.images.held.mu.Lock()
	w.images.held.pause = 10 * time.Millisecond
	w.images.held.mu.Unlock()
	removed()
	select { // without an attestation: what ended meanwhile
	case <-w.store.called:
	case <-time.After(5 * time.Second):
		t.Fatal("nobody looks again for what ended")
	}
	w.images.held.mu.Lock()
	w.images.held.watch = 0
	w.images.held.mu.Unlock()
	removed()
	deadline := time.Now().Add(5 * time.Second)
	for {
		after, err := openHeldKeys(w.cfg.StateDir, nil, w.log)
		if err == nil && len(after.layers) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after the removal: %v, %v, want nothing held", after, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := os.WriteFile(filepath.Join(w.cfg.StateDir, heldFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openHeldKeys(w.cfg.StateDir, nil, w.log); err == nil || !strings.Contains(err.Error(), heldFile) {
		t.Errorf("openHeldKeys() of a damaged file: got %v", err)
	}
}

// BenchmarkImageKey is what a first layer costs beside the TPM and AIAS, which are imitated here: attestation, request, opening.
func BenchmarkImageKey(b *testing.B) {
	w := newImageWorld(b)
	a := w.annotation(b, "")
	for b.Loop() {
		w.images.mu.Lock()
		clear(w.images.keys)
		w.images.last = Report{}
		w.images.mu.Unlock()
		if _, err := w.images.Unwrap(context.Background(), a); err != nil {
			b.Fatal(err)
		}
	}
}
