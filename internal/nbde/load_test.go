package nbde

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/release"
	"touchstone.dev/touchstone/internal/tpm"
)

// rack is a Service with nodes that all attested a moment ago, over a real database, a real ledger, and a real connection for each request.
type rack struct {
	*world
	address string
	paths   []string
	body    []byte
}

func newRack(t testing.TB, nodes int) *rack {
	t.Helper()
	r := &rack{world: newWorld(t), body: blinded(t, DefaultCurve, nil)}
	ctx := context.Background()
	secret, public, err := ledger.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	book, err := ledger.Open(ctx, t.TempDir(), secret, public)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = book.Close() })
	r.book = func(ctx context.Context, e Event) error {
		return book.Append(ctx, ledger.Entry{Kind: ledger.KeyReleased, Node: e.Node, Actor: "address:" + e.Source, Subject: "disk-key:" + e.Key, Decision: "released", Reason: e.Reason})
	}
	loopback := netip.MustParseAddr("127.0.0.1")
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i)
		r.nodes[name] = good()
		r.bind(name, Policy{Mode: ModeAttested, Uses: MaxUses, Conditions: &release.Conditions{Tags: map[string][]string{"site": {"muc"}}}})
		r.Attested(ctx, Attestation{Node: name, Source: loopback, ResetCount: 1, Latch: tpm.LatchOpen})
		r.paths = append(r.paths, "/n/"+name+"/rec/"+r.newest(name).Thumbprint)
	}
	l := listen(t, "127.0.0.1:0")
	r.address = l.Addr().String()
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: &Server{
		Ring: func(ctx context.Context, node string) (*Ring, error) { return r.Ring(ctx, node) },
		Gate: func(ctx context.Context, a Ask) error { return r.Gate(ctx, a) },
		Log:  slog.New(slog.DiscardHandler),
	}}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return r
}

// post sends a recovery over a connection of its own and reads the whole answer. It hangs up then: tangd would wait for another request.
func post(address, path string, body []byte) error {
	to, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return err
	}
	c, err := net.DialTCP("tcp", nil, to) // a Dialer costs half as much again, and what the clients cost is in what is measured
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: tang\r\nConnection: close\r\nContent-Type: application/jwk+json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body); err != nil {
		return err
	}
	b, err := readAnswer(c)
	if err == nil && (!bytes.HasPrefix(b, []byte("HTTP/1.1 200 ")) || !bytes.Contains(b, []byte(`"y":`))) {
		err = fmt.Errorf("answered %q", b)
	}
	return err
}

// readAnswer reads the head and as much as it says that the body has.
func readAnswer(c net.Conn) ([]byte, error) {
	b := make([]byte, 0, 1024)
	for {
		n, err := c.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if head, body, ok := bytes.Cut(b, []byte("\r\n\r\n")); ok {
			_, length, _ := bytes.Cut(head, []byte("Content-Length: "))
			length, _, _ = bytes.Cut(length, []byte("\r"))
			if want, e := strconv.Atoi(string(length)); e == nil && len(body) >= want {
				return b, nil
			}
		}
		if err != nil || len(b) == cap(b) {
			return b, fmt.Errorf("the answer ends after %q: %w", b, err)
		}
	}
}

// powerCut has all nodes ask at the same moment, and returns how long it took until all had their answers, and how many got none.
func (r *rack) powerCut(t testing.TB) (took time.Duration, lost int) {
	t.Helper()
	start := make(chan struct{})
	var wg sync.WaitGroup
	var failed atomic.Int64
	for _, path := range r.paths {
		wg.Go(func() {
			<-start
			if err := post(r.address, path, r.body); err != nil {
				failed.Add(1)
				t.Errorf("%s: %v", path, err)
			}
		})
	}
	begin := time.Now()
	close(start)
	wg.Wait()
	return time.Since(begin), int(failed.Load())
}

// TestPowerCut: when power comes back, every node gets its key, cold or warm, and every release is written down. How long it takes is measured by the
// benchmark below; the time here only says that nothing is stuck.
func TestPowerCut(t *testing.T) {
	r := newRack(t, 300)
	r.restart()
	for name := range r.nodes {
		r.Attested(context.Background(), Attestation{Node: name, Source: netip.MustParseAddr("127.0.0.1"), ResetCount: 2, Latch: tpm.LatchOpen})
	}
	cold, _ := r.powerCut(t)
	warm, _ := r.powerCut(t)
	t.Logf("300 nodes: %v after a restart of AIAS, %v later", cold, warm)
	if cold > 30*time.Second || warm > 30*time.Second {
		t.Errorf("300 nodes took %v and %v", cold, warm)
	}
	uses, err := r.db.DiskUses(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int64{}
	for _, u := range uses {
		count[u.Client] += u.Count
	}
	for name := range r.nodes {
		if count[name] != 2 {
			t.Errorf("%s: %d releases are written down, want 2", name, count[name])
		}
	}
}

// BenchmarkPowerCut is the time until the last of so many nodes, which ask at the same moment, has its key.
func BenchmarkPowerCut(b *testing.B) {
	for _, nodes := range []int{200, 1000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			r := newRack(b, nodes)
			r.powerCut(b)
			var worst time.Duration
			cuts, lost, before := 0, 0, processorTime(b)
			for b.Loop() {
				took, without := r.powerCut(b)
				worst, lost = max(worst, took), lost+without
				cuts++
			}
			// What it costs does not depend on what else the machine does; the clients are in it.
			b.ReportMetric(1000*(processorTime(b)-before).Seconds()/float64(cuts*nodes), "cpu-ms/node")
			b.ReportMetric(worst.Seconds(), "worst-s")
			b.ReportMetric(float64(lost), "lost")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// processorTime is what this process and those that it started and that have ended have used so far.
func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}

// clients ask at the same time, each over a new connection for each recovery.
const clients = 64

// load is what those clients that open a connection for each recovery get out of a server, and what each recovery costs, the client included.
type load struct{ rate, cpu float64 }

func measure(t testing.TB, address string, paths []string, body []byte, d time.Duration) load {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var done atomic.Int64
	var failed atomic.Value
	var wg sync.WaitGroup
	begin, used := time.Now(), processorTime(t)
	for i := range clients {
		wg.Go(func() {
			for k := i; ctx.Err() == nil; k += clients {
				if err := post(address, paths[k%len(paths)], body); err != nil {
					failed.Store(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if err, _ := failed.Load().(error); err != nil {
		t.Fatal(err)
	}
	n := float64(done.Load())
	return load{n / time.Since(begin).Seconds(), 1000 * (processorTime(t) - used).Seconds() / n}
}
