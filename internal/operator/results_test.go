package operator

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// streaming answers with text, then waits for the client's end when it should.
func streaming(t *testing.T, text string, open bool) *Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
		if open {
			<-r.Context().Done()
		}
	}))
	t.Cleanup(srv.Close)
	return &Client{base: srv.URL, http: srv.Client(), silence: 200 * time.Millisecond}
}

func TestResults(t *testing.T) {
	stop := errors.New("enough")
	many := "data: {\"node\":\"" + strings.Repeat("n", 2*maxEvent) + "\"}\n\n"
	tests := []struct {
		name, text string
		open       bool
		want       string // calls of the callbacks
		err        error  // nil: any
	}{
		{"whole", "event: result\ndata: {\"node\":\"a\"}\n\n: alive\n\nevent: synced\ndata: {}\n\nevent: result\ndata: {\"node\":\"b\",\"removed\":true}\n\n", false, "a synced b", io.EOF},
		{"silent", "event: result\ndata: {\"node\":\"a\"}\n\n", true, "a", ErrSilent},
		{"says nothing", "", true, "", ErrSilent},
		{"callback ends it", "event: result\ndata: {\"node\":\"stop\"}\n\nevent: result\ndata: {\"node\":\"b\"}\n\n", true, "stop", stop},
		{"unknown event", "event: other\ndata: x\n\n", false, "", io.EOF},
		{"no JSON", "event: result\ndata: x\n\n", true, "", nil},
		{"endless line", "event: result\n" + many, true, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := streaming(t, tt.text, tt.open)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			var calls []string
			err := c.Results(ctx, func(r protocol.NodeResult) error {
				if calls = append(calls, r.Node); r.Node == "stop" {
					return stop
				}
				return nil
			}, func() error { calls = append(calls, "synced"); return nil })
			if err == nil || tt.err != nil && !errors.Is(err, tt.err) || ctx.Err() != nil {
				t.Errorf("Results(): got %v, want %v", err, tt.err)
			}
			if got := strings.Join(calls, " "); got != tt.want {
				t.Errorf("Results(): got calls %q, want %q", got, tt.want)
			}
		})
	}
}

// TestResultsSlowCallback: the time that a callback takes is not the silence of AIAS.
func TestResultsSlowCallback(t *testing.T) {
	c := streaming(t, strings.Repeat("event: result\ndata: {\"node\":\"a\"}\n\n", 3), false)
	err := c.Results(context.Background(), func(protocol.NodeResult) error { time.Sleep(2 * c.silence); return nil }, nil)
	if !errors.Is(err, io.EOF) {
		t.Errorf("Results() with a slow callback: got %v, want %v", err, io.EOF)
	}
}

// TestAccess: token and root certificate are read again for each request, and neither goes where a redirect leads.
func TestAccess(t *testing.T) {
	var tokens []string
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens = append(tokens, r.Header.Get("Authorization"))
		if len(tokens) == 3 {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}
	}))
	defer srv.Close()
	dir := t.TempDir()
	a := Access{Server: srv.URL, CAFile: filepath.Join(dir, "ca.crt"), TokenFile: filepath.Join(dir, "token")}
	c, err := NewAccess(a)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ready := func(want string) {
		t.Helper()
		if err := c.Ready(context.Background()); want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Ready(): got %v, want %q", err, want)
		}
	}
	ready(a.TokenFile)
	write(a.TokenFile, "one\n")
	ready(a.CAFile)
	write(a.CAFile, "no certificate")
	ready("holds no certificate")
	write(a.CAFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	ready("")
	write(a.TokenFile, "two")
	ready("")
	ready("302")
	write(a.TokenFile, strings.Repeat("x", maxAccessFile+1))
	ready("bytes, want")
	if want := []string{"Bearer one", "Bearer two", "Bearer two"}; !slices.Equal(tokens, want) {
		t.Errorf("tokens shown: got %q, want %q", tokens, want)
	}
	for _, bad := range []Access{{}, {Server: "http://a", CAFile: "x", TokenFile: "x"}, {Server: "https://a", TokenFile: "x"}} {
		if _, err := NewAccess(bad); err == nil {
			t.Errorf("NewAccess(%+v): got no error", bad)
		}
	}
}
