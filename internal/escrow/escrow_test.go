package escrow

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/keystore"
	"touchstone.dev/touchstone/internal/store"
)

type world struct {
	*Service
	t     *testing.T
	now   time.Time
	noted []State
	fail  error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	db, err := store.Open(context.Background(), filepath.Join(t.TempDir(), "aias.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	k, err := keystore.NewKey("file", bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keystore.NewRing(k)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	w.Service = &Service{Store: db, Seal: ring, Now: func() time.Time { return w.now }, Note: func(_ context.Context, s State) error {
		w.noted = append(w.noted, s)
		return w.fail
	}}
	return w
}

func by(name string) store.Act { return store.Act{At: time.Unix(1, 0), Operator: name, Act: "test"} }

func (w *world) deposit(volume, pass string) {
	w.t.Helper()
	if err := w.Deposit(context.Background(), "w1", volume, []byte(pass), by("ann")); err != nil {
		w.t.Fatal(err)
	}
}

// step does one and checks the refusal; "" means that it is not refused.
func (w *world) step(what, who, refusal string) []byte {
	w.t.Helper()
	ctx := context.Background()
	var pass []byte
	var err error
	switch what {
	case "ask":
		_, err = w.Ask(ctx, "w1", "v", "disk is needed", by(who))
	case "confirm":
		_, err = w.Confirm(ctx, "w1", "v", by(who))
	case "cancel":
		_, err = w.Cancel(ctx, "w1", "v", by(who))
	case "take":
		pass, _, err = w.Take(ctx, "w1", "v", by(who))
	}
	if (err == nil) != (refusal == "") || err != nil && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), refusal) || pass != nil) {
		w.t.Errorf("%s by %s: got %q, %v; want %q", what, who, pass, err, refusal)
	}
	return pass
}

func TestTwoOperators(t *testing.T) {
	w := newWorld(t)
	w.deposit("v", "correct horse")
	w.step("take", "ann", "request it first")
	w.step("confirm", "bob", "nobody has requested it")
	w.step("ask", "ann", "")
	w.step("take", "ann", "another operator must confirm")
	w.step("confirm", "ann", "who requests it cannot confirm it")
	w.step("ask", "bob", "ann has requested it already")
	w.step("confirm", "bob", "")
	w.step("take", "bob", "only that one can take it")
	if got := w.step("take", "ann", ""); string(got) != "correct horse" {
		t.Errorf("Take(): got %q", got)
	}
	w.step("take", "ann", "request it first") // once
	if len(w.noted) != 1 || w.noted[0].TakenBy != "ann, confirmed by bob" || w.noted[0].Node != "w1" || w.noted[0].Volume != "v" {
		t.Errorf("noted: %+v", w.noted)
	}
	all, err := w.List(context.Background())
	if err != nil || len(all) != 1 || all[0].TakenBy == "" || all[0].Request != nil {
		t.Errorf("List(): got %+v, %v; want it taken", all, err)
	}
	w.deposit("v", "another")
	if all, err = w.List(context.Background()); err != nil || all[0].TakenBy != "" {
		t.Errorf("List() after another deposit: got %+v, %v", all, err)
	}
}

func TestRequestsEnd(t *testing.T) {
	w := newWorld(t)
	w.deposit("v", "x")
	w.step("ask", "ann", "")
	w.now = w.now.Add(requestLife)
	w.step("confirm", "bob", "nobody has requested it")
	w.step("ask", "bob", "")
	w.step("confirm", "ann", "")
	w.now = w.now.Add(requestLife)
	w.step("take", "bob", "request it first")
	// Asking again drops the confirmation of what was asked before.
	w.step("ask", "ann", "")
	w.step("confirm", "bob", "")
	w.step("ask", "ann", "")
	w.step("take", "ann", "another operator must confirm")
	w.step("confirm", "bob", "")
	w.step("cancel", "eve", "")
	w.step("take", "ann", "request it first")
	// A deposit drops the request: it was for another passphrase.
	w.step("ask", "ann", "")
	w.step("confirm", "bob", "")
	w.deposit("v", "y")
	w.step("take", "ann", "request it first")
}

// TestNothingIsGivenOutThatIsNotNoted, and the request is used up all the same.
func TestNothingIsGivenOutThatIsNotNoted(t *testing.T) {
	w := newWorld(t)
	w.deposit("v", "x")
	w.step("ask", "ann", "")
	w.step("confirm", "bob", "")
	w.fail = errors.New("disk full")
	if pass, _, err := w.Take(context.Background(), "w1", "v", by("ann")); err == nil || pass != nil {
		t.Errorf("Take() without a ledger: got %q, %v", pass, err)
	}
	w.fail = nil
	w.step("take", "ann", "request it first")
}

func TestRefuses(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	for name, tt := range map[string]struct {
		volume string
		pass   int
	}{"no volume": {"", 1}, "path": {"../x", 1}, "slash": {"a/b", 1}, "long": {strings.Repeat("v", 65), 1}, "no passphrase": {"v", 0}, "long passphrase": {"v", MaxPassphrase + 1}} {
		if err := w.Deposit(ctx, "w1", tt.volume, make([]byte, tt.pass), by("ann")); !errors.Is(err, ErrRefused) {
			t.Errorf("Deposit(%s): got %v, want ErrRefused", name, err)
		}
	}
	if _, err := w.Ask(ctx, "w1", "v", "x", by("ann")); !errors.Is(err, ErrNone) {
		t.Errorf("Ask() for nothing: got %v, want ErrNone", err)
	}
	w.deposit("v", "x")
	for _, reason := range []string{"", "  ", strings.Repeat("x", MaxReason+1)} {
		if _, err := w.Ask(ctx, "w1", "v", reason, by("ann")); !errors.Is(err, ErrRefused) {
			t.Errorf("Ask(%.10q): got %v, want ErrRefused", reason, err)
		}
	}
	if err := w.Remove(ctx, "w1", "v", by("ann")); err != nil {
		t.Error(err)
	}
	if err := w.Remove(ctx, "w1", "v", by("ann")); !errors.Is(err, ErrNone) {
		t.Errorf("Remove() again: got %v, want ErrNone", err)
	}
}

// TestSealedAndBound: the database has no passphrase in plain, and one that is moved to another volume does not open.
func TestSealedAndBound(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.deposit("v", "correct horse")
	e, err := w.Store.Escrow(ctx, "w1", "v")
	if err != nil || bytes.Contains(e.Sealed, []byte("horse")) || bytes.Contains(e.State, []byte("horse")) {
		t.Fatalf("Escrow(): got %q, %v", e, err)
	}
	e.Node = "w2"
	if err := w.Store.PutEscrow(ctx, *e, by("eve")); err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { _, err := w.Ask(ctx, "w2", "v", "x", by("ann")); return err },
		func() error { _, err := w.Confirm(ctx, "w2", "v", by("bob")); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if pass, _, err := w.Take(ctx, "w2", "v", by("ann")); err == nil {
		t.Errorf("Take() of a moved passphrase: got %q", pass)
	}
}
