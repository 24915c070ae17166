package demo

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
	"touchstone.dev/touchstone/internal/swtpm/machine"
	"touchstone.dev/touchstone/test/boots"
)

// count counts how often something was said.
func (b *buffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.b.String(), text)
}

// address is one that stays while AIAS behind it changes, as a Service does.
type address struct {
	net.Listener
	mu sync.Mutex
	to string
}

func newAddress(t *testing.T) *address {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	a := &address{Listener: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go a.forward(c)
		}
	}()
	return a
}

func (a *address) forward(c net.Conn) {
	defer c.Close()
	a.mu.Lock()
	to := a.to
	a.mu.Unlock()
	d, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer d.Close()
	go func() { _, _ = io.Copy(d, c); d.Close() }()
	_, _ = io.Copy(c, d)
}

func (a *address) set(server string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.to = strings.TrimPrefix(server, "https://")
}

// TestAIASLosesItsData: a worker whose AIAS forgets it, first the worker alone, then everything with the CA, enrols anew by itself with the token that is there, and
// proves itself as at first. The root comes from a file that others keep, as the ConfigMap aias-ca is in a cluster.
func TestAIASLosesItsData(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	dir := t.TempDir()
	var said buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	good, err := machine.Read(boots.Files, "corpus/good", false)
	if err != nil {
		t.Fatal(err)
	}
	ekCA, caFile, front := filepath.Join(dir, "ek-ca"), filepath.Join(dir, "ca.crt"), newAddress(t)
	w := newWorker(dir, "worker-1", ekCA, log)
	if err := w.boot(ctx, good); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	s := &tagStage{t: t, ctx: ctx}
	begin := func(folder string) {
		t.Helper()
		var err error
		if s.aias, err = startAIAS(ctx, filepath.Join(dir, folder), ekCA, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	token := func() {
		t.Helper()
		secret, err := s.aias.token(ctx, w.Name)
		if err == nil {
			err = os.WriteFile(w.cfg.TokenFile, []byte(secret), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	published := func() {
		t.Helper()
		var bundle protocol.OperatorBundle
		b, err := os.ReadFile(s.aias.bundle)
		if err == nil {
			err = json.Unmarshal(b, &bundle)
		}
		if err == nil {
			err = os.WriteFile(caFile, []byte(bundle.CA), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		front.set(s.aias.server)
	}
	trusted := func(what string) {
		t.Helper()
		took := s.await(w, what, func(r *result.Result) bool { return r.Trusted })
		t.Logf("%s: after %v", what, took.Round(time.Millisecond))
	}
	begin("first")
	token()
	published()
	w.cfg.Server, w.cfg.CAFile = "https://"+front.Addr().String(), caFile
	if err := w.start(ctx); err != nil {
		t.Fatal(err)
	}
	trusted("the first attestation")

	token()
	if err := s.aias.client.Delete(ctx, w.Name); err != nil {
		t.Fatal(err)
	}
	w.ask()
	trusted("AIAS forgot the worker")

	if err := s.aias.stop(); err != nil {
		t.Fatal(err)
	}
	begin("second")
	t.Cleanup(func() {
		if err := s.aias.stop(); err != nil {
			t.Error(err)
		}
	})
	token()
	front.set(s.aias.server)
	w.ask()
	// The new AIAS is not believed because it has the address: only because the root is in the file.
	for i := 0; w.failure() == nil || !strings.Contains(w.failure().Error(), "certificate"); i++ {
		if time.Sleep(20 * time.Millisecond); i > 500 {
			t.Fatalf("last attestation: %v, want one that does not take the certificate of the new AIAS", w.failure())
		}
	}
	if said.count("another root certificate than") > 0 {
		t.Error("the agent enrols with an AIAS that nobody vouches for")
	}
	published()
	w.ask()
	trusted("AIAS lost everything")
	if got := said.count("enrolled anew"); got != 2 {
		t.Errorf("enrolled anew: got %d times in the log, want 2:\n%s", got, said.b.String())
	}
}
