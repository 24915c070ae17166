package audit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/record"
	"touchstone.dev/touchstone/internal/operator"
)

// act makes an event that can be told from all others.
func (w *world) act(n int) {
	if err := os.Mkdir(filepath.Join(w.folder, strconv.Itoa(n)), 0o700); err != nil {
		w.t.Error(err)
	}
}

// number finds which act an event is of; false when it is of none.
func (w *world) number(e *chain.Entry) (int, bool) {
	if e.Kind != chain.KindEvent {
		return 0, false
	}
	ev, err := record.Parse(e.Body)
	if err != nil || len(ev.Keys()) == 0 || string(ev.Keys()[0]) != key {
		return 0, false
	}
	for _, p := range ev.Paths() {
		if n, err := strconv.Atoi(filepath.Base(string(p.Name))); err == nil && string(p.Kind) == "CREATE" {
			return n, true
		}
	}
	return 0, false
}

// events calls fn with the entries that AIAS has, or gets.
func (w *world) events(ctx context.Context, follow bool, fn func(*chain.Entry)) error {
	q := operator.AuditQuery{Follow: follow}
	return w.client.AuditEvents(ctx, node, q, func(_ time.Time, b *chain.Batch) error {
		for _, raw := range b.Entries {
			e, err := chain.Parse(raw)
			if err != nil {
				return err
			}
			fn(&e)
		}
		return nil
	})
}

func (w *world) chained() bool {
	r, err := w.client.Audit(context.Background(), node)
	return err == nil && r.Stated != nil && r.At.Seq > 0
}

// TestAudit is the life of a worker: events come quickly and once, also when everything is killed in the middle of a burst; a chain that is put
// back is found out.
func TestAudit(t *testing.T) {
	w := newWorld(t)
	w.wait("the first statement and entries", time.Minute, w.chained)
	next := w.latency()
	next = w.load(next)
	next = w.burst(next)
	w.account(next)
	if out, code := w.touchstone("audit", "verify", node); code != 0 {
		t.Errorf("audit verify: exit code %d:\n%s", code, out)
	} else {
		t.Log(out[:min(len(out), 1500)])
	}
	if out, code := w.touchstone("audit", "search", node, "--key", key, "--text", filepath.Join(w.folder, "3")+" "); code != 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("audit search: exit code %d, want one line:\n%s", code, out[:min(len(out), 2000)])
	}
	w.putBack(next)
}

// latency measures from the system call to the operator at AIAS.
func (w *world) latency() (next int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen := make(chan int, 1000)
	go func() {
		_ = w.events(ctx, true, func(e *chain.Entry) {
			if n, ok := w.number(e); ok {
				seen <- n
			}
		})
	}()
	time.Sleep(time.Second)
	var took []time.Duration
	for n := range 30 {
		start := time.Now()
		w.act(n)
		select {
		case got := <-seen:
			if got != n {
				w.t.Fatalf("event %d came, want %d", got, n)
			}
		case <-time.After(10 * time.Second):
			w.t.Fatalf("event %d did not come", n)
		}
		took = append(took, time.Since(start))
		time.Sleep(50 * time.Millisecond)
	}
	slices.Sort(took)
	w.t.Logf("from the system call to AIAS and a reader there: median %v, worst %v", took[len(took)/2], took[len(took)-1])
	return 30
}

// load measures what the agent takes of a core at 1000 events a second.
func (w *world) load(next int) int {
	before, start := w.agentCPU(), time.Now()
	for i := range 5000 {
		w.act(next)
		next++
		time.Sleep(time.Until(start.Add(time.Duration(i) * time.Millisecond)))
	}
	took := time.Since(start)
	w.wait("the events of the load", time.Minute, func() bool { return w.count() >= next })
	w.t.Logf("%d events in %v: the agent took %.1f %% of a core", 5000, took.Round(time.Millisecond), 100*(w.agentCPU()-before).Seconds()/took.Seconds())
	return next
}

