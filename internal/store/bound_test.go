package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func count(t *testing.T, s *SQLite, table string) (n int) {
	t.Helper()
	if err := s.read.QueryRow(`SELECT count(*) FROM ` + table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLogsAreLetGoAtOnce: a node that sends another log each time makes the store keep no more than its kept Evidence refers to, and takes
// nothing from a node that shares a log with it.
func TestLogsAreLetGoAtOnce(t *testing.T) {
	s, ctx := open(t), context.Background()
	a, b := enrol(t, s, "a", 1), enrol(t, s, "b", 2)
	if _, err := s.Save(ctx, step(b, 10)); err != nil {
		t.Fatal(err)
	}
	for i := range int64(50) {
		u := step(a, 10+i)
		u.IMA = nil
		e := &u.Evidence[0]
		e.Kind = Kind(i % int64(numKinds))
		e.EventLog, e.Facts = fmt.Appendf(nil, "log %d", i), fmt.Appendf(nil, "facts %d", i)
		u.Blobs = []Blob{{e.EventLog, []byte("log")}, {e.Facts, []byte("facts")}}
		switch i % 4 {
		case 1: // the log of the other node, by name only
			e.EventLog, u.Blobs = []byte{1}, u.Blobs[1:]
		case 2: // none at all
			e.EventLog, e.Facts, u.Blobs = nil, nil, nil
		}
		if _, err := s.Save(ctx, u); err != nil {
			t.Fatalf("Save(%d): %v", i, err)
		}
		if n := count(t, s, "blobs"); n > 2+2*int(numKinds) {
			t.Fatalf("after %d steps: got %d logs, want at most %d", i+1, n, 2+2*int(numKinds))
		}
	}
	for _, digest := range [][]byte{{1}, {2}} {
		if _, err := s.Blob(ctx, digest); err != nil {
			t.Errorf("Blob(%x) of the other node: %v", digest, err)
		}
	}
	if err := s.Delete(ctx, a.ID, &Change{Node: "a", At: now}, Act{At: now}); err != nil {
		t.Fatal(err)
	}
	if n, refs := count(t, s, "blobs"), count(t, s, "log_refs"); n != 2 || refs != 2 {
		t.Errorf("after Delete: got %d logs and %d references, want the 2 of the other node", n, refs)
	}
}

// TestFullDisk: a write that finds no room fails with an error that says so, loses nothing of what was there, and Ping tells. With room again
// everything goes on.
func TestFullDisk(t *testing.T) {
	s, ctx := open(t), context.Background()
	n := enrol(t, s, "a", 1)
	if _, err := s.Save(ctx, step(n, 10)); err != nil {
		t.Fatal(err)
	}
	limit := func(pages int) {
		t.Helper()
		err := s.write(ctx, false, func(x *txn) error {
			var got int
			return x.conn.QueryRowContext(ctx, fmt.Sprintf(`PRAGMA max_page_count = %d`, pages)).Scan(&got)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	limit(1) // SQLite makes it as many as there are
	u := step(n, 11)
	u.IMA, u.State.Trust, u.Evidence[0].Document = nil, "untrusted", make([]byte, 1<<20)
	if _, err := s.Save(ctx, u); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("Save() on a full disk: got %v, want an error that says full", err)
	}
	if got, err := s.Nodes(ctx); err != nil || got[0].State.Trust != "trusted" || got[0].State.Watermark != 10 {
		t.Errorf("Nodes() after it: got %+v, %v; want the state before", got, err)
	}
	limit(1 << 30)
	if _, err := s.Save(ctx, u); err != nil {
		t.Errorf("Save() with room again: %v", err)
	}
	if err := s.Ping(ctx); err != nil {
		t.Errorf("Ping() with room again: %v", err)
	}
}

// TestPingTellsThatNothingCanBeWritten: reads go on for ever on a disk that takes no writes.
func TestPingTellsThatNothingCanBeWritten(t *testing.T) {
	s, ctx := open(t), context.Background()
	if err := s.Ping(ctx); err != nil {
		t.Errorf("Ping() of a new database: %v", err)
	}
	_ = s.write(ctx, false, func(x *txn) error {
		_, err := x.conn.ExecContext(ctx, `PRAGMA query_only = 1`)
		return err
	})
	if err := s.PutSettings(ctx, map[string][]byte{"a": {1}}, nil); err == nil {
		t.Fatal("PutSettings() on a read-only database: got no error")
	}
	s.wrote.Store(time.Now().Add(-2 * pingFresh).UnixNano())
	if err := s.Ping(ctx); err == nil || !strings.Contains(err.Error(), "takes no writes") {
		t.Errorf("Ping() on a read-only database: got %v, want an error", err)
	}
}

// TestFilesArePrivate: whatever the umask, also for files that were there.
func TestFilesArePrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	if err := os.WriteFile(path, nil, 0o644); err != nil { //nolint:gosec // that is the test
		t.Fatal(err)
	}
	s, err := Open(context.Background(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.PutSettings(context.Background(), map[string][]byte{"a": {1}}, nil); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + "-wal", path + "-shm"} {
		st, err := os.Stat(p)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, %v; want 0600", filepath.Base(p), st.Mode(), err)
		}
	}
}

// TestDamagedListIsRefused: a gap, a cut or changed bytes in what is kept of a list are errors, never a shorter list.
func TestDamagedListIsRefused(t *testing.T) {
	for name, damage := range map[string]string{
		"gap":     `DELETE FROM ima WHERE start = 4`,
		"cut":     `DELETE FROM ima WHERE start = 8`,
		"changed": `UPDATE ima SET data = x'00112233' WHERE start = 4`,
	} {
		s, ctx := open(t), context.Background()
		n := enrol(t, s, "a", 1)
		for i := range int64(3) {
			u := step(n, 10+i)
			u.IMAOffset, u.Change, u.Evidence[0].IMALen = uint64(4*i), nil, uint64(4*i+4)
			if _, err := s.Save(ctx, u); err != nil {
				t.Fatal(err)
			}
		}
		if b, err := s.IMA(ctx, n.ID, 1, 12); err != nil || string(b) != "listlistlist" {
			t.Fatalf("IMA(): got %q, %v", b, err)
		}
		if err := s.write(ctx, false, func(x *txn) error { _, err := x.exec(damage); return err }); err != nil {
			t.Fatal(err)
		}
		if b, err := s.IMA(ctx, n.ID, 1, 12); err == nil {
			t.Errorf("IMA() after %s: got %q, want an error", name, b)
		}
	}
}
