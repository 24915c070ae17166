package chain

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crashDir tells the test binary to be the process that is killed.
const crashDir = "CHAIN_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crashChild(dir)
		return
	}
	os.Exit(m.Run())
}

// crashChild adds events without end and tells every head that others may have seen. Half of the entries are acknowledged.
func crashChild(dir string) {
	s, err := Open(Options{Dir: dir, MaxBytes: 2 << 20, Segment: 64 << 10, Commit: time.Millisecond})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	go func() {
		for seq := s.Head().Seq; ; {
			h := s.Head()
			if h.Seq > seq {
				fmt.Println(h.Seq, h.Head)
				seq = h.Seq
			}
			time.Sleep(time.Millisecond)
		}
	}()
	next := 1
	if last := s.last; last != "" {
		_, _ = fmt.Sscanf(last, "1795000336.990:%d", &next)
		next++
	}
	if g := s.Missing(); g.Why != "" { // the source would go on from what is known
		_, _ = fmt.Sscanf(g.Last, "1795000336.990:%d", &next)
		next++
	}
	for ; ; next++ {
		addEvent(s, next, rand.IntN(3000)) //nolint:gosec // lengths
		if rand.IntN(50) == 0 {            //nolint:gosec // moments
			time.Sleep(time.Millisecond)
		}
	}
}

// TestKill9 kills the writer over and over: each head that anybody saw is still that of the chain, and each event is there once, in order, or
// named in a gap.
func TestKill9(t *testing.T) {
	dir := t.TempDir()
	var all []Entry
	var at Position
	for round := range 12 {
		seen := killedWriter(t, dir, time.Duration(20+rand.IntN(150))*time.Millisecond) //nolint:gosec // moments
		s := openSpool(t, Options{Dir: dir, MaxBytes: 2 << 20, Segment: 64 << 10})
		if round == 0 {
			at = Start(s.Head().Chain)
		}
		heads := map[uint64]string{at.Seq: at.Head.String()}
		before, entries := everything(t, s, at.Seq)
		if before != at {
			t.Fatalf("round %d: the spool goes on behind %v, want %v", round, before, at)
		}
		for _, e := range entries {
			at = at.After(encoded(t, e))
			heads[e.Seq] = at.Head.String()
		}
		if at != s.Head() {
			t.Fatalf("round %d: the entries end at %v, the spool at %v", round, at, s.Head())
		}
		for seq, head := range seen {
			if got, ok := heads[seq]; ok && got != head {
				t.Errorf("round %d: head %d is %s, somebody saw %s", round, seq, got, head)
			} else if seq > at.Seq {
				t.Errorf("round %d: somebody saw head %d, the chain ends at %d", round, seq, at.Seq)
			}
		}
		all = append(all, entries...)
		if round%2 == 0 {
			s.Ack(at.Seq)
		}
		_ = s.Close()
	}
	events, next := 0, 1
	for _, e := range all {
		var g Gap
		switch id := EventID(e.Body); {
		case e.Kind == KindEvent && id == eventID(next):
			next++
			events++
		case e.Kind == KindGap && DecodeBody(e.Body, &g) == nil && g.First == eventID(next):
			if _, err := fmt.Sscanf(g.Last, "1795000336.990:%d", &next); err != nil {
				t.Fatal(err)
			}
			next++
		default:
			t.Fatalf("entry %d: %v %s %+v, want event %d or a gap from it", e.Seq, e.Kind, id, g, next)
		}
	}
	if events == 0 {
		t.Error("no event was written before a kill")
	}
}

// killedWriter lets a writer run for a while and returns the heads that it told.
func killedWriter(t *testing.T, dir string, d time.Duration) map[uint64]string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(d, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	seen := map[uint64]string{}
	for r := bufio.NewScanner(out); r.Scan(); {
		if strings.HasPrefix(r.Text(), "error") {
			t.Fatalf("the child said %q", r.Text())
		}
		var seq uint64
		var head string
		if n, _ := fmt.Sscan(r.Text(), &seq, &head); n == 2 && len(head) == 64 {
			seen[seq] = head
		}
	}
	_ = cmd.Wait()
	return seen
}

// TestDiskFull: on a full disk events become a gap, which is kept over a crash, and the chain goes on when there is room.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("mount a small file system: %v: run the tests as root", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	opt := Options{Dir: dir, MaxBytes: 16 << 20, Segment: 64 << 10}
	s := openSpool(t, opt)
	for i := range 1500 {
		addEvent(s, i+1, 1000)
		if i%20 == 0 {
			_ = s.Sync()
		}
	}
	if g := s.Missing(); g.Why != GapDisk || g.Last != eventID(1500) {
		t.Errorf("Missing(): got %+v, want a gap to the last event", g)
	}
	end := s.Head().Seq
	_ = s.Close()
	s = openSpool(t, opt)
	if s.Head().Seq != end || s.Missing().Why != GapDisk {
		t.Errorf("after opening again: %v, %+v; want entry %d and the gap", s.Head(), s.Missing(), end)
	}
	_, all := everything(t, s, 0)
	s.Ack(end)
	time.Sleep(retryAfter + 100*time.Millisecond)
	for i := 1501; i <= 1510; i++ {
		addEvent(s, i, 1000)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	_, rest := everything(t, s, end)
	account(t, append(all, rest...), 1510)
}
