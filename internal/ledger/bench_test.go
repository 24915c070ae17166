package ledger

import (
	"context"
	"testing"
)

// BenchmarkAppend is one writer that waits for each entry.
func BenchmarkAppend(b *testing.B) {
	l := open(b, b.TempDir(), newKeys(b))
	for b.Loop() {
		mustAppend(b, l, entry(1))
	}
}

// BenchmarkAppendStorm is 256 writers at once.
func BenchmarkAppendStorm(b *testing.B) {
	l := open(b, b.TempDir(), newKeys(b))
	b.SetParallelism(256)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := l.Append(context.Background(), entry(1)); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	const n = 10000
	dir, k := filled(b, n)
	r := reader(b, dir, k)
	cp := newest(b, r)
	for b.Loop() {
		if err := r.Verify(context.Background(), cp, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "µs/entry")
}
