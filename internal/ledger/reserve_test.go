package ledger

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// scarceDir tells this program, started by TestNoDescriptors, to be the one that runs out of file descriptors.
const scarceDir = "LEDGER_SCARCE_DIR"

// TestNoDescriptors: while no file descriptor can be had, entries are kept in the journal and the process goes on; afterwards the tree gets them. A process of its own, as
// what it guards against ends the process.
func TestNoDescriptors(t *testing.T) {
	if dir := os.Getenv(scarceDir); dir != "" {
		scarce(t, dir)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoDescriptors$", "-test.v")
	cmd.Env = append(os.Environ(), scarceDir+"="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func scarce(t *testing.T, dir string) {
	low := syscall.Rlimit{Cur: 64, Max: 64}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	secret, public, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	take := func() (held []*os.File) {
		for {
			f, err := os.Open(os.DevNull)
			if err != nil {
				return held
			}
			held = append(held, f)
		}
	}
	give := func(held []*os.File) {
		for _, f := range held {
			_ = f.Close()
		}
	}
	held := take()
	if _, err := Open(context.Background(), dir, secret, public); err == nil {
		t.Fatal("Open without a descriptor left: got a ledger, want an error")
	}
	give(held)
	l, err := Open(context.Background(), dir, secret, public)
	if err != nil {
		t.Fatal(err)
	}
	entry := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return l.Append(ctx, Entry{Kind: Act, Actor: "operator:ann", Decision: "test"})
	}
	const rounds, each = 5, 8
	for round := range rounds {
		held := take()
		for range each {
			if err := entry(); err != nil {
				t.Fatalf("round %d: Append without a descriptor left: %v", round, err)
			}
			time.Sleep(treeSpacing)
			held = append(held, take()...) // what the ledger let go while it wrote to the tree
		}
		if round == 0 {
			time.Sleep(retryTime + 5*CheckpointInterval) // checkpoints cannot be published meanwhile
		}
		give(held)
	}
	if err := entry(); err != nil {
		t.Fatal(err)
	}
	var cp *Checkpoint
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(CheckpointInterval) {
		if cp, err = l.Reader().Checkpoint(context.Background()); err == nil && cp.Size == rounds*each+1 {
			break
		}
	}
	if err != nil || cp.Size != rounds*each+1 {
		t.Fatalf("checkpoint: got %+v and %v, want %d entries", cp, err, rounds*each+1)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
