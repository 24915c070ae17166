package nbde

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/release"
	"touchstone.dev/touchstone/internal/tpm"
)

// module is an HSM in memory: the standard library's ECDH, which gives x alone as PKCS#11 does.
type module struct {
	mu   sync.Mutex
	keys map[string]*ecdh.PrivateKey
	made int
	away bool
}

func newModule() *module { return &module{keys: map[string]*ecdh.PrivateKey{}} }

// NewExchange makes a key.
func (m *module) NewExchange(_ context.Context, curve string) (string, []byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, err := all[Curve(curve)].GenerateKey(rand.Reader)
	if err != nil {
		return "", nil, err
	}
	m.made++
	id := fmt.Sprintf("pkcs11:%d", m.made)
	m.keys[id] = k
	return id, k.PublicKey().Bytes(), nil
}

// Exchange multiplies.
func (m *module) Exchange(id string, point []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.keys[id]
	if k == nil || m.away {
		return nil, errors.New("the token is away")
	}
	p, err := k.Curve().NewPublicKey(point)
	if err != nil {
		return nil, err
	}
	return k.ECDH(p)
}

// Destroy destroys.
func (m *module) Destroy(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.keys, id)
	return nil
}

// negative is the point on the other side of the x axis.
func negative(point []byte, c Curve) []byte {
	half := 1 + len(point)/2
	y := new(big.Int).Sub(groups[c].curve().Params().P, new(big.Int).SetBytes(point[half:]))
	return append(append([]byte{}, point[:half]...), y.FillBytes(make([]byte, len(point)-half))...)
}

// TestHSMGivesTheSame: two x coordinates make the point that the private key in memory gives.
func TestHSMGivesTheSame(t *testing.T) {
	m := newModule()
	for c := range all {
		for range 20 {
			k, err := newHSMKey(t.Context(), m, c)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := newKey(Exchange, c, m.keys[k.id].Bytes(), k.public)
			if err != nil {
				t.Fatal(err)
			}
			point := on(t, c).public
			for name, p := range map[string][]byte{"a point": point, "its negative": negative(point, c), "the key itself": k.public, "its negative key": negative(k.public, c)} {
				want, err := plain.Recover(p)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := k.Recover(p); err != nil || string(got) != string(want) {
					t.Fatalf("%s: Recover(%s): got %x, %v; want %x", c, name, got, err, want)
				}
			}
			if plain.Thumbprint != k.Thumbprint {
				t.Errorf("%s: thumbprint %s, want %s", c, k.Thumbprint, plain.Thumbprint)
			}
		}
	}
}

// TestHSMRefuses: points where the two products do not tell, and an HSM that has another key.
func TestHSMRefuses(t *testing.T) {
	m := newModule()
	for c := range all {
		k, err := newHSMKey(t.Context(), m, c)
		if err != nil {
			t.Fatal(err)
		}
		one := make([]byte, groups[c].size())
		one[len(one)-1] = 1
		g, err := groups[c].public(one)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Recover(g); err != nil || string(got) != string(k.public) {
			t.Errorf("%s: Recover(G): got %x, %v; want the public key", c, got, err)
		}
		if got, err := k.Recover(negative(g, c)); err == nil {
			t.Errorf("%s: Recover(-G): got %x, want an error", c, got)
		}
		for name, p := range badPoints(t, c) {
			if got, err := k.Recover(p); err == nil {
				t.Errorf("%s: Recover(%s): got %x, want an error", c, name, got)
			}
		}
		other, err := newHSMKey(t.Context(), m, c)
		if err != nil {
			t.Fatal(err)
		}
		m.keys[k.id] = m.keys[other.id]
		if got, err := k.Recover(on(t, c).public); !errors.Is(err, errHSM) {
			t.Errorf("%s: Recover() by another key in the HSM: got %x, %v; want %v", c, got, err, errHSM)
		}
	}
}

// TestHSMKeysAreKept: a node's key is made in the HSM, used after a restart, rotated, and destroyed with the node; nothing of it is in the store but its
// name, and without the HSM there is a word on it.
func TestHSMKeysAreKept(t *testing.T) {
	ctx, m := context.Background(), newModule()
	w := &world{t: t, path: t.TempDir() + "/aias.db", now: noon, hsm: m}
	w.start()
	t.Cleanup(func() { _ = w.db.Close() })
	if k := w.newest(""); k.hsm == nil {
		t.Error("Prepare() made a key that is not in the HSM")
	}
	w.bind("a", Policy{Mode: ModeNode})
	old := w.newest("a")
	w.restart()
	if err := w.Rotate(ctx, "a", act("rotate")); err != nil {
		t.Fatal(err)
	}
	ring, err := w.Ring(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*Held{ring.Find(old.Thumbprint), w.newest("a")} {
		if k == nil || k.hsm == nil {
			t.Fatalf("a key of the HSM: got %+v", k)
		}
		if _, err := k.Recover(on(t, k.Curve).public); err != nil {
			t.Error(err)
		}
	}
	w.hsm = nil
	w.restart()
	w.withoutHSM("a", old.Thumbprint)
	w.hsm = m
	w.restart()
	before := len(m.keys)
	if err := w.Forget(ctx, "a", act("forget")); err != nil {
		t.Fatal(err)
	}
	if after := len(m.keys); after != before-2 {
		t.Errorf("Forget(): %d keys in the HSM, %d before; want both of the node gone", after, before)
	}
}

// TestHSMIsAway: while the HSM does not answer, clevis may ask as often as it likes, and the boot does not run out of recoveries.
func TestHSMIsAway(t *testing.T) {
	ctx, m := context.Background(), newModule()
	w := &world{t: t, path: t.TempDir() + "/aias.db", now: noon, hsm: m, nodes: map[string]release.Node{}}
	w.start()
	t.Cleanup(func() { _ = w.db.Close() })
	w.bind("a", Policy{Mode: ModeAttested, Uses: 2})
	w.now = noon.Add(defaultBinding + time.Minute)
	w.nodes["a"] = good(func(n *release.Node) { n.Issued, n.Expires = w.now, w.now.Add(time.Minute) })
	w.Attested(ctx, Attestation{Node: "a", Source: here, ResetCount: 1, Latch: tpm.LatchOpen})
	k := w.newest("a")
	m.away = true
	for i := range 5 {
		if err := w.ask("a", k, here); err != nil {
			t.Fatalf("recovery %d: %v", i, err)
		}
		_, err := k.Recover(on(t, k.Curve).public)
		if err == nil {
			t.Fatal("Recover() without the HSM: got no error")
		}
		w.Failed(ctx, Ask{Node: "a", Key: k, Source: here}, err)
		if e := w.last(); e.Released || !strings.Contains(e.Reason, "the token is away") {
			t.Fatalf("the ledger has %+v, want that it was not given", e)
		}
	}
	m.away = false
	for i := range 2 {
		if err := w.ask("a", k, here); err != nil {
			t.Errorf("recovery %d with the HSM back: %v", i, err)
		}
	}
	if err := w.ask("a", k, here); !errors.Is(err, ErrDenied) {
		t.Errorf("one more than the boot has: got %v, want %v", err, ErrDenied)
	}
}
