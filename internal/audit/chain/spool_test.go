package chain

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func openSpool(t testing.TB, opt Options) *Spool {
	t.Helper()
	if opt.Commit == 0 {
		opt.Commit = time.Millisecond
	}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func eventID(i int) string { return fmt.Sprintf("1795000336.990:%d", i) }

func addEvent(s *Spool, i, size int) {
	body := fmt.Appendf(nil, "type=SYSCALL msg=audit(%s): pad=", eventID(i))
	s.Add(append(body, bytes.Repeat([]byte{'x'}, size)...), Context{}, eventID(i))
}

// everything reads a spool behind seq, and checks that it hangs together.
func everything(t testing.TB, s *Spool, seq uint64) (before Position, entries []Entry) {
	t.Helper()
	for first := true; ; first = false {
		b, err := s.Read(seq, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		if first {
			before = b.Before
		}
		if len(b.Entries) == 0 {
			if b.Before != s.Head() {
				t.Fatalf("the last Read ends at %v, the spool at %v", b.Before, s.Head())
			}
			return before, entries
		}
		end, err := b.End()
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range b.Entries {
			e, err := Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			entries = append(entries, e)
		}
		seq = end.Seq
	}
}

// account checks that events 1 to n are there, each once and in order, or covered by a gap at its place; it returns how many are missing.
func account(t testing.TB, entries []Entry, n int) (missing int) {
	t.Helper()
	next := 1
	for _, e := range entries {
		switch e.Kind {
		case KindEvent:
			id := EventID(e.Body)
			if id != eventID(next) {
				t.Fatalf("entry %d is event %s, want %s", e.Seq, id, eventID(next))
			}
			next++
		case KindGap:
			var g Gap
			if err := DecodeBody(e.Body, &g); err != nil {
				t.Fatal(err)
			}
			if g.First != eventID(next) {
				t.Fatalf("entry %d is a gap from %s, want %s", e.Seq, g.First, eventID(next))
			}
			last, err := strconv.Atoi(g.Last[strings.LastIndexByte(g.Last, ':')+1:])
			if err != nil || uint64(last-next+1) != g.Events && !g.AtLeast {
				t.Fatalf("entry %d is a gap %+v from %d: its numbers do not fit", e.Seq, g, next)
			}
			missing += last - next + 1
			next = last + 1
		}
	}
	if next != n+1 {
		t.Fatalf("events end before %d, want %d", next, n+1)
	}
	return missing
}

func TestSpoolKeepsAndTrims(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, Options{Dir: dir, MaxBytes: 4 << 20, Segment: 64 << 10})
	for i := range 1000 {
		addEvent(s, i+1, 500)
		if i%100 == 0 {
			_ = s.Sync()
		}
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	head := s.Head()
	_, all := everything(t, s, 0)
	if missing := account(t, all, 1000); missing != 0 {
		t.Errorf("%d events are missing", missing)
	}
	if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("Open() while it is open: got %v", err)
	}
	s.Ack(700)
	if s.Oldest() == 0 || s.Oldest() > 700 {
		t.Errorf("after Ack(700) the spool begins behind %d", s.Oldest())
	}
	s.Keep(100)
	oldest := s.Oldest()
	s.Ack(1000)
	if s.Oldest() != oldest {
		t.Errorf("entries behind %d are gone in spite of Keep(100)", s.Oldest())
	}
	s.Keep(1000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openSpool(t, Options{Dir: dir, MaxBytes: 4 << 20, Segment: 64 << 10})
	if s.Head() != head || s.last != eventID(1000) {
		t.Errorf("after opening again: head %v and last event %s, want %v and %s", s.Head(), s.last, head, eventID(1000))
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*", "*.seg")); len(files) != 1 {
		t.Errorf("%d segments after all was acknowledged, want 1", len(files))
	}
	addEvent(s, 1001, 10)
	if err := s.Sync(); err != nil || s.Head().Seq != 1001 {
		t.Errorf("the chain goes on at %d, %v; want 1001", s.Head().Seq, err)
	}
}

// TestSpoolFull: what finds no room is a gap with its number and range, at its place, and the oldest entries stay.
func TestSpoolFull(t *testing.T) {
	dir := t.TempDir()
	opt := Options{Dir: dir, MaxBytes: minSpool, Segment: 32 << 10}
	s := openSpool(t, opt)
	for i := range 3000 {
		addEvent(s, i+1, 1000)
		if i%20 == 0 {
			_ = s.Sync()
		}
	}
	if err := s.Sync(); err == nil {
		t.Error("Sync() of a full spool: got nil, want an error")
	}
	if used, limit := s.used(), s.opt.MaxBytes; used > limit {
		t.Errorf("the spool has %d bytes, at most %d", used, limit)
	}
	if g := s.Missing(); g.Why != GapSpoolFull || g.Last != eventID(3000) {
		t.Errorf("Missing(): got %+v", g)
	}
	s.mu.Lock()
	ended := s.gap.Events
	s.mu.Unlock()
	_ = s.Close()
	s = openSpool(t, opt) // what is missing survives
	if g := s.Missing(); g.Why != GapSpoolFull || g.Events == 0 || g.Events > ended {
		t.Errorf("Missing() after opening again: got %+v, want about %d events", g, ended)
	}
	var all []Entry
	for i := 3001; i <= 4000; i++ {
		b, err := s.Read(s.Acked(), 32<<10)
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range b.Entries {
			e, _ := Parse(raw)
			all = append(all, e)
		}
		s.Ack(b.Before.Seq + uint64(len(b.Entries)))
		addEvent(s, i, 1000)
		_ = s.Sync()
	}
	_, rest := everything(t, s, s.Acked())
	all = append(all, rest...)
	for i := range all {
		if all[i].Seq != uint64(i+1) {
			t.Fatalf("entry %d at the place of %d", all[i].Seq, i+1)
		}
	}
	if missing := account(t, all, 4000); missing == 0 {
		t.Error("no event is missing: the spool was never full")
	}
}

// TestSpoolTornTail: a write that was cut short at any byte costs its own entry and no other.
func TestSpoolTornTail(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, Options{Dir: dir})
	for i := range 3 {
		addEvent(s, i+1, 20)
	}
	_ = s.Sync()
	before := s.Head()
	path := s.segments[0].path
	whole := s.segments[0].size
	addEvent(s, 4, 20)
	_ = s.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := whole; n < int64(len(data)); n++ {
		if err := os.WriteFile(path, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		s := openSpool(t, Options{Dir: dir})
		if s.Head() != before {
			t.Fatalf("%d of %d bytes: head %v, want %v", n, len(data), s.Head(), before)
		}
		_ = s.Close()
	}
}

// TestSpoolDamage: a segment that went bad costs its entries, which Read does not pass over in silence.
func TestSpoolDamage(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, Options{Dir: dir, MaxBytes: 1 << 20, Segment: 8 << 10})
	for i := range 100 {
		addEvent(s, i+1, 500)
		_ = s.Sync()
	}
	bad := s.segments[2]
	next := s.segments[3].before
	data, _ := os.ReadFile(bad.path)
	data[len(data)/2] ^= 1
	if err := os.WriteFile(bad.path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := s.Read(bad.before.Seq, 1<<20)
	if err != nil || b.Before != next || len(b.Entries) == 0 {
		t.Errorf("Read() of a damaged segment: got entries behind %v, %v; want behind %v", b.Before, err, next)
	}
}

func TestSpoolRenew(t *testing.T) {
	dir := t.TempDir()
	s := openSpool(t, Options{Dir: dir, MaxBytes: 1 << 20, Segment: 8 << 10})
	for i := range 100 {
		addEvent(s, i+1, 500)
	}
	_ = s.Sync()
	old := s.Head()
	s.Ack(40)
	if err := s.Renew("test"); err != nil {
		t.Fatal(err)
	}
	addEvent(s, 101, 500)
	_ = s.Close()
	s = openSpool(t, Options{Dir: dir, MaxBytes: 1 << 20, Segment: 8 << 10})
	before, all := everything(t, s, 0)
	if before.Chain == old.Chain || before != Start(before.Chain) {
		t.Errorf("the new chain begins at %v", before)
	}
	var b Begin
	if err := DecodeBody(all[0].Body, &b); err != nil || b.Seq != old.Seq || !bytes.Equal(b.Previous, old.Head[:]) || b.Why != "test" {
		t.Errorf("its first entry is %+v, %v", b, err)
	}
	if got := len(all) - 1; got != 61 || EventID(all[1].Body) != eventID(41) || EventID(all[61].Body) != eventID(101) {
		t.Errorf("%d events were taken over, want 41 to 101", got)
	}
	if dirs, _ := filepath.Glob(filepath.Join(dir, "*", "*.seg")); len(dirs) == 0 || filepath.Dir(dirs[0]) != s.dir {
		t.Errorf("the old chain is still there: %v", dirs)
	}
}

func TestSpoolWait(t *testing.T) {
	s := openSpool(t, Options{Dir: t.TempDir()})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	go addEvent(s, 1, 10)
	if err := s.Wait(ctx, 0); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := s.Wait(ctx, s.Head().Seq); err == nil {
		t.Error("Wait() behind the end: got nil, want an error")
	}
}

func BenchmarkAdd(b *testing.B) {
	s := openSpool(b, Options{Dir: b.TempDir(), MaxBytes: 1 << 40})
	body := bytes.Repeat([]byte("x"), 850)
	b.SetBytes(850)
	for b.Loop() {
		s.Add(body, someContext, "1795000336.990:1")
		if h := s.Head().Seq; h > 100000 {
			s.Ack(h)
		}
	}
}
