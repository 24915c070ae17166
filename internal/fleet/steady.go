package fleet

import (
	"bufio"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"touchstone.dev/touchstone/internal/protocol"
)

// pause is how long one place stands still after an error, so that a fleet that is refused does not spin.
const pause = 20 * time.Millisecond

// tally is what one goroutine counted.
type tally struct {
	took    []time.Duration // of each answered attestation
	trusted int
	errors  map[string]int
	resumed int // connections that were opened with a resumed session
	opened  int
}

// steady is the measured part: all nodes take turns until the time is over.
func (f *fleet) steady(ctx context.Context) error {
	queue := make(chan *node, len(f.nodes))
	for _, n := range f.nodes {
		queue <- n
	}
	pace := rate.NewLimiter(rate.Inf, 1)
	if f.Rate > 0 {
		pace = rate.NewLimiter(rate.Limit(f.Rate), max(1, int(f.Rate/100)))
	}
	inner, cancel := context.WithTimeout(ctx, f.Duration)
	defer cancel()
	tallies := make([]tally, f.InFlight)
	var wg sync.WaitGroup
	var elapsed atomic.Int64
	stop := f.watch("attest", &elapsed, int64(f.Duration/time.Second))
	mark := f.mark()
	for i := range tallies {
		wg.Go(func() {
			t := &tallies[i]
			t.errors = map[string]int{}
			r := bufio.NewReaderSize(nil, readBuffer)
			for pace.Wait(inner) == nil {
				n := <-queue
				f.one(ctx, n, r, t)
				if !n.keeps {
					n.wire.close()
				}
				queue <- n
				elapsed.Store(int64(time.Since(mark.at) / time.Second))
			}
		})
	}
	wg.Wait()
	spent := f.since(mark)
	stop()
	if err := ctx.Err(); err != nil {
		return err
	}
	f.report.sum(tallies, spent)
	var err error
	f.report.Memory.After, err = f.memory(ctx)
	f.report.Memory.divide(&f.report)
	return err
}

// one is one attestation of the measured part.
func (f *fleet) one(ctx context.Context, n *node, r *bufio.Reader, t *tally) {
	was := n.wire.conn
	start := time.Now()
	a, err := n.attest(ctx, r, load{entries: f.NewEntries, full: f.Full})
	took := time.Since(start)
	if n.wire.conn != was && n.wire.conn != nil {
		t.opened++
		if n.wire.resumed {
			t.resumed++
		}
	}
	var p *protocol.Problem
	switch {
	case errors.As(err, &p):
		t.errors[kind(p)]++
		if p.Challenge != nil {
			n.next = *p.Challenge
		}
	case err != nil && ctx.Err() != nil:
	case err != nil:
		t.errors["connection"]++
		n.wire.close()
	case !a.Trusted:
		t.errors["not trusted"]++
		t.took = append(t.took, took)
	default:
		t.trusted++
		t.took = append(t.took, took)
	}
	if err != nil {
		time.Sleep(pause)
	}
}

// kind is the last word of a problem's type: "stale-challenge".
func kind(p *protocol.Problem) string {
	if i := strings.LastIndexByte(p.Type, ':'); i >= 0 {
		return p.Type[i+1:]
	}
	return p.Title
}

// mark is a moment, with the CPU that was used until then.
type mark struct {
	at        time.Time
	aias, own time.Duration
}

func (f *fleet) mark() mark {
	m := mark{at: time.Now(), own: ownCPU()}
	if f.server != nil {
		m.aias, _ = cpuOf(f.server.cmd.Process.Pid) // 0 when AIAS is gone: its errors tell
	}
	return m
}

// spent is the time between two marks.
type spent struct{ wall, aias, own time.Duration }

func (f *fleet) since(m mark) spent {
	n := f.mark()
	return spent{n.at.Sub(m.at), n.aias - m.aias, n.own - m.own}
}

// percentile returns the value that p of 100 are not above (nearest rank); sorted is ascending.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(1, (len(sorted)*p+99)/100)-1]
}

// sum makes the report of the measured part.
func (r *Report) sum(tallies []tally, s spent) {
	var took []time.Duration
	r.Errors = map[string]int{}
	for i := range tallies {
		t := &tallies[i]
		took = append(took, t.took...)
		r.Trusted += t.trusted
		r.Opened += t.opened
		r.Resumed += t.resumed
		for k, n := range t.errors {
			r.Errors[k] += n
		}
	}
	slices.Sort(took)
	r.Attestations = len(took)
	r.Steady = s.costs(len(took))
	r.Latency = Latency{P50: millis(percentile(took, 50)), P95: millis(percentile(took, 95)), P99: millis(percentile(took, 99)), Max: millis(percentile(took, 100))}
	r.OK = r.Trusted > 0 && r.Trusted == r.Attestations && len(r.Errors) == 0
}
