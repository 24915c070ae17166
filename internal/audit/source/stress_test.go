package source_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/internal/audit/audittest"
	"touchstone.dev/touchstone/internal/audit/source"
)

// TestAuditdKilledInBurst: auditd is killed in the middle of a load and started again. What its memory held is in no log; multicast had it.
func TestAuditdKilledInBurst(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	file := watched(t, a, "ts-load")
	r, err := source.Open(t.Context(), source.Config{Log: a.Log, Grace: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const n = 6000
	go func() { open(t, file, n) }()
	s := drain(t, r, 20*time.Second, func(s *seen) bool { return s.byKey["ts-load"] > n/4 })
	go func() {
		a.Kill()
		time.Sleep(300 * time.Millisecond)
		a.Run()
	}()
	before := s.byKey["ts-load"]
	more := drain(t, r, 40*time.Second, func(s *seen) bool { return before+s.byKey["ts-load"] == n })
	if got := before + more.byKey["ts-load"]; got != n {
		t.Errorf("got %d events of %d, gaps %+v", got, n, more.gaps)
	}
	more.once(t)
	for id := range s.events {
		if more.events[id] > 0 {
			t.Errorf("event %d came before and after", id)
		}
	}
	// What auditd is given when it is back is no news.
	late := drain(t, r, 7*time.Second, func(*seen) bool { return false })
	if late.byKey["ts-load"] > 0 || len(late.gaps) > 0 {
		t.Errorf("afterwards: %d events, gaps %+v", late.byKey["ts-load"], late.gaps)
	}
}

// TestSlowReceiver: nobody takes events while many come; then they are all there, though queue and socket are small.
func TestSlowReceiver(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	file := watched(t, a, "ts-load")
	r, err := source.Open(t.Context(), source.Config{Log: a.Log, Queue: 16, Buffer: 8192})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const n = 5000
	open(t, file, n)
	time.Sleep(500 * time.Millisecond)
	if got := r.Queued(); got > 16 {
		t.Errorf("%d items wait, want at most 16", got)
	}
	s := drain(t, r, 40*time.Second, func(s *seen) bool { return s.byKey["ts-load"] == n })
	if s.byKey["ts-load"] != n || s.partial > 0 || len(s.gaps) > 0 {
		t.Errorf("got %d events of %d, %d partial, gaps %+v", s.byKey["ts-load"], n, s.partial, s.gaps)
	}
	if missing := s.once(t); missing > 0 {
		t.Errorf("%d numbers are missing", missing)
	}
}

// TestHugeEvents: programs with megabytes of arguments cost the reader no more memory than it allows itself, and come whole.
func TestHugeEvents(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	a.Ctl("-a", "always,exit", "-F", "arch=b64", "-S", "execve", "-F", fmt.Sprintf("ppid=%d", os.Getpid()), "-k", "ts-exec")
	r, err := source.Open(t.Context(), source.Config{Log: a.Log})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const n = 30
	args := make([]string, 15)
	for i := range args {
		args[i] = strings.Repeat(" x", 60000)
	}
	for range n {
		if err := exec.Command("/bin/true", args...).Run(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Second)
	if got := r.Waiting(); got > 20<<20 {
		t.Errorf("%d bytes wait, want at most 20 MiB", got)
	}
	whole := 0
	drain(t, r, 30*time.Second, func(*seen) bool { return whole == n }, func(it source.Item) bool {
		if it.Event == nil || it.Event.Partial {
			return false
		}
		if argv, ok := it.Event.Argv(); ok && argv.Complete && len(argv.Args) == len(args)+1 && string(argv.Args[15]) == args[14] {
			whole++
		}
		return false
	})
	if whole != n {
		t.Errorf("got %d of %d programs with whole arguments", whole, n)
	}
}

// TestMulticastAlone: without a log an overrun is a gap, with the numbers that are missing.
func TestMulticastAlone(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	file := watched(t, a, "ts-load")
	r, err := source.Open(t.Context(), source.Config{Queue: 16, Buffer: 8192, Grace: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const n = 3000
	open(t, file, n)
	open(t, file, 1)
	s := drain(t, r, 8*time.Second, func(*seen) bool { return false })
	open(t, file, 1) // the end of the last hole
	more := drain(t, r, 6*time.Second, func(*seen) bool { return false })
	missing, overrun := uint64(0), false
	for _, g := range append(s.gaps, more.gaps...) {
		if g.Why == source.WhySerial {
			missing += g.Events
		}
		overrun = overrun || g.Why == source.WhyOverrun
	}
	got := uint64(len(s.events) + len(more.events))
	if !overrun || missing == 0 || got+missing < n {
		t.Errorf("got %d events and gaps of %d (overrun told: %v), want %d in all", got, missing, overrun, n)
	}
}

// TestOtherNetwork: in another network namespace the kernel sends nothing and says nothing. That is noticed, and the log has all.
func TestOtherNetwork(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	file := watched(t, a, "ts-load")
	opened := make(chan *source.Reader)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		r, err := source.Open(t.Context(), source.Config{Log: a.Log})
		if err != nil {
			t.Error(err)
		}
		opened <- r
	}()
	r := <-opened
	defer r.Close()
	open(t, file, 100)
	s := drain(t, r, 10*time.Second, func(s *seen) bool { return s.byKey["ts-load"] == 100 && slices.Contains(s.alarms, source.AlarmNoLive) })
	if s.byKey["ts-load"] != 100 || !slices.Contains(s.alarms, source.AlarmNoLive) {
		t.Errorf("got %d events of 100, alarms %v, want %s", s.byKey["ts-load"], s.alarms, source.AlarmNoLive)
	}
}

// TestCanceled: Next ends with its context, Close with everything running.
func TestCanceled(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	r, err := source.Open(t.Context(), source.Config{Log: a.Log, Queue: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		if _, err := r.Next(ctx); err != nil && err != context.Canceled {
			t.Errorf("Next: got %v, want %v", err, context.Canceled)
		}
	}
	done := make(chan struct{})
	go func() { r.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("Close hangs while nobody takes items")
	}
}
