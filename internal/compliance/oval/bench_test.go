package oval

import (
	"os"
	"syscall"
	"testing"
	"time"
)

func usage(p *os.ProcessState) *syscall.Rusage {
	u, _ := p.SysUsage().(*syscall.Rusage)
	return u
}

// BenchmarkFeed reads and evaluates a feed of 20,000 definitions, beside oscap in the same run.
func BenchmarkFeed(b *testing.B) {
	now := time.Now()
	feed, root := write(b, feedOf(20_000, 1500, now)), rootOf(b, 115)
	b.Run("touchstone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f, err := Load(feed, time.Hour, now)
			if err != nil {
				b.Fatal(err)
			}
			if r, err := f.Evaluate(root); err != nil || len(r.Findings) == 0 || r.Undecided > 0 {
				b.Fatal(r, err)
			}
		}
	})
	b.Run("oscap", func(b *testing.B) {
		for b.Loop() {
			_, took, rss := byOscap(b, feed, root)
			b.ReportMetric(took.Seconds(), "s")
			b.ReportMetric(float64(rss), "MiB-rss")
		}
	})
}
