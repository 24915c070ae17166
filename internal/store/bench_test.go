package store

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
)

// BenchmarkSaveSteady is the write of a steady attestation, with as many at a time as a fleet brings: they share transactions and fsyncs.
func BenchmarkSaveSteady(b *testing.B) {
	s, ctx := open(b), context.Background()
	nodes := make([]Node, 64)
	for i := range nodes {
		nodes[i] = enrol(b, s, fmt.Sprint("node-", i), byte(i+1))
	}
	document, jwt := bytes.Repeat([]byte{7}, 1500), string(bytes.Repeat([]byte{'j'}, 1400))
	var next, challenge atomic.Int64
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		n := nodes[next.Add(1)%int64(len(nodes))]
		for pb.Next() {
			u := step(n, challenge.Add(1))
			u.Verdict, u.Blobs, u.IMA, u.Change, u.Challenge = nil, nil, nil, nil, 0
			u.State.Checkpoint, u.State.Result, u.Evidence[0].Document = document[:300], jwt, document
			if _, err := s.Save(ctx, u); err != nil {
				b.Fatal(err)
			}
		}
	})
}
