package nbde

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// crashFile tells the test binary to be the process that is killed.
const crashFile = "NBDE_CRASH_FILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashFile); path != "" {
		crashChild(path)
		return
	}
	os.Exit(m.Run())
}

// crashChild makes and rotates keys without end, and says which ones it advertises after each step that has returned.
func crashChild(path string) {
	var t testing.T
	ctx := context.Background()
	w := &world{t: &t, path: path, now: noon}
	w.start()
	for i := 0; ; i++ {
		node := fmt.Sprint("n", i%3)
		var err error
		switch {
		case w.node(node) == nil:
			err = w.Bind(ctx, node, Policy{Mode: ModeNode}, act("bind"))
		case i%5 == 0:
			err = w.RotateShared(ctx, Sign, act("rotate"))
		default:
			err = w.Rotate(ctx, node, act("rotate"))
		}
		if err != nil {
			fmt.Println("error", err)
			return
		}
		fmt.Println("key", node, w.newest(node).Thumbprint)
	}
}

// TestKill9 kills a process while it makes and rotates keys, again and again over the same database: each key that somebody may have bound to
// recovers, and every node has exactly one to bind to.
func TestKill9(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aias.db")
	said := map[string]string{} // thumbprint to node
	for round := range 5 {
		killedChild(t, path, 3+4*round, said)
		checkKeys(t, path, said)
	}
	if len(said) < 10 {
		t.Errorf("only %d keys were made", len(said))
	}
}

func killedChild(t *testing.T, path string, lines int, said map[string]string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), crashFile+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	lr := bufio.NewScanner(out)
	n := 0
	for lr.Scan() {
		words := strings.Fields(lr.Text())
		if len(words) != 3 || words[0] != "key" {
			t.Fatalf("the child said %q", lr.Text())
		}
		said[words[2]] = words[1]
		if n++; n == lines {
			// Somewhere in the next step: each takes a few milliseconds.
			time.Sleep(time.Duration(lines) * time.Millisecond)
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	if n < lines {
		t.Fatalf("the child said %d lines, want %d", n, lines)
	}
}

func checkKeys(t *testing.T, path string, said map[string]string) {
	t.Helper()
	w := &world{t: t, path: path, now: noon}
	w.start()
	defer func() { _ = w.db.Close() }()
	for thumbprint, node := range said {
		ring, err := w.Ring(context.Background(), node)
		if err != nil {
			t.Fatalf("Ring(%s) after kill -9: %v", node, err)
		}
		if ring.Find(thumbprint) == nil {
			t.Errorf("key %s of %s was advertised and is lost", thumbprint, node)
		}
	}
	rows, err := w.db.DiskKeys(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, k := range rows {
		if k.Rotated.IsZero() {
			count[k.Node+" "+k.Use]++
		}
		if _, err := (&stored{DiskKey: k}).open(context.Background(), kek(t), nil); err != nil {
			t.Errorf("key %s: %v", k.Thumbprint, err)
		}
	}
	for what, n := range count {
		if n != 1 {
			t.Errorf("%s: %d keys are advertised, want 1", what, n)
		}
	}
	nodes, err := w.db.DiskNodes(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for node := range nodes {
		if count[node+" "+string(Exchange)] != 1 {
			t.Errorf("node %s has a record and no key", node)
		}
	}
}
