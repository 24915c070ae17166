package authority

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/protocol"
)

// get asks the public API, as a monitor does.
func (w *world) get(path string) (int, string) {
	w.t.Helper()
	r := httptest.NewRecorder()
	w.Handler().ServeHTTP(r, httptest.NewRequest(http.MethodGet, path, nil))
	b, err := io.ReadAll(r.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Code, string(b)
}

// TestLedgerLivesOnItsJournal: on a file system where no file can be made AIAS goes on releasing keys of disks, and says by /readyz and /metrics on what.
func TestLedgerLivesOnItsJournal(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64m,nr_inodes=1000"); err != nil {
		t.Fatalf("mount a small file system: %v (tests run as root)", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	data := filepath.Join(disk, "aias")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(w *world) { w.cfg.Data = data })
	config := w.bindDisk(w.disks(), "worker-1", protocol.DiskPolicy{Mode: "node"})
	jwe, err := clevis(t, "secret", `clevis encrypt tang "$1"`, config)
	if err != nil {
		t.Fatal(err)
	}
	open := func(when string) {
		t.Helper()
		if got, err := clevis(t, jwe, "clevis decrypt"); err != nil || got != "secret" {
			t.Fatalf("%s: clevis decrypt: got %q, %v", when, got, err)
		}
	}
	open("before")
	if code, text := w.get(protocol.PathReady); code != http.StatusOK || text != "ready\n" {
		t.Errorf("/readyz: got %d %q", code, text)
	}
	many := filepath.Join(disk, "many")
	err = os.Mkdir(many, 0o700)
	for i := 0; err == nil; i++ {
		err = os.WriteFile(filepath.Join(many, fmt.Sprint(i)), nil, 0o600)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	for range 3 {
		open("while the tree cannot be written")
	}
	time.Sleep(time.Second)
	code, text := w.get(protocol.PathReady)
	for _, word := range []string{"ready\n", "warning: the tree of the ledger has not been written for ", "no space left", "3 entries wait"} {
		if code != http.StatusOK || !strings.Contains(text, word) {
			t.Errorf("/readyz while the tree cannot be written: got %d %q, want %q", code, text, word)
		}
	}
	_, text = w.get(protocol.PathMetrics)
	for _, line := range []string{"\naias_ledger_waiting_entries 3\n", "\naias_ledger_failures_total 0\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("/metrics while the tree cannot be written: no %q", line)
		}
	}
	for _, line := range []string{"\naias_ledger_behind_seconds 0\n", "\naias_ledger_tree_failures_total 0\n", "\naias_ledger_journal_used_ratio 0\n"} {
		if strings.Contains(text, line) {
			t.Errorf("/metrics while the tree cannot be written: has %q", line)
		}
	}
	if err := os.RemoveAll(many); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); w.ledger.Health().Waiting > 0 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	if _, text := w.get(protocol.PathReady); text != "ready\n" {
		t.Errorf("/readyz with room again: got %q", text)
	}
	if _, text := w.get(protocol.PathMetrics); !strings.Contains(text, "\naias_ledger_waiting_entries 0\n") || !strings.Contains(text, "\naias_ledger_behind_seconds 0\n") {
		t.Error("/metrics with room again: entries wait")
	}
	w.releasedInLedger(4)
}

// releasedInLedger checks that the tree has that many releases of keys, and verifies.
func (w *world) releasedInLedger(want int) {
	w.t.Helper()
	ctx, r, n := context.Background(), w.ledger.Reader(), 0
	var cp *ledger.Checkpoint
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && n != want; time.Sleep(50 * time.Millisecond) {
		if cp, err = r.Checkpoint(ctx); err != nil {
			w.t.Fatal(err)
		}
		n = 0
		for e, err := range r.Entries(ctx, cp, 0) {
			if err != nil {
				w.t.Fatal(err)
			}
			if e.Kind == ledger.KeyReleased {
				n++
			}
		}
	}
	if err := r.Verify(ctx, cp, nil); err != nil || n != want {
		w.t.Errorf("the ledger has %d releases, want %d; verify: %v", n, want, err)
	}
}

func TestLedgerWarning(t *testing.T) {
	full := errors.New("no space left on device")
	for _, c := range []struct {
		name string
		h    ledger.Health
		want string
	}{
		{"nothing waits", ledger.Health{Failures: 3}, ""},
		{"the last batch failed, and all is there", ledger.Health{Err: full}, ""},
		{"a batch is on its way", ledger.Health{Waiting: 9, Behind: time.Second}, ""},
		{"it failed just now", ledger.Health{Waiting: 9, Behind: time.Second, Err: full}, "for 1s: no space left on device; 9 entries"},
		{"slow", ledger.Health{Waiting: 9, Behind: time.Minute, Used: 0.5}, "for 1m0s: it is slow; 9 entries wait in its journal, which is 50% full"},
	} {
		if got := ledgerWarning(c.h); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: ledgerWarning(): got %q, want %q", c.name, got, c.want)
		}
	}
}
