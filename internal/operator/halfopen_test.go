package operator

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// cable is a TCP connection in the middle that can be pulled: both ends stay open, and nothing comes through, as when a machine or a firewall between them goes away.
type cable struct{ pulled atomic.Bool }

func (c *cable) between(t *testing.T, server string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", server)
			if err != nil {
				from.Close()
				continue
			}
			t.Cleanup(func() { from.Close(); to.Close() })
			go c.carry(to, from)
			go c.carry(from, to)
		}
	}()
	return l.Addr().String()
}

func (c *cable) carry(to, from net.Conn) {
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		if c.pulled.Load() {
			return // without closing anything
		}
		if err != nil {
			to.Close()
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// TestResultsHalfOpen: a stream over which nothing comes any more, and that nobody closes, ends within the time of silence; the next one gets through when the way is there again.
func TestResultsHalfOpen(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "event: result\ndata: {\"node\":\"a\"}\n\nevent: synced\ndata: {}\n\n")
		for alive := time.NewTicker(20 * time.Millisecond); ; {
			_, _ = io.WriteString(w, ": alive\n\n")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-alive.C:
			}
		}
	}))
	t.Cleanup(srv.CloseClientConnections)
	var way cable
	c := &Client{base: "http://" + way.between(t, strings.TrimPrefix(srv.URL, "http://")), http: client(nil), silence: 300 * time.Millisecond}
	for round := range 2 {
		way.pulled.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		pulled := make(chan time.Time, 1)
		err := c.Results(ctx, func(protocol.NodeResult) error { return nil }, func() error {
			time.AfterFunc(time.Second, func() { pulled <- time.Now(); way.pulled.Store(true) }) // it lives for longer than the silence
			return nil
		})
		cancel()
		select {
		case at := <-pulled:
			if took := time.Since(at); !errors.Is(err, ErrSilent) || took > 3*time.Second {
				t.Errorf("round %d: Results() over a connection that is half open: got %v after %v, want %v within the silence of %v", round, err, took, ErrSilent, c.silence)
			}
		default:
			t.Errorf("round %d: Results(): got %v before the connection was cut", round, err)
		}
	}
}
