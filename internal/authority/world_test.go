package authority

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

func sha(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Microsecond) // time never stands still
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is an AIAS with a database in a folder of the test, served over real TLS.
type world struct {
	t      testing.TB
	cfg    Config
	clock  *clock
	judge  *judge
	loader Loader      // nil: judge
	maker  *softtpm.CA // of TPMs
	roots  *x509.CertPool
	*Authority
	store  *store.SQLite
	server *http.Server
	url    string
	admin  *operator.Client
}

const testLifetime = 5 * time.Minute

func newWorld(t testing.TB, change ...func(*world)) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{now: time.Now()}, judge: newJudge("one", "miner"), cfg: DefaultConfig()}
	w.cfg.Data = t.TempDir()
	w.cfg.Address = "127.0.0.1:0"
	w.cfg.Limits.PerNode, w.cfg.Limits.PerNodeBurst = 1e6, 1e6
	var err error
	if w.maker, err = softtpm.NewCA(); err != nil {
		t.Fatal(err)
	}
	w.roots = w.maker.Roots()
	for _, f := range change {
		f(w)
	}
	w.start()
	t.Cleanup(func() {
		w.stop()
		// Tessera does not tell when its last goroutine has written: its folder may be in use for a moment after Close.
		for deadline := time.Now().Add(time.Minute); os.RemoveAll(w.cfg.Data) != nil && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
	})
	return w
}

// opened opens the data folder.
func (w *world) opened() {
	w.t.Helper()
	ctx := context.Background()
	var err error
	if w.store, err = store.Open(ctx, filepath.Join(w.cfg.Data, "aias.db"), nil); err != nil {
		w.t.Fatal(err)
	}
	load := Loader(func(policy []byte) (*Snapshot, error) {
		if bytes.Contains(policy, []byte("bad")) {
			return nil, errors.New("bad policy")
		}
		return &Snapshot{
			Appraiser: w.judge, Policy: policy, Lifetime: testLifetime, Interval: time.Minute, Roots: w.roots, Links: []*x509.Certificate{w.maker.Issuer},
		}, nil
	})
	if w.loader != nil {
		load = w.loader
	}
	w.Authority, err = New(ctx, w.cfg, Dependencies{Store: w.store, Load: load, Now: w.clock.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
}

// start opens the data folder and serves; restart does so again.
func (w *world) start() {
	w.t.Helper()
	w.opened()
	if err := w.OpenLedger(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.Authority.cfg.Address, w.url = l.Addr().String(), "https://"+l.Addr().String()
	w.server = &http.Server{Handler: w.Handler(), ErrorLog: log.New(io.Discard, "", 0)} //nolint:gosec // on loopback, for a moment
	go func() { _ = w.server.Serve(tls.NewListener(l, w.TLS())) }()
	b, err := w.Operator("tester")
	if err != nil {
		w.t.Fatal(err)
	}
	if w.admin, err = operator.New(*b); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) stop() {
	w.changes.close()
	w.admin.Close()
	_ = w.server.Close()
	if err := w.CloseLedger(context.Background()); err != nil {
		w.t.Error(err)
	}
	_ = w.store.Close()
}

func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// token makes a join token.
func (w *world) token(r protocol.TokenRequest) string {
	w.t.Helper()
	t, err := w.admin.CreateToken(context.Background(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return t.Secret
}

// client is an HTTPS client with or without a certificate.
func (w *world) client(certs ...tls.Certificate) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(w.ca.root)
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: certs, Time: w.clock.Now},
	}}
}

// call sends JSON, or bytes as Evidence, and decodes the answer. A refusal comes back as a *protocol.Problem.
func (w *world) call(c *http.Client, method, path string, in, out any) error {
	w.t.Helper()
	var body io.Reader
	kind := "application/json"
	switch v := in.(type) {
	case nil:
	case *chain.Batch:
		body, kind = bytes.NewReader(chain.Pack(v)), protocol.MediaTypeAudit
	case []byte:
		body, kind = bytes.NewReader(v), protocol.MediaTypeEvidence
	default:
		b, err := json.Marshal(v)
		if err != nil {
			w.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	return w.send(c, req, out)
}

// send sends a request and reads the answer.
func (w *world) send(c *http.Client, req *http.Request, out any) error {
	w.t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		p := &protocol.Problem{}
		if err := json.Unmarshal(b, p); err != nil {
			w.t.Fatalf("%s %s: refusal %d is no problem document: %q", req.Method, req.URL.Path, resp.StatusCode, b)
		}
		return p
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// wantProblem checks that err is a refusal of a kind that carries a status.
func wantProblem(t testing.TB, what string, err error, status int, kind string) *protocol.Problem {
	t.Helper()
	var p *protocol.Problem
	if !errors.As(err, &p) {
		t.Fatalf("%s: got error %v, want a problem %q", what, err, kind)
	}
	if p.Status != status || p.Type != problemPrefix+kind {
		t.Fatalf("%s: got %d %s (%s), want %d %s", what, p.Status, p.Type, p.Error(), status, kind)
	}
	return p
}

// operatorHTTP is a bare client with an operator's certificate.
func operatorHTTP(t testing.TB, w *world, b *protocol.OperatorBundle) *http.Client {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(b.Certificate), []byte(b.Key))
	if err != nil {
		t.Fatal(err)
	}
	return w.client(pair)
}
