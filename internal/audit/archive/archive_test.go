package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// sender makes batches of one chain.
type sender struct {
	t       testing.TB
	at      chain.Position
	entries [][]byte
	before  []chain.Position
}

func newSender(t testing.TB, id byte) *sender {
	return &sender{t: t, at: chain.Start(chain.ID{id})}
}

// add appends entries and returns the batch with them.
func (s *sender) add(n int, text string) *chain.Batch {
	b := &chain.Batch{Before: s.at}
	for range n {
		e := chain.Entry{Seq: s.at.Seq + 1, Time: now.Add(time.Duration(s.at.Seq) * time.Second), Kind: chain.KindEvent, Body: fmt.Appendf(nil, "%s %d", text, s.at.Seq+1)}
		raw, err := e.Append(nil)
		if err != nil {
			s.t.Fatal(err)
		}
		b.Entries = append(b.Entries, raw)
		s.entries, s.before = append(s.entries, raw), append(s.before, s.at)
		s.at = s.at.After(raw)
	}
	return b
}

// from is a batch of entries that were made before.
func (s *sender) from(seq, n int) *chain.Batch {
	return &chain.Batch{Before: s.before[seq], Entries: s.entries[seq : seq+n]}
}

func openArchive(t testing.TB, opt Options) (*Archive, *Node) {
	t.Helper()
	if opt.Now == nil {
		opt.Now = func() time.Time { return now }
	}
	a, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	n, err := a.Node("worker-1")
	if err != nil {
		t.Fatal(err)
	}
	return a, n
}

func mustAppend(t testing.TB, n *Node, b *chain.Batch) {
	t.Helper()
	if _, err := n.Append(b, time.Time{}, false); err != nil {
		t.Fatal(err)
	}
}

