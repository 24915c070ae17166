package authority

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/proof"
	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/protocol"
)

// wholeLedger stops AIAS, so that everything is in the ledger, and returns its entries by reference, verified.
func wholeLedger(t *testing.T, w *world) map[string]ledger.Entry {
	t.Helper()
	w.stop()
	key, err := os.ReadFile(filepath.Join(w.cfg.Data, LedgerKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	r, err := ledger.NewReader(ledger.Folder(filepath.Join(w.cfg.Data, LedgerDir)), strings.TrimSpace(string(key)))
	if err != nil {
		t.Fatal(err)
	}
	cp, err := r.Checkpoint(t.Context())
	if err == nil {
		err = r.Verify(t.Context(), cp, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]ledger.Entry{}
	for e, err := range r.Entries(t.Context(), cp, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := out[e.Ref]; twice && e.Ref != "" {
			t.Errorf("%s is in the ledger twice", e.Ref)
		}
		out[e.Ref] = e.Entry
	}
	return out
}

// TestLedgerFollows: verdicts and acts are in the ledger, once, also when AIAS was killed before or after it copied them.
func TestLedgerFollows(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.attest()
	if _, err := w.copyToLedger(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.list = append(m.list, "miner;"...)
	m.attest()
	// Killed: what was copied is not remembered, and the rest was not copied.
	seen, err := w.store.Setting(t.Context(), ledgerCursor)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.copyToLedger(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.list = append(m.list, "more;"...)
	m.clock.ResetCount++
	m.attest()
	if err := w.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	w.closed.Do(func() {})
	if err := w.store.PutSettings(t.Context(), map[string][]byte{ledgerCursor: seen}, nil); err != nil {
		t.Fatal(err)
	}
	w.restart()
	if err := w.admin.Delete(t.Context(), "worker-1"); err != nil {
		t.Fatal(err)
	}
	history, err := w.store.HistoryAfter(t.Context(), 0, 100)
	if err != nil || len(history) < 4 {
		t.Fatalf("history: got %d changes, %v", len(history), err)
	}
	acts, err := w.store.ActsAfter(t.Context(), 0, 100)
	if err != nil || len(acts) < 2 {
		t.Fatalf("acts: got %d, %v", len(acts), err)
	}
	got := wholeLedger(t, w)
	for _, c := range history {
		want := changeEntry(&c)
		if e := got[want.Ref]; e.Kind != want.Kind || e.Node != c.Node || e.Decision != c.To || e.Reason != c.Reason || !e.Time.Equal(c.At) {
			t.Errorf("%s: got %+v, want %+v", want.Ref, e, want)
		}
	}
	for _, c := range acts {
		if e := got[actEntry(&c).Ref]; e.Kind != ledger.Act || e.Actor != "operator:"+c.Operator || e.Decision != c.Act {
			t.Errorf("act %d: got %+v", c.ID, e)
		}
	}
	if len(got) != len(history)+len(acts) {
		t.Errorf("the ledger has %d entries, want %d", len(got), len(history)+len(acts))
	}
}

// TestLedgerTampered: AIAS does not start with a ledger that was changed, shortened or taken away, and does with the right one.
func TestLedgerTampered(t *testing.T) {
	w := newWorld(t)
	w.enrolled("worker-1").attest()
	if _, err := w.copyToLedger(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(ledger.CheckpointInterval) {
		cp, err := w.ledger.Reader().Checkpoint(t.Context())
		if err == nil && cp.Size > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no checkpoint covers what was appended: got %+v, %v", cp, err)
		}
	}
	if err := w.saveCursor(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.stop()
	dir := filepath.Join(w.cfg.Data, LedgerDir)
	aside := dir + ".aside"
	if err := os.Rename(dir, aside); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"gone":       func() error { return nil },
		"begun anew": func() error { return os.Mkdir(dir, 0o700) },
		"another checkpoint": func() error {
			return errors.Join(os.CopyFS(dir, os.DirFS(aside)), os.WriteFile(filepath.Join(dir, "checkpoint"), []byte("x\n1\n\n"), 0o600))
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		w.opened()
		if err := w.OpenLedger(t.Context()); err == nil {
			t.Errorf("%s: OpenLedger(): got no error", name)
		}
		if err := w.record(t.Context(), ledger.Entry{Kind: ledger.KeyReleased}); !errors.Is(err, ledger.ErrClosed) {
			t.Errorf("%s: record(): got %v, want %v", name, err, ledger.ErrClosed)
		}
		_ = w.store.Close()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(aside, dir); err != nil {
		t.Fatal(err)
	}
	w.start()
}

func TestLedgerOverHTTP(t *testing.T) {
	w := newWorld(t)
	w.enrolled("worker-1")
	b, err := w.Operator("auditor")
	if err != nil {
		t.Fatal(err)
	}
	c := operatorHTTP(t, w, b)
	get := func(path string) int {
		resp, err := c.Get(w.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close() //nolint:errcheck // read to the end is not needed
		return resp.StatusCode
	}
	for path, want := range map[string]int{
		protocol.PathLedgerKey: 200, protocol.PathLedgerCheckpoint: 200,
		"/v1/ledger/tile/0/000": 404, "/v1/ledger/tile/entries/x000/000": 404, "/v1/ledger/tile/..%2f..%2faias.key": 404, "/v1/ledger/tile/.state": 404,
		"/v1/ledger/tile/0/..%2f..%2f.state%2ftreeState": 404,
	} {
		if got := get(path); got != want {
			t.Errorf("GET %s: got %d, want %d", path, got, want)
		}
	}
	wantProblem(t, "ledger without a certificate", w.call(w.client(), http.MethodGet, protocol.PathLedgerCheckpoint, nil, nil), http.StatusForbidden, "role")
	if err := w.record(context.Background(), ledger.Entry{Kind: "gossip"}); err == nil {
		t.Error("record() of an unknown kind: got no error")
	}
}

// TestAuditHeadsInTheLedger: the head of a node's audit chain that its TPM signed stands in the ledger, with each verdict and once an hour.
func TestAuditHeadsInTheLedger(t *testing.T) {
	m := newWatched(t)
	m.stop() // it writes heads, too
	ctx := context.Background()
	a := m.w.Authority
	heads := func() (out []string) {
		t.Helper()
		cp, err := a.ledger.Reader().Checkpoint(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range a.ledger.Reader().Entries(ctx, cp, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if h := e.Detail[proof.Detail]; h != "" && e.Node == m.name {
				out = append(out, string(e.Kind)+" "+h)
			}
		}
		return out
	}
	if _, err := a.copyToLedger(ctx); err != nil {
		t.Fatal(err)
	}
	m.attests()
	a.ledgerHeads(ctx)
	first := proof.Text(m.at)
	m.event(shopPod, escape)
	m.attests()
	a.ledgerHeads(ctx) // too early
	if _, err := a.copyToLedger(ctx); err != nil {
		t.Fatal(err)
	}
	second := proof.Text(m.at)
	m.w.clock.Advance(headsEvery)
	a.ledgerHeads(ctx)
	a.ledgerHeads(ctx) // nothing new
	want := []string{"audit-head " + first, "verdict " + second, "audit-head " + second}
	got := heads()
	for end := time.Now().Add(10 * time.Second); !slices.Equal(got, want) && time.Now().Before(end); got = heads() {
		time.Sleep(20 * time.Millisecond) // entries are on disk before the checkpoint has them
	}
	if !slices.Equal(got, want) {
		t.Errorf("heads in the ledger:\ngot  %q\nwant %q", got, want)
	}
}
