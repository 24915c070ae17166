package source_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/audittest"
	"touchstone.dev/touchstone/internal/audit/record"
	"touchstone.dev/touchstone/internal/audit/source"
)

// watched makes a file whose opening is audited under the key.
func watched(t testing.TB, a *audittest.Auditd, key string) string {
	t.Helper()
	file := filepath.Join(a.Dir, key)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.Ctl("-a", "always,exit", "-F", "path="+file, "-F", "perm=r", "-k", key)
	return file
}

// open opens the file n times.
func open(t testing.TB, file string, n int) {
	for range n {
		fd, err := syscall.Open(file, syscall.O_RDONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		_ = syscall.Close(fd)
	}
}

// seen is what a Reader gave.
type seen struct {
	byKey    map[string]int
	events   map[uint64]int // by serial number, those of the kernel
	partial  int
	own      int
	gaps     []source.Gap
	alarms   []source.Alarm
	statuses int
	slowest  time.Duration
}

// drain reads until done says so of all, or one of each of an item, or the time is over.
func drain(t testing.TB, r *source.Reader, limit time.Duration, done func(*seen) bool, each ...func(source.Item) bool) *seen {
	t.Helper()
	s := &seen{byKey: map[string]int{}, events: map[uint64]int{}}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for !done(s) {
		it, err := r.Next(ctx)
		if err != nil {
			break
		}
		s.take(it)
		for _, f := range each {
			if f(it) {
				return s
			}
		}
	}
	return s
}

func (s *seen) take(it source.Item) {
	switch {
	case it.Gap != nil:
		s.gaps = append(s.gaps, *it.Gap)
	case it.Status != nil:
		s.statuses++
		s.alarms = append(s.alarms, it.Status.Alarms...)
	default:
		e := it.Event
		if e.Records[0].Type.Origin() != record.OriginDaemon {
			s.events[e.ID.Serial]++
		}
		if e.Partial {
			s.partial++
		}
		if it.Own {
			s.own++
		}
		for _, key := range e.Keys() {
			s.byKey[string(key)]++
		}
		s.slowest = max(s.slowest, it.At.Sub(e.ID.Time()))
	}
}

// once reports numbers that came twice, and says how many are missing between the first and the last.
func (s *seen) once(t *testing.T) (missing int) {
	t.Helper()
	var all []uint64
	for n, times := range s.events {
		all = append(all, n)
		if times != 1 {
			t.Errorf("event %d came %d times", n, times)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return int(all[len(all)-1]-all[0]) + 1 - len(all)
}

// TestBesideAuditd: at the most that auditd can write, nothing is lost and nothing comes twice, though the socket is far too small: the
// log fills in. auditd is not disturbed.
func TestBesideAuditd(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	file := watched(t, a, "ts-load")
	for _, test := range []struct {
		name   string
		buffer int
		live   bool
	}{{"large buffer", 0, true}, {"small buffer", 4096, false}} {
		r, err := source.Open(t.Context(), source.Config{Log: a.Log, Buffer: test.buffer})
		if err != nil {
			t.Fatal(err)
		}
		const n = 10000
		begin := time.Now()
		go func() { open(t, file, n/2) }()
		go func() { open(t, file, n/2) }()
		s := drain(t, r, time.Minute, func(s *seen) bool { return s.byKey["ts-load"] == n })
		took := time.Since(begin)
		r.Close()
		if s.byKey["ts-load"] != n || s.partial > 0 || len(s.gaps) > 0 {
			t.Errorf("%s: got %d events of %d, %d partial, gaps %+v", test.name, s.byKey["ts-load"], n, s.partial, s.gaps)
		}
		if missing := s.once(t); missing > 0 {
			t.Errorf("%s: %d numbers are missing", test.name, missing)
		}
		if s.own == 0 {
			t.Errorf("%s: our own listening was not told apart", test.name)
		}
		t.Logf("%s: %.0f events/s, slowest %v", test.name, n/took.Seconds(), s.slowest)
	}
	if status, err := source.Ask(); err != nil || status.Lost != 0 && status.PID != uint32(a.PID()) {
		t.Errorf("after it: %+v, %v, want auditd as it was", status, err)
	}
}

// TestRestartsExactlyOnce: a reader is thrown away again and again in the middle of a load, and another goes on from its last commit.
func TestRestartsExactlyOnce(t *testing.T) {
	a := audittest.Start(t, audittest.Options{MaxLogMB: 1, NumLogs: 50})
	file := watched(t, a, "ts-load")
	cfg := source.Config{Log: a.Log, Checkpoint: filepath.Join(t.TempDir(), "checkpoint")}
	const n = 8000
	total := &seen{byKey: map[string]int{}, events: map[uint64]int{}}
	loaded := make(chan struct{})
	for round := 1; total.byKey["ts-load"] < n && round < 20; round++ {
		r, err := source.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if round == 1 {
			time.Sleep(300 * time.Millisecond) // the log is open: what is before it is not asked for
			go func() { open(t, file, n); close(loaded) }()
		}
		var batch []source.Item
		keep := func() {
			for _, it := range batch {
				total.take(it)
			}
			batch = nil
			if err := r.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		for round > 6 || total.byKey["ts-load"] < round*1000 {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			it, err := r.Next(ctx)
			cancel()
			if err != nil {
				keep()
				break
			}
			if batch = append(batch, it); len(batch) == 500 {
				keep()
			}
		}
		for range 100 { // handed out and not committed: as if the receiver was killed
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
			_, _ = r.Next(ctx)
			cancel()
		}
		r.Close()
	}
	<-loaded
	if total.byKey["ts-load"] != n || total.partial > 0 {
		t.Errorf("got %d events of %d, %d partial, gaps %+v", total.byKey["ts-load"], n, total.partial, total.gaps)
	}
	total.once(t)
	if rotated, _ := filepath.Glob(a.Log + ".*"); len(rotated) < 2 {
		t.Errorf("auditd rotated %d times: the test wants more", len(rotated))
	}
}

// TestAlarms: what somebody does to audit is known within seconds, and events go on while auditd is dead.
func TestAlarms(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	file := watched(t, a, "ts-load")
	r, err := source.Open(t.Context(), source.Config{Log: a.Log})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	wait := func(want source.Alarm) *seen {
		t.Helper()
		begin := time.Now()
		s := drain(t, r, 8*time.Second, func(s *seen) bool { return slices.Contains(s.alarms, want) })
		if !slices.Contains(s.alarms, want) {
			t.Errorf("no alarm %s within 8 s, but %v", want, s.alarms)
		}
		t.Logf("%s after %v", want, time.Since(begin).Round(10*time.Millisecond))
		return s
	}
	drain(t, r, 3*time.Second, func(s *seen) bool { return s.statuses > 0 })
	a.Ctl("-w", a.Dir, "-p", "wa", "-k", "ts-other")
	wait(source.AlarmRules)
	a.Ctl("-e", "0")
	wait(source.AlarmDisabled)
	a.Ctl("-e", "1")
	wait(source.AlarmEnabled)
	a.Kill()
	open(t, file, 100)
	s := wait(source.AlarmGone)
	more := drain(t, r, 5*time.Second, func(more *seen) bool { return s.byKey["ts-load"]+more.byKey["ts-load"] >= 100 })
	if got := s.byKey["ts-load"] + more.byKey["ts-load"]; got != 100 {
		t.Errorf("while auditd was dead: got %d events, want 100", got)
	}
	a.Run()
	s = wait(source.AlarmChanged)
	more = drain(t, r, 3*time.Second, func(*seen) bool { return false })
	if got := s.byKey["ts-load"] + more.byKey["ts-load"]; got != 0 {
		t.Errorf("auditd was given what waited for it, and %d events came twice", got)
	}
}

// TestNoLog: without a log multicast does, and the alarm comes with what the kernel says. A log that appears later is read.
func TestNoLog(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	file := watched(t, a, "ts-load")
	elsewhere := filepath.Join(t.TempDir(), "audit.log")
	r, err := source.Open(t.Context(), source.Config{Log: elsewhere})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var alarm *source.Status
	open(t, file, 10)
	s := drain(t, r, 10*time.Second, func(s *seen) bool { return alarm != nil && s.byKey["ts-load"] == 10 }, func(it source.Item) bool {
		if it.Status != nil && slices.Contains(it.Status.Alarms, source.AlarmNoLog) {
			alarm = it.Status
		}
		return false
	})
	if s.byKey["ts-load"] != 10 || alarm == nil || alarm.Err == "" || alarm.Enabled != 1 || alarm.PID != uint32(a.PID()) {
		t.Fatalf("got %d events of 10, alarm %+v", s.byKey["ts-load"], alarm)
	}
	daemon := "type=DAEMON_ROTATE msg=audit(1795528830.746:9441): op=rotate\n"
	if err := os.WriteFile(elsewhere, []byte(daemon), 0o600); err != nil {
		t.Fatal(err)
	}
	found := false
	drain(t, r, 10*time.Second, func(*seen) bool { return found }, func(it source.Item) bool {
		found = found || it.Event != nil && it.Event.ID.Serial == 9441
		return found
	})
	if !found {
		t.Error("a log that appeared was not read")
	}
}

// TestKernelLoses: what the kernel throws away shows as a gap with the kernel's count.
func TestKernelLoses(t *testing.T) {
	a := audittest.Start(t, audittest.Options{Backlog: 64})
	a.Ctl("--backlog_wait_time", "0")
	file := watched(t, a, "ts-load")
	r, err := source.Open(t.Context(), source.Config{Log: a.Log, Grace: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	drain(t, r, 3*time.Second, func(s *seen) bool { return s.statuses > 0 })
	before, err := source.Ask()
	if err != nil {
		t.Fatal(err)
	}
	open(t, file, 20000)
	after, err := source.Ask()
	if err != nil || after.Lost == before.Lost {
		t.Fatalf("the kernel lost nothing: %+v, %v", after, err)
	}
	counted := func(s *seen) (n uint64) {
		for _, g := range s.gaps {
			if g.Why == source.WhyKernel {
				n += g.Events
			}
		}
		return n
	}
	want := uint64(after.Lost - before.Lost)
	s := drain(t, r, 15*time.Second, func(s *seen) bool { return counted(s) >= want })
	if got := counted(s); got != want || !slices.Contains(s.alarms, source.AlarmLost) {
		t.Errorf("gaps tell of %d lost records, the kernel of %d; alarms %v", got, want, s.alarms)
	}
	s = drain(t, r, 6*time.Second, func(s *seen) bool { return s.partial > 0 })
	s.once(t)
}
