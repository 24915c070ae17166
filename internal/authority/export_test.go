package authority

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/export"
)

// TestExport: the service sends what nodes send to a destination of the configuration, and /metrics says so. A command beside the service sends nothing.
func TestExport(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lines := make(chan string, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for r := bufio.NewReader(conn); ; {
					var size int
					if _, err := fmt.Fscanf(r, "%d ", &size); err != nil {
						return
					}
					line := make([]byte, size)
					if _, err := io.ReadFull(r, line); err != nil {
						return
					}
					lines <- string(line)
				}
			}()
		}
	}()
	w := newWorld(t, func(w *world) {
		w.cfg.Audit.Export = []export.Config{{Name: "siem", Syslog: &export.Syslog{Address: l.Addr().String(), TLS: export.TLS{Plain: true}}}}
	})
	s := w.chained("worker-1")
	if _, err := s.send(s.batch(2, "before the service ran"), ""); err != nil {
		t.Fatal(err)
	}
	if n := len(w.audit.destinations()); n > 0 {
		t.Fatalf("%d destinations without the service", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.exportLoop(ctx) }()
	defer func() { cancel(); <-done }()
	for end := time.Now().Add(10 * time.Second); len(w.audit.destinations()) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the service has no destination")
		}
	}
	if _, err := s.send(s.batch(1, "event"), ""); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-lines:
		if want := `worker-1 touchstone - event [touchstone@32473 seq="3" id="worker-1/01000000000000000000000000000000/3"`; !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
	}
	want := []string{`aias_audit_export_entries_total{destination="siem"} 1`, `aias_audit_export_missing_total{destination="siem"} 0`, `aias_audit_export_behind{destination="siem"} 0`}
	text := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		text = metricsText(t, w)
		missing := 0
		for _, m := range want {
			if !strings.Contains(text, m) {
				missing++
			}
		}
		if missing == 0 {
			return
		}
	}
	t.Errorf("metrics: got %q, want %q", text, want)
}

func metricsText(t *testing.T, w *world) string {
	t.Helper()
	b, err := w.Operator("metrics")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := operatorHTTP(t, w, b).Get(w.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %d, %v", resp.StatusCode, err)
	}
	return string(text)
}
