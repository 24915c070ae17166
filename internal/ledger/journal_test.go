package ledger

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/tessera"
)

// written makes a journal of batches that no tree has, and returns its file.
func written(t testing.TB, dir, secret string, size uint64, batches ...[][]byte) string {
	t.Helper()
	j, _, err := openJournal(dir, secret, size)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		if err := j.write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.f.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, journalFile)
}

func encoded(t testing.TB, numbers ...int) [][]byte {
	t.Helper()
	var out [][]byte
	for _, n := range numbers {
		b, err := entry(n).encode()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// has compares what a ledger holds with entries of such numbers, in order.
func has(t testing.TB, dir string, k keys, want ...int) {
	t.Helper()
	var nodes []string
	for _, n := range want {
		nodes = append(nodes, entry(n).Node)
	}
	if got := held(t, dir, k); !slices.Equal(got, nodes) {
		t.Errorf("the ledger has %v, want %v", got, nodes)
	}
}

// held are the nodes of the entries of a ledger.
func held(t testing.TB, dir string, k keys) (got []string) {
	t.Helper()
	r := reader(t, dir, k)
	for e, err := range r.Entries(context.Background(), newest(t, r), 0) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Node)
	}
	return got
}

// TestJournalIsTakenUp: what a machine that went down had in its journal is in the ledger once it is opened, covered by a checkpoint, in order, and
// nothing twice.
func TestJournalIsTakenUp(t *testing.T) {
	dir, k := filled(t, 3)
	if st, err := os.Stat(filepath.Join(dir, journalFile)); err != nil || st.Size() != 0 {
		t.Errorf("the journal after Close(): %v, %v; want it empty", st, err)
	}
	// The tree has 1 and 2 already, as when the machine went down between tree and journal.
	written(t, dir, k.secret, 1, encoded(t, 1, 2), encoded(t, 3), encoded(t, 4, 4, 5))
	l := open(t, dir, k)
	has(t, dir, k, 0, 1, 2, 3, 4, 4, 5)
	mustAppend(t, l, entry(6))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	has(t, dir, k, 0, 1, 2, 3, 4, 4, 5, 6)
}

// TestJournalIsNotBelieved: a frame that was cut, changed or moved, or that another key made, is not there; those before it are.
func TestJournalIsNotBelieved(t *testing.T) {
	dir := t.TempDir()
	path := written(t, dir, "a key", 0, [][]byte{[]byte("one")})
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(written(t, t.TempDir(), "a key", 0, [][]byte{[]byte("one")}, [][]byte{[]byte("two")}))
	if err != nil || !bytes.HasPrefix(whole, first) {
		t.Fatalf("the journal of two is no continuation of that of one: %v", err)
	}
	read := func(data []byte, key string) string {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		j, got, err := openJournal(dir, key, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer j.f.Close()
		if st, err := j.f.Stat(); err != nil || st.Size() != j.size {
			t.Errorf("the file has %d bytes after it was opened, want %d: %v", st.Size(), j.size, err)
		}
		return string(bytes.Join(got, []byte(" ")))
	}
	if got := read(whole, "a key"); got != "one two" {
		t.Errorf("the whole: got %q", got)
	}
	if got := read(whole, "another key"); got != "" {
		t.Errorf("by another key: got %q", got)
	}
	if got := read(append(bytes.Clone(first), first...), "a key"); got != "one" {
		t.Errorf("a frame that was moved: got %q", got)
	}
	for i := len(first); i < len(whole); i++ {
		bad := bytes.Clone(whole)
		bad[i] ^= 0x40
		if got := read(bad, "a key"); got != "one" {
			t.Errorf("byte %d changed: got %q, want the first alone", i, got)
		}
		if got := read(whole[:i], "a key"); got != "one" {
			t.Errorf("cut at %d: got %q, want the first alone", i, got)
		}
	}
}

// TestJournalOfAnotherTime: a tree that lost entries which the journal was begun after is not opened.
func TestJournalOfAnotherTime(t *testing.T) {
	dir, k := filled(t, 3)
	written(t, dir, k.secret, 4, encoded(t, 4))
	if _, err := Open(context.Background(), dir, k.secret, k.public); !errors.Is(err, ErrTampered) {
		t.Errorf("Open() of a tree that is shorter than its journal says: got %v, want %v", err, ErrTampered)
	}
}

// TestOneAtATime: a ledger that is open is not opened once more, and is again when it was closed.
func TestOneAtATime(t *testing.T) {
	dir, k := filled(t, 1)
	l := open(t, dir, k)
	if _, err := Open(context.Background(), dir, k.secret, k.public); err == nil || !strings.Contains(err.Error(), "another aias") {
		t.Errorf("Open() of a ledger that is open: got %v, want who may have it", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, k)
}

// TestTreeIsAway: what the tree does not take at first is there in the end, and Append does not wait for that.
func TestTreeIsAway(t *testing.T) {
	dir, k := t.TempDir(), newKeys(t)
	l := open(t, dir, k)
	add, failures := l.add, 3
	l.add = func(ctx context.Context, e *tessera.Entry) tessera.IndexFuture {
		if failures--; failures >= 0 {
			return func() (tessera.Index, error) { return tessera.Index{}, errors.New("no space left on device") }
		}
		return add(ctx, e)
	}
	for i := range 6 {
		mustAppend(t, l, entry(i))
	}
	l.journal.mu.Lock()
	for len(l.journal.waiting) > 0 {
		l.journal.changed.Wait()
	}
	l.journal.mu.Unlock()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if failures >= 0 {
		t.Fatal("the tree never failed: the test has shown nothing")
	}
	got := held(t, dir, k) // what failed comes later than what did not
	slices.Sort(got)
	if want := []string{"worker-0", "worker-1", "worker-2", "worker-3", "worker-4", "worker-5"}; !slices.Equal(got, want) {
		t.Errorf("the ledger has %v, want %v", got, want)
	}
}

// TestJournalIsFull: nothing is taken that cannot be kept, and who waits for room is let go when the ledger is closed.
func TestJournalIsFull(t *testing.T) {
	dir, k := t.TempDir(), newKeys(t)
	l := open(t, dir, k)
	l.add = func(context.Context, *tessera.Entry) tessera.IndexFuture {
		return func() (tessera.Index, error) { return tessera.Index{}, errors.New("no space left on device") }
	}
	mustAppend(t, l, entry(0))
	l.journal.mu.Lock()
	l.journal.size += maxJournal
	l.journal.mu.Unlock()
	waits := make(chan error)
	go func() { waits <- l.Append(context.Background(), entry(1)) }()
	select {
	case err := <-waits:
		t.Errorf("Append() to a full journal: got %v, want that it waits", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; !errors.Is(err, ErrClosed) {
		t.Errorf("Append() to a full journal that is closed: got %v, want %v", err, ErrClosed)
	}
	has(t, dir, k)
	open(t, dir, k)
	has(t, dir, k, 0)
}

// TestJournalIsBroken: a disk that does not take what is written, and does not give it back either, ends the ledger.
func TestJournalIsBroken(t *testing.T) {
	dir, k := t.TempDir(), newKeys(t)
	l, err := Open(context.Background(), dir, k.secret, k.public)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, entry(0))
	_ = l.journal.f.Close()
	for range 2 {
		if err := l.Append(context.Background(), entry(1)); err == nil {
			t.Error("Append() to a journal that cannot be written: got no error")
		}
	}
	_ = l.Close()
	open(t, dir, k)
	has(t, dir, k, 0)
}
