package authority

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

func TestBoundedConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bounded{Listener: l, max: 2, log: slog.New(slog.DiscardHandler)}
	defer b.Close()
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			c, err := b.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	dial()
	dial()
	first := <-accepted
	<-accepted
	third := dial()
	_ = third.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("third connection: got data, want it closed")
	}
	_ = first.Close()
	_ = first.Close() // counts once
	dial()
	<-accepted
	if got := b.open.Load(); got != 2 {
		t.Errorf("open connections: got %d, want 2", got)
	}
}

// TestIdleConnections: connections that say nothing, in TLS or before it, hold nobody up.
func TestIdleConnections(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	for i := range 50 {
		c, err := net.Dial("tcp", w.Authority.cfg.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			_, _ = io.WriteString(c, "\x16\x03\x01")
		}
	}
	if a := m.attest(); !a.Trusted {
		t.Errorf("attestation beside idle connections: got %+v, want trusted", a)
	}
}

func TestServeShutsDown(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Serve(ctx, l) }()
	b, err := w.Operator("tester")
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodGet, "https://"+l.Addr().String()+protocol.PathEvents, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := operatorHTTP(t, w, b).Do(req) // a stream that is open for ever
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Logf("stream ended with %v", err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Serve() after its context ended: %v", err)
		}
	case <-time.After(drainTime + 5*time.Second):
		t.Fatal("Serve() did not end")
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	w := newWorld(t)
	c, err := tls.Dial("tcp", w.Authority.cfg.Address, &tls.Config{MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true}) //nolint:gosec // that is the test
	if err == nil {
		_ = c.Close()
		t.Error("TLS 1.2: got a connection, want a refusal")
	}
}

// TestManyAtOnce: many nodes attest while results expire and a new policy comes; every node ends with its own verdict.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	const nodes, rounds = 16, 8
	machines := make([]*machine, nodes)
	for i := range machines {
		machines[i] = w.enrolled(fmt.Sprint("worker-", i))
	}
	w.judge = newJudge("two", "miner")
	var wg sync.WaitGroup
	for i, m := range machines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for r := range rounds {
				if i%2 == 1 && r == rounds/2 {
					m.list = append(m.list, "miner;"...)
				}
				if _, err := m.send(m.document(m.next)); err != nil {
					t.Errorf("%s round %d: %v", m.name, r, err)
				}
				if i == 0 && r == 2 {
					if _, err := w.Reload(ctx); err != nil {
						t.Errorf("Reload(): %v", err)
					}
				}
			}
		}()
	}
	wg.Wait()
	for i, m := range machines {
		want := protocol.Trusted
		if i%2 == 1 {
			want = protocol.Untrusted
		}
		if n := m.node(); n.Trust != want || n.Snapshot != "two" {
			t.Errorf("%s: got %q by %q, want %q by two", m.name, n.Trust, n.Snapshot, want)
		}
	}
}

// TestSameChallengeAtOnce: of many answers to one challenge one counts.
func TestSameChallengeAtOnce(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	d := m.document(m.next)
	var wg sync.WaitGroup
	var mu sync.Mutex
	good := 0
	for range 10 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			copied := *m
			if _, err := copied.send(d); err == nil {
				mu.Lock()
				good++
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	if good != 1 {
		t.Errorf("answers that counted: got %d, want 1", good)
	}
}
