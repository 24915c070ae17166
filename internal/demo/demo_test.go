package demo

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

// TestStory runs the whole demo on real software TPMs: it needs swtpm and swtpm_setup (`make test` installs them).
func TestStory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var screen bytes.Buffer
	out, err := Run(context.Background(), Options{Out: &screen, Style: render.Style{Unicode: true}, Fast: true})
	if err != nil {
		t.Fatalf("Run: %v\n%s", err, screen.String())
	}
	if len(out.Steps) != 9 || !out.OK {
		t.Errorf("Run: got %d steps, OK %v, want 9 good ones: %+v", len(out.Steps), out.OK, out.Steps)
	}
	for _, want := range []string{
		"unknown file /var/tmp/.x/xmrig", "Secure Boot is off", "mitigations=off", "answered already", "the quote answers another challenge",
		"9 of 9 verdicts as told",
	} {
		if !strings.Contains(strings.Join(strings.Fields(screen.String()), " "), want) {
			t.Errorf("the screen does not say %q:\n%s", want, screen.String())
		}
	}
	for i, line := range strings.Split(screen.String(), "\n") {
		if n := len([]rune(line)); n > 80 {
			t.Errorf("line %d of the screen has %d columns, want 80 at most: %q", i+1, n, line)
		}
	}
	left, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("the demo left %q behind, %v", left, err)
	}
}

// buffer is a screen that is read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) find(re *regexp.Regexp) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := re.FindStringSubmatch(b.b.String()); m != nil {
		return m[1]
	}
	return ""
}

// With --keep, the commands on the screen work: an operator sees the nodes, and a worker can be made to fall from another process.
func TestKeep(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	screen := &buffer{}
	done := make(chan error, 1)
	go func() {
		_, err := Run(ctx, Options{Out: screen, Fast: true, Keep: true})
		done <- err
	}()
	var folder string
	for folder == "" {
		select {
		case err := <-done:
			t.Fatalf("Run ended: %v\n%s", err, screen.b.String())
		case <-time.After(50 * time.Millisecond):
		}
		folder = screen.find(regexp.MustCompile(EnvFolder + `=(\S+)`))
	}
	c, err := operator.Open(screen.find(regexp.MustCompile(operator.EnvBundle + `=(\S+)`)))
	if err != nil {
		t.Fatalf("operator.Open: %v", err)
	}
	defer c.Close()
	if err := Exec(folder, "worker-9", "/bin/x"); err == nil || !strings.Contains(err.Error(), "worker-1, worker-2, worker-3") {
		t.Errorf("Exec on a worker that is not there: got %v", err)
	}
	if err := Exec(folder, "worker-3", "/usr/bin/strange"); err != nil {
		t.Fatalf("Exec: %v", err)
	}
	for {
		n, err := c.Node(ctx, "worker-3")
		if err != nil {
			t.Fatalf("Node: %v", err)
		}
		if n.Trust == protocol.Untrusted {
			if !strings.Contains(n.Reason, "/usr/bin/strange") {
				t.Errorf("reason: got %q, want the program in it", n.Reason)
			}
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("folder of the demo after its end: %v, want it gone", err)
	}
}
