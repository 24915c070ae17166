package source_test

import (
	"context"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/audittest"
	"touchstone.dev/touchstone/internal/audit/source"
)

// BenchmarkBesideAuditd causes 1000 events a second and tells what reading them takes of a core, and how late they come.
func BenchmarkBesideAuditd(b *testing.B) {
	const rate = 1000
	a := audittest.Start(b, audittest.Options{})
	file := watched(b, a, "ts-load")
	r, err := source.Open(b.Context(), source.Config{Log: a.Log})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	var late []time.Duration
	var used, elapsed time.Duration
	for b.Loop() {
		begin, before := time.Now(), usage(b, syscall.RUSAGE_SELF)
		loader := make(chan time.Duration)
		go func() {
			runtime.LockOSThread()
			for i := range rate {
				time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / rate)))
				open(b, file, 1)
			}
			loader <- usage(b, syscall.RUSAGE_THREAD)
		}()
		got := 0
		ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
		for got < rate {
			it, err := r.Next(ctx)
			if err != nil {
				b.Fatalf("got %d events of %d: %v", got, rate, err)
			}
			if it.Event != nil && len(it.Event.Keys()) > 0 {
				got++
				late = append(late, it.At.Sub(it.Event.ID.Time()))
			}
		}
		cancel()
		elapsed += time.Since(begin)
		used += usage(b, syscall.RUSAGE_SELF) - before - <-loader
	}
	slices.Sort(late)
	b.ReportMetric(100*used.Seconds()/elapsed.Seconds(), "%core")
	b.ReportMetric(float64(late[len(late)/2].Microseconds())/1000, "ms-median")
	b.ReportMetric(float64(late[len(late)*99/100].Microseconds())/1000, "ms-p99")
}

// usage is what the process or thread took of the cores.
func usage(tb testing.TB, who int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		tb.Error(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
