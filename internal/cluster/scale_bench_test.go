package cluster

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
)

// parallel calls fn for 0 to n-1.
func parallel(n int, fn func(int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range next {
				fn(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// writes sums the writes to the API server.
func writes(b *testing.B, r *prometheus.Registry) float64 {
	b.Helper()
	families, err := r.Gather()
	if err != nil {
		b.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == "trust_controller_writes_total" {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// BenchmarkThousandNodes: 1,000 nodes and 5,000 pods. It reports the heap of controller, test and AIAS together; how long it takes until all take pods, and until all
// is told; writes for one round of results in the steady state; the time from a verdict to the taint then; and how long it takes until 600 that fall at once take no pods, and all is told.
func BenchmarkThousandNodes(b *testing.B) {
	const nodes, pods = 1000, 5000
	w := newWorld(b)
	w.account()
	w.class("regulated", 0)
	seen := watch(w, nil)
	name := func(i int) string { return fmt.Sprintf("n%04d", i) }
	parallel(nodes, func(i int) { w.node(name(i)) })
	parallel(pods, func(i int) {
		w.pod(fmt.Sprintf("p%04d", i), name(i%nodes), "", func(p *corev1.Pod) {
			for k := range 20 {
				p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("VARIABLE_%d", k), Value: strings.Repeat("x", 50)})
			}
		})
	})
	registry, figures := prometheus.NewRegistry(), map[string]float64{}
	report := func(v float64, unit string) { figures[unit] = v } // the loop would forget what was reported before it
	for i := range nodes {
		w.aias.say(w.aias.trusted(name(i)))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	w.run(func(o *Options) { o.Registry = registry })
	w.eventually("all take pods", func() bool { return seen.opened() == nodes })
	report(time.Since(start).Seconds(), "s/all-opened")
	w.eventually("all are trusted", func() bool { return seen.trusted() == nodes })
	report(time.Since(start).Seconds(), "s/all-trusted")
	time.Sleep(5 * time.Second)
	runtime.GC()
	runtime.ReadMemStats(&after)
	report(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB-heap")
	report(float64(after.Sys)/(1<<20), "MiB-from-system")
	was := writes(b, registry)
	report(was, "writes/first-round")
	for i := range nodes { // what a minute brings
		w.aias.say(w.aias.trusted(name(i)))
	}
	time.Sleep(3 * time.Second)
	report(writes(b, registry)-was, "writes/steady-round")
	for b.Loop() {
		w.aias.say(w.aias.trusted(name(0), fallen(5, "miner")))
		took := w.eventually("tainted", func() bool { return strings.Contains(taints(w.get(name(0))), "NoExecute") })
		report(float64(took.Milliseconds()), "ms/fall")
		w.aias.say(w.aias.trusted(name(0)))
		w.isTrusted(name(0), true)
	}
	was = writes(b, registry)
	start = time.Now()
	for i := range 600 {
		w.aias.say(w.aias.trusted(name(i), fallen(4, "bad policy")))
	}
	w.eventually("placement is closed on all", func() bool { return seen.closed() == 600 })
	report(time.Since(start).Seconds(), "s/600-closed")
	report(writes(b, registry)-was, "writes/600-closed")
	w.eventually("600 are held, nothing is removed, all is told", func() bool {
		return seen.told() == 600 && seen.removed() == 0 && w.enforcement().Status.HeldNodes == 600
	})
	report(time.Since(start).Seconds(), "s/600-told")
	for unit, v := range figures {
		b.ReportMetric(v, unit)
	}
}
