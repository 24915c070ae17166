package nbde

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/keystore"
	"touchstone.dev/touchstone/internal/release"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/tpm"
)

// world is a Service over a database in a file, with a clock and standings that the test sets.
type world struct {
	t testing.TB
	*Service
	path string
	db   *store.SQLite

	mu     sync.Mutex
	now    time.Time
	nodes  map[string]release.Node
	events []Event
	fail   error                                    // what Note returns
	book   func(ctx context.Context, e Event) error // instead of events
	curve  Curve
	hsm    HSM
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, path: filepath.Join(t.TempDir(), "aias.db"), now: noon, nodes: map[string]release.Node{}}
	w.start()
	t.Cleanup(func() { _ = w.db.Close() })
	return w
}

// mustKEK is the key-encryption key of the tests.
func mustKEK(t testing.TB) keystore.KEK {
	t.Helper()
	k, err := keystore.NewKey("file", bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func kek(t testing.TB) *keystore.Ring {
	t.Helper()
	r, err := keystore.NewRing(mustKEK(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *world) options() Options {
	return Options{
		Store: w.db, Seal: kek(w.t), Open: true, Curve: w.curve, HSM: w.hsm, Limits: Limits{1e6, 1e6, 1e6, 1e6}, Log: slog.New(slog.DiscardHandler),
		Standing: func(_ context.Context, node string, _ bool) (release.Node, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.nodes[node], nil
		},
		Note: func(ctx context.Context, e Event) error {
			if w.book != nil {
				return w.book(ctx, e)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
			return w.fail
		},
		Now: func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.now
		},
	}
}

func (w *world) start() {
	w.t.Helper()
	var err error
	if w.db, err = store.Open(context.Background(), w.path, nil); err != nil {
		w.t.Fatal(err)
	}
	if w.Service, err = Open(context.Background(), w.options()); err == nil {
		err = w.Prepare(context.Background())
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) restart() {
	w.t.Helper()
	_ = w.db.Close()
	w.start()
}

func act(what string) store.Act { return store.Act{At: noon, Operator: "ann", Act: what} }

func (w *world) bind(node string, p Policy) {
	w.t.Helper()
	if err := w.Bind(context.Background(), node, p, act("bind")); err != nil {
		w.t.Fatal(err)
	}
}

// newest is the exchange key that is advertised to a node.
func (w *world) newest(node string) *Held {
	w.t.Helper()
	r, err := w.Ring(context.Background(), node)
	if err != nil || r == nil {
		w.t.Fatalf("Ring(%q): got %v, %v", node, r, err)
	}
	for _, k := range r.byName {
		if k.Use == Exchange && !k.Rotated {
			return k
		}
	}
	w.t.Fatalf("Ring(%q): nothing to bind to", node)
	return nil
}

func (w *world) ask(node string, k *Held, from netip.Addr) error {
	return w.Gate(context.Background(), Ask{Node: node, Key: k, Source: from})
}

// last is the newest event.
func (w *world) last() Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.events) == 0 {
		return Event{}
	}
	return w.events[len(w.events)-1]
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func TestServiceAttested(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.bind("w1", Policy{Mode: ModeAttested, Uses: 2})
	w.set(func() {
		w.now = noon.Add(time.Hour)
		w.nodes["w1"] = good(func(n *release.Node) { n.Expires = noon.Add(48 * time.Hour) })
	})
	k := w.newest("w1")
	want := func(what, reason string) {
		t.Helper()
		err := w.ask("w1", k, here)
		if (err == nil) != (reason == "") || err != nil && (!errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), reason)) {
			t.Errorf("%s: Gate(): got %v, want %q", what, err, reason)
		}
		if e := w.last(); e.Released != (err == nil) || e.Node != "w1" || e.Key != k.Thumbprint || e.Source != here.String() || !strings.Contains(e.Reason, reason) {
			t.Errorf("%s: the ledger has %+v", what, e)
		}
	}
	want("before an attestation", "has not attested")
	w.Attested(ctx, Attestation{Node: "w1", Source: there, ResetCount: 1, Latch: tpm.LatchOpen})
	want("attested from elsewhere", "attested from 192.0.2.8")
	w.Attested(ctx, Attestation{Node: "w1", Source: here, ResetCount: 1, Latch: tpm.LatchOpen})
	want("attested", "")
	w.restart() // what was used is not forgotten, and the attestation has to be shown again
	k = w.newest("w1")
	w.Attested(ctx, Attestation{Node: "w1", Source: here, ResetCount: 1, Latch: tpm.LatchOpen})
	want("after a restart of AIAS", "")
	want("used up", "2 recoveries of this boot are used up")
	w.restart()
	k = w.newest("w1")
	w.Attested(ctx, Attestation{Node: "w1", Source: here, ResetCount: 1, Latch: tpm.LatchOpen})
	want("used up, after a restart of AIAS", "used up")
	w.Attested(ctx, Attestation{Node: "w1", Source: here, ResetCount: 2, Latch: tpm.LatchOpen})
	want("booted", "")
	w.set(func() { w.nodes["w1"] = good(func(n *release.Node) { n.Levels[5] = "fail" }) })
	want("fell between lease and use", "level 5 is fail")
	if err := w.Approve(ctx, "w1", time.Minute, Approval{}, act("approve")); err != nil {
		t.Fatal(err)
	}
	want("approved", "")
	want("approved once", "level 5")
	if err := w.Revoke(ctx, "w1", "lost", act("revoke")); err != nil {
		t.Fatal(err)
	}
	want("revoked", "revoked by ann: lost")
	if err := w.Approve(ctx, "w1", time.Minute, Approval{}, act("approve")); !errors.Is(err, ErrRefused) {
		t.Errorf("Approve() of a revoked node: got %v, want ErrRefused", err)
	}
	w.restart()
	k = w.newest("w1")
	want("revoked, after a restart", "revoked by ann: lost")
	if err := w.Unrevoke(ctx, "w1", act("unrevoke")); err != nil {
		t.Fatal(err)
	}
	if err := w.Maintain(ctx, "w1", &Window{Until: noon.Add(2 * time.Hour)}, act("maintain")); err != nil {
		t.Fatal(err)
	}
	want("in a window", "")
	w.set(func() { w.now = noon.Add(3 * time.Hour) })
	want("after the window", "level 5")
}

// TestNodesAreApart: no node recovers with the key or under the prefix of another one.
func TestNodesAreApart(t *testing.T) {
	w := newWorld(t)
	w.bind("a", Policy{Mode: ModeAttested})
	w.bind("b", Policy{Mode: ModeAttested})
	w.set(func() { w.nodes["a"], w.nodes["b"] = good(), good() })
	w.Attested(context.Background(), Attestation{Node: "b", Source: there, ResetCount: 1, Latch: tpm.LatchOpen})
	if err := w.ask("a", w.newest("a"), there); !errors.Is(err, ErrDenied) {
		t.Errorf("b under the prefix of a: got %v, want ErrDenied", err)
	}
	ring, err := w.Ring(context.Background(), "b")
	if err != nil || ring.Find(w.newest("a").Thumbprint) != nil {
		t.Errorf("the ring of b has the key of a, %v", err)
	}
	if ring, err := w.Ring(context.Background(), ""); err != nil || ring.Find(w.newest("a").Thumbprint) != nil {
		t.Errorf("the shared ring has the key of a, %v", err)
	}
	if ring, err := w.Ring(context.Background(), "c"); err != nil || ring != nil {
		t.Errorf("Ring() of a node without disks: got %v, %v", ring, err)
	}
}

// TestNothingIsReleasedThatIsNotNoted: a ledger or database that takes nothing closes the gate.
func TestNothingIsReleasedThatIsNotNoted(t *testing.T) {
	w := newWorld(t)
	w.bind("a", Policy{Mode: ModeNode})
	shared, own := w.newest(""), w.newest("a")
	w.set(func() { w.fail = errors.New("disk full") })
	for node, k := range map[string]*Held{"": shared, "a": own} {
		if err := w.ask(node, k, here); !errors.Is(err, ErrAway) {
			t.Errorf("Gate(%q) without a ledger: got %v, want ErrAway", node, err)
		}
	}
	w.set(func() { w.fail = nil })
	_ = w.db.Close()
	for node, k := range map[string]*Held{"": shared, "a": own} {
		if err := w.ask(node, k, here); !errors.Is(err, ErrAway) {
			t.Errorf("Gate(%q) without a database: got %v, want ErrAway", node, err)
		}
	}
}

// TestRotationAndReport: who must bind again is known from who used which key.
func TestRotationAndReport(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.bind("a", Policy{Mode: ModeNode})
	old := w.newest("a")
	rebinds := func(when string, want bool) {
		t.Helper()
		o, err := w.Overview(ctx)
		if err != nil || len(o.Nodes) != 1 || o.Nodes[0].Rebind != want {
			t.Errorf("%s: Overview(): got %+v, %v; want rebind %v", when, o, err, want)
		}
	}
	if err := w.ask("a", old, here); err != nil {
		t.Fatal(err)
	}
	rebinds("bound", false)
	if err := w.Rotate(ctx, "a", act("rotate")); err != nil {
		t.Fatal(err)
	}
	rebinds("rotated", true)
	if held := w.newest("a"); held.Thumbprint == old.Thumbprint {
		t.Error("Rotate(): the old key is still advertised")
	}
	ring, _ := w.Ring(ctx, "a")
	if k := ring.Find(old.Thumbprint); k == nil || !k.Rotated {
		t.Errorf("Rotate(): the old key is %+v, want it rotated", k)
	}
	for _, k := range []*Held{ring.Find(old.Thumbprint), w.newest("a")} { // clevis luks regen
		if err := w.ask("a", k, here); err != nil {
			t.Fatal(err)
		}
	}
	rebinds("just bound again", true) // there may be another disk
	w.set(func() { w.now = noon.Add(2 * time.Hour) })
	if err := w.ask("a", w.newest("a"), here); err != nil {
		t.Fatal(err)
	}
	rebinds("booted with the new key only", false)
	signer := func() string {
		o, err := w.Overview(ctx)
		if err != nil || len(o.Signers) != 1 {
			t.Fatalf("Overview(): got %+v, %v", o, err)
		}
		return o.Signers[0]
	}
	before := signer()
	if err := w.RotateShared(ctx, Sign, act("rotate")); err != nil {
		t.Fatal(err)
	}
	ring, _ = w.Ring(ctx, "a")
	if b, err := ring.Advertisement(before); err != nil || signer() == before || !bytes.Contains(b, []byte(`"signatures"`)) {
		t.Errorf("Advertisement() by the old signing key: got %s, %v", b, err)
	}
	if err := w.Forget(ctx, "a", act("forget")); err != nil {
		t.Fatal(err)
	}
	w.restart()
	if ring, err := w.Ring(ctx, "a"); ring != nil || err != nil {
		t.Errorf("Ring() after Forget(): got %v, %v", ring, err)
	}
}

func TestImport(t *testing.T) {
	w := newWorld(t)
	dir := tangFolder(t)
	rotated := add(t, dir, key(t, Exchange), true)
	keys, err := ReadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{len(keys), 0} {
		if n, err := w.Import(context.Background(), keys, act("import")); err != nil || n != want {
			t.Errorf("Import() number %d: got %d, %v; want %d", i+1, n, err, want)
		}
	}
	w.restart()
	ring, err := w.Ring(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if got := ring.Find(k.Thumbprint); got == nil || got.Rotated != (k.Thumbprint == rotated.Thumbprint) {
			t.Errorf("Find(%s): got %+v", k.Thumbprint, got)
		}
	}
	b, err := w.db.DiskKeys(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range b {
		if bytes.Contains(row.Sealed, []byte("kty")) {
			t.Errorf("key %s is in the database in plain", row.Thumbprint)
		}
	}
}

// TestSealedKeysAreBound: a sealed key that was moved to another node, or damaged, opens nothing.
func TestSealedKeysAreBound(t *testing.T) {
	w := newWorld(t)
	w.bind("a", Policy{Mode: ModeNode})
	rows, err := w.db.DiskKeys(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if row.Node != "a" {
			continue
		}
		moved, flipped := row, row
		moved.Node = "b"
		flipped.Sealed = bytes.Clone(row.Sealed)
		flipped.Sealed[len(flipped.Sealed)-1] ^= 1
		for name, r := range map[string]store.DiskKey{"moved": moved, "flipped": flipped} {
			if _, err := (&stored{DiskKey: r}).open(context.Background(), kek(t), nil); err == nil {
				t.Errorf("a %s key opens", name)
			}
		}
	}
}

func TestLimiter(t *testing.T) {
	l := newLimiter(Limits{PerNode: 1, PerNodeBurst: 2, PerAddress: 1, PerAddressBurst: 1})
	got := ""
	for _, x := range []struct {
		node string
		from netip.Addr
		at   time.Duration
	}{
		{"a", here, 0}, {"a", here, 0}, {"a", here, 0}, {"a", there, 0}, {"b", here, 0}, {"a", here, time.Second}, // by node and address
		{"", here, 0}, {"", here, 0}, {"", there, 0}, // by address
		{"", netip.MustParseAddr("2001:db8::1"), 0}, {"", netip.MustParseAddr("2001:db8::2"), 0}, {"", netip.MustParseAddr("2001:db8:0:1::2"), 0},
	} {
		got += map[bool]string{true: "+", false: "-"}[l.allow(x.node, x.from, noon.Add(x.at))]
	}
	if want := "++-+++" + "+-+" + "+-+"; got != want {
		t.Errorf("allow(): got %s, want %s", got, want)
	}
	for i := range 3 * maxLimiters {
		l.allow("", netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), noon)
	}
	if n := len(l.young) + len(l.old); n > maxLimiters {
		t.Errorf("after many addresses: %d limiters, want at most %d", n, maxLimiters)
	}
}

// TestKEKIsRotated: keys that were sealed anew under another key-encryption key, while the old one went away, open without a restart.
func TestKEKIsRotated(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.bind("a", Policy{Mode: ModeNode})
	kid := w.newest("a").Thumbprint
	fresh, err := keystore.NewKey("file", bytes.Repeat([]byte{8}, 32))
	if err != nil {
		t.Fatal(err)
	}
	only, err := keystore.NewRing(fresh)
	if err != nil {
		t.Fatal(err)
	}
	both, err := keystore.NewRing(fresh, mustKEK(t))
	if err != nil {
		t.Fatal(err)
	}
	w.restart() // nothing is open yet
	old, err := w.db.SealedAfter(ctx, "", "", 100)
	if err != nil || len(old) < 3 {
		t.Fatalf("SealedAfter(): got %d, %v; want the keys of disks among them", len(old), err)
	}
	var data [][]byte
	for _, o := range old {
		b, err := both.Rewrap(ctx, o.Data, []byte(o.AAD))
		if err != nil {
			t.Fatalf("Rewrap(%s %s): %v", o.Place, o.Key, err)
		}
		data = append(data, b)
	}
	if n, err := w.db.Reseal(ctx, old, data); err != nil || n != len(old) {
		t.Fatalf("Reseal(): got %d, %v", n, err)
	}
	w.o.Seal = only
	if ring, err := w.Ring(ctx, "a"); err != nil || ring.Find(kid) == nil {
		t.Errorf("Ring() under the new key-encryption key: got %v, %v", ring, err)
	}
	late, err := Open(ctx, w.options())
	if err != nil {
		t.Fatal(err)
	}
	if ring, err := late.Ring(ctx, "a"); err == nil {
		t.Errorf("Ring() under the old key-encryption key: got %v, want an error", ring)
	}
}
