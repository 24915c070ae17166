package authority

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

// party is a Relying Party that keeps what the stream says.
type party struct {
	t      testing.TB
	w      *world
	mu     sync.Mutex
	last   map[string]protocol.NodeResult
	events int
	heard  chan struct{} // something came
	synced chan struct{}
	ended  chan error
	cancel context.CancelFunc
}

// listen opens a stream with the certificate of a Relying Party.
func (w *world) listen(slow time.Duration) *party {
	w.t.Helper()
	b, err := w.RelyingParty("party")
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := operator.New(*b)
	if err != nil {
		w.t.Fatal(err)
	}
	p := &party{t: w.t, w: w, last: map[string]protocol.NodeResult{}, heard: make(chan struct{}, 1), synced: make(chan struct{}), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	w.t.Cleanup(cancel)
	go func() {
		defer c.Close()
		p.ended <- c.Results(ctx, func(r protocol.NodeResult) error {
			time.Sleep(slow)
			p.mu.Lock()
			p.last[r.Node] = r
			p.events++
			p.mu.Unlock()
			select {
			case p.heard <- struct{}{}:
			default:
			}
			return nil
		}, func() error { close(p.synced); return nil })
	}()
	return p
}

// wait waits until the stream has said something of a node that ok accepts.
func (p *party) wait(node string, ok func(protocol.NodeResult) bool) protocol.NodeResult {
	p.t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		p.mu.Lock()
		r, there := p.last[node]
		p.mu.Unlock()
		if there && ok(r) {
			return r
		}
		select {
		case <-p.heard:
		case <-timeout:
			p.t.Fatalf("stream of results: of %s the last is %+v, want another", node, r)
		}
	}
}

func (p *party) waitSynced() {
	p.t.Helper()
	select {
	case <-p.synced:
	case err := <-p.ended:
		p.t.Fatalf("stream of results ended: %v", err)
	case <-time.After(10 * time.Second):
		p.t.Fatal("stream of results: no synced")
	}
}

// verified is the Result in r, checked as a Relying Party does.
func (p *party) verified(r protocol.NodeResult) *result.Result {
	p.t.Helper()
	v, err := result.Verify(r.Result, p.w.jwks, result.Expectation{Node: r.Node, Now: p.w.clock.Now()})
	if err != nil {
		p.t.Fatalf("result of %s: %v", r.Node, err)
	}
	return v
}

func trustIs(want string) func(protocol.NodeResult) bool {
	return func(r protocol.NodeResult) bool { return r.Trust == want }
}

// TestResults follows one node through its life.
func TestResults(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	good, fresh := w.enrolled("worker-1"), w.enrolled("worker-2")
	good.attest()
	p := w.listen(0)
	p.waitSynced()
	if v := p.verified(p.last["worker-1"]); len(p.last) != 2 || !v.Trusted || v.Node != "worker-1" || p.last["worker-2"].Trust != protocol.Unknown || p.last["worker-2"].Result != "" {
		t.Errorf("snapshot: got %+v, want worker-1 trusted with a result, worker-2 unknown without", p.last)
	}

	fresh.attest()
	if r := p.wait("worker-2", trustIs(protocol.Trusted)); !p.verified(r).Trusted {
		t.Errorf("first result of worker-2: got %+v, want a trusted one", r)
	}
	before := p.last["worker-1"].Result
	w.clock.Advance(time.Second)
	good.attest() // says the same, and is a new result
	p.wait("worker-1", func(r protocol.NodeResult) bool { return r.Result != before && r.Trust == protocol.Trusted })

	good.list = append(good.list, "backup;miner;"...)
	good.attest()
	if r := p.wait("worker-1", trustIs(protocol.Untrusted)); p.verified(r).Trusted || r.Reason == "" {
		t.Errorf("fall of worker-1: got %+v, want an untrusted result with a reason", r)
	}

	w.judge = newJudge("two", "backup") // the policy changes: kept Evidence is judged again, no node says anything
	if _, err := w.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	w.rejudgeAll(ctx)
	two := func(r protocol.NodeResult) bool { return r.Result != "" && p.verified(r).Snapshot == "two" }
	if r := p.wait("worker-2", two); r.Trust != protocol.Trusted {
		t.Errorf("worker-2 under the second policy: got %+v, want it trusted", r)
	}

	w.clock.Advance(testLifetime)
	w.expireDue(ctx)
	if r := p.wait("worker-2", trustIs(protocol.Untrusted)); r.Result != "" || r.Reason == "" {
		t.Errorf("expired worker-2: got %+v, want no result and the reason", r)
	}

	if err := w.admin.Delete(ctx, "worker-2"); err != nil {
		t.Fatal(err)
	}
	p.wait("worker-2", func(r protocol.NodeResult) bool { return r.Removed })
	if err := fresh.enrol(); err != nil {
		t.Fatal(err)
	}
	p.wait("worker-2", func(r protocol.NodeResult) bool { return !r.Removed && r.Trust == protocol.Unknown })

	p.cancel()
	if err := <-p.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Results() after its context ended: got %v", err)
	}
}