// bodies reads all events, and checks that they follow each other.
func bodies(t testing.TB, n *Node) (out []string) {
	t.Helper()
	at := n.Cut()
	err := n.Read(context.Background(), Query{}, func(p *Place) error {
		if at != (chain.Position{}) && p.Batch.Before != at {
			t.Errorf("a batch begins at %v, the one before ended at %v", p.Batch.Before, at)
		}
		var err error
		if at, err = p.Batch.End(); err != nil {
			return err
		}
		for _, raw := range p.Batch.Entries {
			e, err := chain.Parse(raw)
			if err != nil {
				return err
			}
			out = append(out, string(e.Body))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAppend(t *testing.T) {
	dir := t.TempDir()
	told := 0
	a, n := openArchive(t, Options{Dir: dir, Accepted: func(_ string, _ chain.ID, e []chain.Entry) { told += len(e) }})
	s := newSender(t, 1)
	mustAppend(t, n, s.add(10, "event"))
	mustAppend(t, n, s.from(0, 10)) // the acknowledgement was lost
	s.add(10, "event")
	mustAppend(t, n, s.from(5, 10)) // and a batch cut in another way
	mustAppend(t, n, s.from(12, 8))
	if _, err := n.Append(s.add(1, "event"), time.Time{}, false); err != nil {
		t.Fatal(err)
	}
	s.add(5, "event")
	if _, err := n.Append(s.from(24, 2), time.Time{}, false); !errors.Is(err, ErrBehind) {
		t.Errorf("Append() behind the end: got %v, want ErrBehind", err)
	}
	if got := bodies(t, n); len(got) != 21 || got[20] != "event 21" || told != 21 {
		t.Errorf("%d entries, %d told; want 21 once each", len(got), told)
	}
	a.Close()
	_, n = openArchive(t, Options{Dir: dir})
	if n.Position() != s.before[21] {
		t.Errorf("after opening again: %v, want %v", n.Position(), s.before[21])
	}
	st := n.State()
	if st.Open() != nil {
		t.Errorf("a finding against an honest worker: %+v", st.Open())
	}
}

func TestForks(t *testing.T) {
	other := func() *sender { // the same numbers, other events
		s := newSender(t, 1)
		s.add(5, "event")
		s.add(20, "forged")
		return s
	}
	for name, tt := range map[string]struct {
		act  func(*Node, *sender) error
		want error
		kind string
	}{
		"rewritten": {func(n *Node, _ *sender) error { _, err := n.Append(other().from(8, 4), time.Time{}, false); return err }, ErrFork, Fork},
		"rewritten and on": {func(n *Node, _ *sender) error {
			_, err := n.Append(other().from(4, 20), time.Time{}, false)
			return err
		}, ErrFork, Fork},
		"from the end on": {func(n *Node, _ *sender) error {
			_, err := n.Append(other().from(10, 4), time.Time{}, false)
			return err
		}, ErrFork, Fork},
		"a new chain": {func(n *Node, _ *sender) error {
			_, err := n.Append(newSender(t, 2).add(1, "x"), time.Time{}, false)
			return err
		}, nil, Restart},
		"enrolled anew": {func(n *Node, _ *sender) error {
			_, err := n.Append(newSender(t, 2).add(1, "x"), now.Add(time.Hour), false)
			return err
		}, nil, ""},
		"entries are lost": {func(n *Node, s *sender) error {
			s.add(10, "event")
			_, err := n.Append(s.from(15, 5), time.Time{}, true)
			return err
		}, nil, Hole},
		"signed another":    {func(n *Node, _ *sender) error { return n.Signed(&Statement{Position: other().before[7]}) }, nil, Fork},
		"signed and agreed": {func(n *Node, s *sender) error { return n.Signed(&Statement{Position: s.before[7]}) }, nil, ""},
		"signed less": {func(n *Node, s *sender) error {
			return errors.Join(n.Signed(&Statement{Position: s.at}), n.Signed(&Statement{Position: s.before[7]}))
		}, nil, Rollback},
		"signed, and sent another": {func(n *Node, s *sender) error {
			signed := other().before[14]
			s.add(10, "event")
			_, err := n.Append(s.from(10, 10), time.Time{}, false)
			return errors.Join(n.Signed(&Statement{Position: signed}), err)
		}, nil, Fork},
		"signed before it came": {func(n *Node, s *sender) error {
			s.add(10, "event")
			err := n.Signed(&Statement{Position: s.before[15]})
			_, err2 := n.Append(s.from(10, 10), time.Time{}, false)
			return errors.Join(err, err2)
		}, nil, ""},
		"signed before another came": {func(n *Node, s *sender) error {
			s.add(10, "event")
			err := n.Signed(&Statement{Position: other().before[15]})
			_, err2 := n.Append(s.from(10, 10), time.Time{}, false)
			return errors.Join(err, err2)
		}, nil, Fork},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			a, n := openArchive(t, Options{Dir: dir})
			s := newSender(t, 1)
			mustAppend(t, n, s.add(10, "event"))
			if err := tt.act(n, s); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			a.Close()
			_, n = openArchive(t, Options{Dir: dir}) // findings survive
			st := n.State()
			got := ""
			if f := st.Open(); f != nil {
				got = f.Kind
			}
			if got != tt.kind {
				t.Errorf("finding %q, want %q: %+v", got, tt.kind, st.Findings)
			}
			if count, err := n.Accept("ann"); err != nil || (count > 0) != (tt.kind != "") {
				t.Errorf("Accept(): %d, %v", count, err)
			}
			if st := n.State(); st.Open() != nil {
				t.Errorf("an accepted finding is open still: %+v", st.Open())
			}
		})
	}
}

// TestRetention: what is left follows the head that was kept at the cut.
func TestRetention(t *testing.T) {
	dir := t.TempDir()
	a, n := openArchive(t, Options{Dir: dir, MaxBytes: 32 << 10, Segment: 4 << 10})
	s := newSender(t, 1)
	for range 600 {
		mustAppend(t, n, s.add(3, fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, len(s.entries))))))
	}
	cut := n.Cut()
	if cut.Seq == 0 || cut != s.before[cut.Seq] {
		t.Fatalf("Cut(): %v, want a position of the chain", cut)
	}
	if got := n.Bytes(); got > 32<<10+8<<10 {
		t.Errorf("%d bytes are kept, want at most about %d", got, 32<<10)
	}
	if got := bodies(t, n); uint64(len(got)) != s.at.Seq-cut.Seq {
		t.Errorf("%d entries are left behind %d of %d", len(got), cut.Seq, s.at.Seq)
	}
	for _, seq := range []uint64{cut.Seq, cut.Seq + 1, cut.Seq + 50, s.at.Seq - 1} {
		if head, ok := n.HeadAt(s.at.Chain, seq); !ok || head != s.before[seq].Head {
			t.Errorf("HeadAt(%d): %v, %v; want %v", seq, head, ok, s.before[seq].Head)
		}
	}
	if _, ok := n.HeadAt(s.at.Chain, cut.Seq-1); ok {
		t.Error("HeadAt() before the cut is known")
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*", "*"+compacted)); len(files) == 0 {
		t.Error("no segment was compacted")
	}
	a.Close()
	_, n = openArchive(t, Options{Dir: dir, MaxBytes: 32 << 10, Segment: 4 << 10})
	if n.Position() != s.at || n.Cut() != cut {
		t.Errorf("after opening again: %v from %v, want %v from %v", n.Position(), n.Cut(), s.at, cut)
	}
}

