package nbde

import (
	"context"
	"log/slog"
	"testing"
)

// served is the Service of a world behind HTTP, with a gate that lets everyone through: the URL.
func served(t testing.TB, w *world) string {
	t.Helper()
	return serve(t, &Server{
		Ring: func(ctx context.Context, node string) (*Ring, error) { return w.Ring(ctx, node) },
		Gate: func(context.Context, Ask) error { return nil },
		Log:  slog.New(slog.DiscardHandler),
	})
}

// epkCurve prints the curve of the key that clevis made for a binding, which it reads.
const epkCurve = `cut -d. -f1 | jose b64 dec -i- | jose fmt -j- -g epk -g crv -u- | tr -d "\n"`

// TestClevisOnEveryCurve: unmodified clevis takes the curve from the key that is advertised, and all that it makes is on that curve.
func TestClevisOnEveryCurve(t *testing.T) {
	for c := range all {
		t.Run(string(c), func(t *testing.T) {
			w := &world{t: t, path: t.TempDir() + "/aias.db", now: noon, curve: c}
			w.start()
			t.Cleanup(func() { _ = w.db.Close() })
			w.bind("worker-1", Policy{Mode: ModeNode})
			if k := w.newest("worker-1"); k.Curve != c {
				t.Fatalf("Bind() made a key on %s, want %s", k.Curve, c)
			}
			url := served(t, w) + "/n/worker-1"
			jwe := must(t, secret, `clevis encrypt tang "$1" -y`, `{"url":"`+url+`"}`)
			if got := must(t, jwe, epkCurve); got != string(c) {
				t.Errorf("clevis made its key on %q, want %s", got, c)
			}
			if got := must(t, jwe, "clevis decrypt"); got != secret {
				t.Errorf("clevis decrypt: got %q, want %q", got, secret)
			}
		})
	}
}

// TestMoveToAnotherCurve: a disk that was bound to a key on P-521 opens after AIAS makes its keys on P-256; clevis says that it is to be bound again, does
// so, and both keys recover from then on.
func TestMoveToAnotherCurve(t *testing.T) {
	w := &world{t: t, path: t.TempDir() + "/aias.db", now: noon, curve: P521}
	w.start()
	t.Cleanup(func() { _ = w.db.Close() })
	w.bind("worker-1", Policy{Mode: ModeNode})
	url := served(t, w) + "/n/worker-1"
	image, pass := disk(t)
	must(t, "", `clevis luks bind -f -y -k "$2" -d "$1" tang '{"url":"'"$3"'"}'`, image, pass, url)
	old := must(t, secret, `clevis encrypt tang "$1" -y`, `{"url":"`+url+`"}`)
	w.curve = P256
	w.restart()
	report := `clevis luks report -q -d "$1" -s 1`
	if err := unlocks(t, image, "1"); err != nil {
		t.Errorf("with the other curve configured: %v", err)
	}
	if out, err := bash(t, "", report, image); err != nil {
		t.Errorf("clevis luks report: %v, %q; want nothing to do: a key stays on its curve", err, out)
	}
	if err := w.Rotate(context.Background(), "worker-1", act("rotate")); err != nil {
		t.Fatal(err)
	}
	if k := w.newest("worker-1"); k.Curve != P256 {
		t.Errorf("Rotate() made a key on %s, want P-256", k.Curve)
	}
	if err := unlocks(t, image, "1"); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	if out, err := bash(t, "", report, image); err == nil {
		t.Errorf("clevis luks report: got %q, want that keys have changed", out)
	}
	must(t, "", `clevis luks regen -q -d "$1" -s 1`, image)
	if out, err := bash(t, "", report, image); err != nil {
		t.Errorf("clevis luks report after regen: %v, %q", err, out)
	}
	if got := must(t, "", `set +u; . clevis-luks-common-functions; clevis_luks_read_slot "$1" 1 | `+epkCurve, image); got != string(P256) {
		t.Errorf("after regen the disk is bound on %q, want P-256", got)
	}
	if err := unlocks(t, image, "1"); err != nil {
		t.Errorf("after regen: %v", err)
	}
	if got := must(t, old, "clevis decrypt"); got != secret {
		t.Errorf("what hangs on the old key: got %q, want %q", got, secret)
	}
}

func TestCurveIsRefused(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	for _, c := range []Curve{"P-224", "p-256", "secp256k1", "X25519"} {
		if o.Curve = c; c.Validate() == nil {
			t.Errorf("Validate(%s): got no error", c)
		}
		if _, err := Open(context.Background(), o); err == nil {
			t.Errorf("Open() with new keys on %s: got no error", c)
		}
		if _, err := NewKey(c); err == nil {
			t.Errorf("NewKey(%s): got no error", c)
		}
	}
}