// TestResultsAfterRestart: streams end with AIAS, and the next one begins with what the database knows.
func TestResultsAfterRestart(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.attest()
	p := w.listen(0)
	p.waitSynced()
	w.restart()
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the stream of a stopped AIAS did not end")
	}
	again := w.listen(0)
	again.waitSynced()
	if got, want := again.last["worker-1"], p.last["worker-1"]; got != want {
		t.Errorf("snapshot after a restart: got %+v, want %+v", got, want)
	}
	m.attest()
	again.wait("worker-1", func(r protocol.NodeResult) bool { return r.Result != p.last["worker-1"].Result })
}

// TestResultsLoseNothing: while many nodes attest, rise, fall, leave and come again, streams begin and read, fast and slowly. In the end each has the
// newest of every node.
func TestResultsLoseNothing(t *testing.T) {
	w := newWorld(t)
	const nodes, rounds = 12, 12
	machines := make([]*machine, nodes)
	for i := range machines {
		machines[i] = w.enrolled(fmt.Sprint("worker-", i))
		w.node(machines[i].name).changes.SetBurst(1e6)
	}
	parties := []*party{w.listen(0), w.listen(3 * time.Millisecond)}
	var wg sync.WaitGroup
	for i, m := range machines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for r := range rounds {
				m.clock.ResetCount++
				m.list = fmt.Appendf(nil, "boot_aggregate;%s", map[bool]string{true: "miner;"}[(i+r)%2 == 0])
				if _, err := m.send(m.document(m.next)); err != nil {
					t.Errorf("%s round %d: %v", m.name, r, err)
				}
				if i < 3 && r%4 == 1 {
					if err := w.admin.Delete(context.Background(), m.name); err != nil {
						t.Errorf("delete %s: %v", m.name, err)
					}
					m.http = w.client()
					if err := m.enrol(); err != nil {
						t.Errorf("enrol %s again: %v", m.name, err)
					}
				}
			}
		}()
	}
	for range 4 {
		time.Sleep(10 * time.Millisecond)
		parties = append(parties, w.listen(0), w.listen(time.Millisecond))
	}
	wg.Wait()
	for i, p := range parties {
		p.waitSynced()
		for _, n := range w.all() {
			want, err := w.storedResult(context.Background(), n)
			if err != nil {
				t.Fatal(err)
			}
			got := p.wait(n.name, func(r protocol.NodeResult) bool { return r.Result == want })
			if got.Trust != n.trust || got.Reason != n.reason {
				t.Errorf("stream %d, %s: got %q because %q, want %q because %q", i, n.name, got.Trust, got.Reason, n.trust, n.reason)
			}
		}
	}
}