func TestFrom(t *testing.T) {
	_, n := openArchive(t, Options{Dir: t.TempDir()})
	s := newSender(t, 1)
	for range 5 {
		mustAppend(t, n, s.add(4, "event"))
	}
	for _, seq := range []int{0, 3, 4, 10, 19} {
		at := s.before[seq]
		err := n.From(context.Background(), at, func(p *Place) error {
			if p.Batch.Before != at {
				t.Errorf("From(%d): a batch at %v, want %v", seq, p.Batch.Before, at)
			}
			var err error
			at, err = p.Batch.End()
			return err
		})
		if err != nil || at != s.at {
			t.Errorf("From(%d): it ends at %v, %v; want %v", seq, at, err, s.at)
		}
	}
}

const crashDir = "ARCHIVE_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crashChild(dir)
		return
	}
	os.Exit(m.Run())
}

// crashChild sends without end, and tells what was acknowledged.
func crashChild(dir string) {
	t := &testing.T{}
	a, err := Open(Options{Dir: dir, Segment: 32 << 10, MaxBytes: 1 << 30})
	if err != nil {
		panic(err)
	}
	n, err := a.Node("worker-1")
	if err != nil {
		panic(err)
	}
	s := newSender(t, 1)
	s.add(int(n.Position().Seq), "event")
	for {
		at, err := n.Append(s.add(7, "event"), time.Time{}, false)
		if err != nil {
			panic(err)
		}
		fmt.Println(at.Seq)
	}
}

// TestKill9 kills AIAS in the middle of its writes: whatever it acknowledged is there, once, and the rest can be sent again.
func TestKill9(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 8 {
		cmd := exec.Command(exe, "-test.run=^$")
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		var printed bytes.Buffer
		cmd.Stdout = &printed
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(100+37*round)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		out := printed.Bytes()
		var acked, seq uint64
		for rest := string(out); ; {
			k, _ := fmt.Sscan(rest, &seq)
			if k != 1 {
				break
			}
			acked = max(acked, seq)
			_, rest, _ = cutLine(rest)
		}
		a, n := openArchive(t, Options{Dir: dir})
		got := bodies(t, n)
		if uint64(len(got)) < acked || uint64(len(got)) != n.Position().Seq {
			t.Fatalf("round %d: %d entries at %d, %d were acknowledged", round, len(got), n.Position().Seq, acked)
		}
		for i, b := range got {
			if b != fmt.Sprint("event ", i+1) {
				t.Fatalf("round %d: entry %d is %q", round, i+1, b)
			}
		}
		a.Close()
	}
}

func cutLine(s string) (string, string, bool) {
	for i := range s {
		if s[i] == '\n' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}