// agentCPU is what the agent's process took.
func (w *world) agentCPU() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.agent.Process.Pid))
	if err != nil {
		w.t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// count is how many acts AIAS has.
func (w *world) count() int {
	n := 0
	_ = w.events(context.Background(), false, func(e *chain.Entry) {
		if _, ok := w.number(e); ok {
			n++
		}
	})
	return n
}

// burst acts while agent, auditd and AIAS are killed.
func (w *world) burst(next int) int {
	stop := make(chan struct{})
	var acting sync.WaitGroup
	acting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			w.act(next)
			next++
			if next%20 == 0 {
				time.Sleep(15 * time.Millisecond)
			}
		}
	})
	for round := range 5 {
		time.Sleep(700 * time.Millisecond)
		w.killAgent()
		time.Sleep(time.Duration(100+150*round) * time.Millisecond)
		w.startAgent()
		time.Sleep(800 * time.Millisecond)
		switch round {
		case 1:
			w.auditd.Kill()
			time.Sleep(200 * time.Millisecond)
			w.auditd.Run()
		case 2, 3:
			w.killAIAS()
			time.Sleep(300 * time.Millisecond)
			w.startAIAS()
		}
	}
	close(stop)
	acting.Wait()
	return next
}

// account checks that each act is at AIAS exactly once, or that gaps name as many as are missing.
func (w *world) account(total int) {
	w.t.Helper()
	last, since := -1, time.Now()
	w.wait("quiet", 2*time.Minute, func() bool {
		if n := w.count(); n != last {
			last, since = n, time.Now()
		}
		return last >= total || time.Since(since) > 45*time.Second
	})
	seen := map[int]int{}
	var gaps, named uint64
	_ = w.events(context.Background(), false, func(e *chain.Entry) {
		if n, ok := w.number(e); ok {
			seen[n]++
		}
		var g chain.Gap
		if e.Kind == chain.KindGap && chain.DecodeBody(e.Body, &g) == nil {
			gaps++
			named += g.Events
			w.t.Logf("gap: %+v", g)
		}
	})
	missing, twice := 0, 0
	for n := range total {
		switch {
		case seen[n] == 0:
			missing++
		case seen[n] > 1:
			twice++
		}
	}
	w.t.Logf("%d events, %d missing, %d twice, %d gaps that name %d", total, missing, twice, gaps, named)
	if twice > 0 {
		w.t.Errorf("%d events are there twice", twice)
	}
	if missing > 0 && (gaps == 0 || named < uint64(missing)) {
		w.t.Errorf("%d events are missing, %d gaps name %d", missing, gaps, named)
	}
}

// putBack puts an older spool in the place of the present one, as who wants to hide something would.
func (w *world) putBack(next int) {
	spool, copyOf := filepath.Join(w.dir, "state", "audit"), filepath.Join(w.dir, "copy")
	w.killAgent()
	out, err := exec.Command("cp", "-a", spool, copyOf).CombinedOutput()
	if err != nil {
		w.t.Fatalf("copy the spool: %v: %s", err, out)
	}
	w.startAgent()
	for range 50 {
		w.act(next)
		next++
	}
	w.wait("the events that are to be hidden", time.Minute, func() bool { return w.count() >= next })
	w.killAgent()
	must(w.t, os.RemoveAll(spool))
	must(w.t, os.Rename(copyOf, spool))
	w.startAgent()
	w.wait("the finding", time.Minute, func() bool {
		r, err := w.client.Audit(context.Background(), node)
		return err == nil && len(r.Findings) > 0
	})
	var text string
	w.wait("the verdict", time.Minute, func() bool {
		text, _ = w.touchstone("why", node)
		return strings.Contains(text, "runtime.audit-chain")
	})
	if n, err := w.client.Node(context.Background(), node); err != nil || n.Trust == "trusted" {
		w.t.Errorf("a worker that hides its past: %+v, %v", n, err)
	}
	if out, code := w.touchstone("audit", "verify", node); code == 0 {
		w.t.Errorf("audit verify finds nothing:\n%s", out)
	} else {
		w.t.Log(out[max(0, len(out)-800):])
	}
}