// TestResultsToNobody: a client that opens a stream and does not read holds one result of each node, and nobody up.
func TestResultsToNobody(t *testing.T) {
	w := newWorld(t)
	machines := []*machine{w.enrolled("worker-1"), w.enrolled("worker-2")}
	b, err := w.RelyingParty("lazy")
	if err != nil {
		t.Fatal(err)
	}
	tr := operatorHTTP(t, w, b).Transport.(*http.Transport)
	for range 10 {
		c, err := tls.Dial("tcp", w.Authority.cfg.Address, tr.TLSClientConfig)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", protocol.PathResults)
	}
	for deadline := time.Now().Add(10 * time.Second); w.feed.open.Load() < 10; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the streams did not open")
		}
	}
	p := w.listen(0)
	p.waitSynced()
	var last string
	for range 300 {
		for _, m := range machines {
			last = m.attest().Result
		}
	}
	p.wait("worker-2", func(r protocol.NodeResult) bool { return r.Result == last })
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	for s := range w.feed.streams {
		if len(s.unsent) > len(machines) {
			t.Errorf("a stream holds %d results, want one of each node at most", len(s.unsent))
		}
	}
}

// TestFeedBounds: a stream that is too far behind is ended, and there is room for so many streams only.
func TestFeedBounds(t *testing.T) {
	f := newFeed()
	f.most = 50
	none := func() []*node { return nil }
	s, _, err := f.subscribe(none)
	if err != nil {
		t.Fatal(err)
	}
	for i := range f.most {
		f.publish(protocol.NodeResult{Node: fmt.Sprint(i)})
	}
	if _, ok := f.take(s); !ok {
		t.Error("take() at the bound: got false, want the results")
	}
	for i := range f.most + 1 {
		f.publish(protocol.NodeResult{Node: fmt.Sprint(i)})
	}
	if left, ok := f.take(s); ok || len(left) != 0 {
		t.Errorf("take() past the bound: got %d results and %v, want none and false", len(left), ok)
	}
	for range maxStreams - 1 {
		if _, _, err := f.subscribe(none); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err = f.subscribe(none)
	wantProblem(t, "one stream too many", err, http.StatusServiceUnavailable, "streams")
	f.leave(s)
	if _, _, err := f.subscribe(none); err != nil {
		t.Errorf("subscribe() after another left: %v", err)
	}
}

// TestRoles: each role may do what it is for, and nothing else.
func TestRoles(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	m.attest()
	bundle := func(make func(string) (*protocol.OperatorBundle, error)) *http.Client {
		b, err := make("somebody")
		if err != nil {
			t.Fatal(err)
		}
		return operatorHTTP(t, w, b)
	}
	clients := map[role]*http.Client{
		roleRelyingParty: bundle(w.RelyingParty), roleController: bundle(w.Controller), roleOperator: bundle(w.Operator), roleNode: m.http, "": w.client(),
	}
	for _, rt := range w.routes() {
		if rt.for_ == anyone {
			continue
		}
		for r, c := range clients {
			want := map[audience]map[role]bool{
				nodesOnly: {roleNode: true}, readers: {roleRelyingParty: true, roleController: true, roleOperator: true},
				controllers: {roleController: true, roleOperator: true}, operators: {roleOperator: true},
			}[rt.for_][r]
			if got := w.admits(c, rt); got != want {
				t.Errorf("%s %s as %q: admitted %v, want %v", rt.method, rt.path, r, got, want)
			}
		}
	}
}

// admits reports whether a request that is wrong in every other way gets past the check of who asks.
func (w *world) admits(c *http.Client, rt route) bool {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, rt.method, w.url+rt.path, http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		return true
	}
	b, _ := io.ReadAll(resp.Body)
	return !bytes.Contains(b, []byte(problemPrefix+`role"`))
}

// BenchmarkPublish is what a new result costs besides, by the number of streams. Nobody reads these.
func BenchmarkPublish(b *testing.B) {
	for _, streams := range []int{0, 1, 10} {
		b.Run(fmt.Sprint("streams=", streams), func(b *testing.B) {
			f := newFeed()
			for range streams {
				if _, _, err := f.subscribe(func() []*node { return nil }); err != nil {
					b.Fatal(err)
				}
			}
			names := make([]string, 2000)
			for i := range names {
				names[i] = fmt.Sprint("worker-", i)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				f.publish(protocol.NodeResult{Node: names[i%len(names)], Result: "x", Trust: protocol.Trusted})
				i++
			}
		})
	}
}
