package nbde

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/store"
)

// withoutHSM: the keys of a node that are in an HSM recover nothing and are not advertised, and say what to set; a new key, in memory, does.
func (w *world) withoutHSM(node, kid string) {
	t, ctx := w.t, context.Background()
	t.Helper()
	ring, err := w.Ring(ctx, node)
	if err != nil {
		t.Fatalf("Ring() without the HSM: %v", err)
	}
	k := ring.Find(kid)
	if k == nil {
		t.Fatal("a key of the HSM is not found without it")
	}
	if _, err := k.Recover(on(t, k.Curve).public); err == nil || !strings.Contains(err.Error(), "set disks.hsm") {
		t.Errorf("Recover() without the HSM: got %v, want what to set", err)
	}
	if _, err := ring.Advertisement(""); !errors.Is(err, errNoKey) {
		t.Errorf("Advertisement() without the HSM: got %v, want none: what is bound to it now is lost", err)
	}
	if err := w.Rotate(ctx, node, act("rotate")); err != nil {
		t.Fatal(err)
	}
	if ring, err = w.Ring(ctx, node); err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Advertisement(""); err != nil {
		t.Errorf("Advertisement() after a rotation without the HSM: %v", err)
	}
	if k := w.newest(node); k.hsm != nil {
		t.Error("Rotate() without an HSM made a key in one")
	} else if _, err := k.Recover(on(t, k.Curve).public); err != nil {
		t.Errorf("Recover() with the key in memory: %v", err)
	}
}

// TestLostKeys: keys that are not there, or are others, are told by their nodes.
func TestLostKeys(t *testing.T) {
	ctx, m := t.Context(), newModule()
	w := &world{t: t, path: t.TempDir() + "/aias.db", now: noon, hsm: m}
	w.start()
	t.Cleanup(func() { _ = w.db.Close() })
	for _, n := range []string{"c", "a", "b"} {
		w.bind(n, Policy{Mode: ModeNode})
	}
	w.hsm = nil
	w.restart()
	w.bind("in-memory", Policy{Mode: ModeNode})
	rows, err := w.db.DiskKeys(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{} // by node
	for _, r := range rows {
		if k, err := (&stored{DiskKey: r}).open(ctx, w.options().Seal, m); err == nil {
			ids[r.Node] = k.id
		}
	}
	of := len(m.keys)
	for _, c := range []struct {
		name  string
		h     HSM
		lose  func()
		nodes []string
		why   string
	}{
		{"all there", m, func() {}, nil, ""},
		{"none configured", nil, func() {}, []string{"", "a", "b", "c"}, "set disks.hsm"},
		{"another key by that name", m, func() { m.keys[ids["b"]] = m.keys[ids["c"]] }, []string{"b"}, errHSM.Error()},
		{"one is gone as well", m, func() { delete(m.keys, ids["a"]) }, []string{"a", "b"}, ""},
	} {
		c.lose()
		got, err := LostKeys(ctx, rows, w.options().Seal, c.h)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Nodes, c.nodes) || got.Keys != len(c.nodes) || got.Of != of {
			t.Errorf("%s: LostKeys(): got %+v, want %q of %d keys", c.name, got, c.nodes, of)
		}
		if c.why != "" && (got.Why == nil || !strings.Contains(got.Why.Error(), c.why)) {
			t.Errorf("%s: got %v, want %q", c.name, got.Why, c.why)
		}
	}
	if _, err := LostKeys(ctx, append(rows, store.DiskKey{Thumbprint: "x", Sealed: []byte("y")}), w.options().Seal, m); err == nil {
		t.Error("LostKeys() of a key that does not open: got no error")
	}
}
