package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fullDir tells this program, started by TestDiskIsFull, to be the one whose disk is full.
const fullDir = "LEDGER_FULL_DIR"

// TestDiskIsFull: on a file system without inodes, where no file can be made, entries are kept in the journal, and Health says how many and why; on one without
// room nothing is taken. The tree gets what was taken when there is room again. It is a program of its own, as none of this may end it.
func TestDiskIsFull(t *testing.T) {
	if dir := os.Getenv(fullDir); dir != "" {
		diskIsFull(t, dir)
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m,nr_inodes=1000"); err != nil {
		t.Fatalf("mount a small file system: %v (tests run as root)", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDiskIsFull$", "-test.v")
	cmd.Env = append(os.Environ(), fullDir+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// noInodes makes files until there can be no more.
func noInodes(t *testing.T, dir string) (undo func()) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, "many"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		err := os.WriteFile(filepath.Join(dir, "many", fmt.Sprint(i)), nil, 0o600)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.RemoveAll(filepath.Join(dir, "many")); err != nil {
			t.Fatal(err)
		}
	}
}

// noRoom fills a file until no byte is left.
func noRoom(t *testing.T, dir string) (undo func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "large"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// caughtUp waits until the tree has all.
func caughtUp(t *testing.T, l *Ledger) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(CheckpointInterval) {
		h := l.Health()
		if h.Waiting == 0 && h.Err == nil {
			if h.Behind != 0 {
				t.Errorf("Health() of a tree that has all: got %+v, want it not behind", h)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the tree does not catch up: %+v", h)
		}
	}
}

func diskIsFull(t *testing.T, disk string) {
	dir, k := filepath.Join(disk, "ledger"), newKeys(t)
	l := open(t, dir, k)
	n := 0
	add := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err := l.Append(ctx, entry(n))
		if err == nil {
			n++
		}
		return err
	}
	for range 3 {
		if err := add(); err != nil {
			t.Fatal(err)
		}
	}
	caughtUp(t, l)
	if h := l.Health(); h.Failures != 0 {
		t.Errorf("Health() at first: got %+v, want no failure", h)
	}

	undo := noInodes(t, disk)
	for range 20 {
		if err := add(); err != nil {
			t.Fatalf("Append() while the tree cannot be written: %v", err)
		}
		time.Sleep(treeSpacing)
	}
	time.Sleep(2 * retryTime)
	h := l.Health()
	if h.Waiting != 20 || h.Behind < 2*retryTime || h.Failures < 2 || h.Err == nil || !strings.Contains(h.Err.Error(), "no space left") || h.Used <= 0 || h.Used > 0.01 {
		t.Errorf("Health() while the tree cannot be written: got %+v, want 20 that wait for %s, and why", h, 2*retryTime)
	}
	undo()
	caughtUp(t, l)

	undo = noRoom(t, disk)
	var err error
	for range 64 { // what is left of the journal's last page takes some
		if err = add(); err != nil {
			break
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Append() without room for the journal: got %v, want %v", err, unix.ENOSPC)
	}
	undo()
	if err := add(); err != nil {
		t.Errorf("Append() with room again: %v", err)
	}
	caughtUp(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got := held(t, dir, k)
	slices.Sort(got)
	var want []string
	for i := range n {
		want = append(want, entry(i).Node)
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the ledger has %v, want %v", got, want)
	}
}
