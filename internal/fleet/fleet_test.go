package fleet

import (
	"context"
	"errors"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/authority"
	"touchstone.dev/touchstone/internal/store"
)

// asAIAS tells the test binary to be `aias serve --config FILE`.
const asAIAS = "FLEET_TEST_AIAS"

func TestMain(m *testing.M) {
	if os.Getenv(asAIAS) == "" {
		os.Exit(m.Run())
	}
	if err := serve(os.Args[len(os.Args)-1]); err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

func serve(file string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	c, err := authority.ParseConfig(text)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return err
	}
	db, err := store.Open(ctx, filepath.Join(c.Data, "aias.db"), nil)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	a, err := authority.New(ctx, c, authority.Dependencies{Store: db, Load: authority.LoadFrom(c.References)})
	if err != nil {
		return err
	}
	if _, err := a.WriteFirst(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	return a.Serve(ctx, l)
}

// options are those of a small fleet against an AIAS of the test.
func options(t testing.TB) Options {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(asAIAS, "1")
	t.Setenv("TMPDIR", t.TempDir())
	return Options{Nodes: 20, Duration: time.Second, Connections: -1, Idle: time.Minute, InFlight: 8, Warm: true, Program: exe}
}

// leftOver lists what a run left in its folder for temporary files.
func leftOver(t *testing.T) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "touchstone-fleet-*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func TestFleet(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Options)
		opened bool // connections in the measured part
	}{
		"steady":      {func(*Options) {}, false},
		"new entries": {func(o *Options) { o.NewEntries = 3 }, false},
		"whole logs":  {func(o *Options) { o.Full = true }, false},
		"reconnects":  {func(o *Options) { o.Connections = 5 }, true},
		"tags":        {func(o *Options) { o.Tags = true }, false},
		"idle":        {func(o *Options) { o.Idle, o.Rate, o.Duration = time.Second, 12, 3*time.Second }, true},
		"cold, paced": {func(o *Options) { o.Warm, o.Rate = false, 200 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			tc.change(&o)
			parts := map[string]int64{}
			o.Progress = func(part string, done, total int64) {
				if done > total {
					t.Errorf("progress of %q: got %d of %d", part, done, total)
				}
				parts[part] = done
			}
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK || r.Trusted == 0 || r.Trusted != r.Attestations || len(r.Errors) != 0 {
				t.Errorf("Run: got %d trusted of %d and errors %v, want all trusted", r.Trusted, r.Attestations, r.Errors)
			}
			if want := map[bool]int{true: 20}[o.Tags]; r.Proven != want {
				t.Errorf("Run: got asset tags proven by %d nodes, want %d", r.Proven, want)
			}
			if (r.Opened > 0) != tc.opened || r.Resumed < r.Opened-o.Nodes {
				t.Errorf("Run: got %d connections opened, %d with a resumed session, want any: %v", r.Opened, r.Resumed, tc.opened)
			}
			if o.Rate > 0 && float64(r.Attestations) > o.Rate*o.Duration.Seconds()+10 {
				t.Errorf("Run: got %v attestations in %v, want at most about %v a second", r.Attestations, o.Duration, o.Rate)
			}
			if r.Nodes != 20 || r.Steady.Seconds <= 0 || r.Enrolment.PerSecond <= 0 || r.Latency.P50 > r.Latency.Max || r.Memory.Enrolled.Live <= 0 || r.Memory.Enrolled.RSS <= 0 {
				t.Errorf("Run: got report %+v", r)
			}
			if _, ok := parts["enrol"]; !ok {
				t.Errorf("Run: got progress %v, want enrolment among it", parts)
			}
			if left := leftOver(t); len(left) > 0 {
				t.Errorf("Run: left %q behind", left)
			}
		})
	}
}

// An AIAS that is somebody else's is left as it was.
func TestFleetAtAnotherAIAS(t *testing.T) {
	o := options(t)
	s, err := startServer(t.Context(), o.Program, time.Minute, newMaker(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}()
	o.Program, o.Operator = "", s.bundle
	r, err := Run(t.Context(), o)
	if err != nil || !r.OK || r.Steady.AIASMicros != 0 {
		t.Fatalf("Run: got %+v, %v; want all trusted and no CPU of AIAS", r, err)
	}
	c := client(t, s)
	nodes, err := c.Nodes(t.Context())
	if err != nil || len(nodes) != 0 {
		t.Errorf("Nodes() afterwards: got %d, %v; want none", len(nodes), err)
	}
	if eks, err := c.EKs(t.Context()); err != nil || len(eks) != 0 {
		t.Errorf("EKs() afterwards: got %d, %v; want none", len(eks), err)
	}
	if tokens, err := c.Tokens(t.Context()); err != nil || len(tokens) != 0 {
		t.Errorf("Tokens() afterwards: got %d, %v; want none", len(tokens), err)
	}
}

func TestFleetInterrupted(t *testing.T) {
	o := options(t)
	o.Duration = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(part string, _, _ int64) {
		if part == "attest" {
			cancel()
		}
	}
	if r, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("Run, interrupted: got %+v, %v; want %v", r, err, context.Canceled)
	}
	if left := leftOver(t); len(left) > 0 {
		t.Errorf("Run, interrupted: left %q behind", left)
	}
}

func TestFleetWithoutAIAS(t *testing.T) {
	o := options(t)
	o.Program = filepath.Join(t.TempDir(), "nothing")
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--aias") {
		t.Errorf("Run without AIAS: got %v, want a word on --aias", err)
	}
	t.Setenv(asAIAS, "")
	o.Program = "/bin/false"
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "ended before it was ready") {
		t.Errorf("Run with a program that ends: got %v, want that said", err)
	}
}

func TestOptions(t *testing.T) {
	for want, change := range map[string]func(*Options){
		"nodes":          func(o *Options) { o.Nodes = MaxNodes + 1 },
		"0 nodes":        func(o *Options) { o.Nodes = 0 },
		"duration":       func(o *Options) { o.Duration = MaxDuration + 1 },
		"new entries":    func(o *Options) { o.NewEntries = -1 },
		"at a time":      func(o *Options) { o.InFlight = 0 },
		"rate":           func(o *Options) { o.Rate = -1 },
		"idle":           func(o *Options) { o.Idle = 0 },
		"--connections)": func(o *Options) { o.Nodes, o.Connections = MaxNodes, -1; lowerFiles(t) },
	} {
		o := Options{Nodes: 1, Duration: time.Second, Idle: time.Minute, InFlight: 1}
		change(&o)
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run(%+v): got %v, want %q", o, err, want)
		}
	}
}

func TestLoopback(t *testing.T) {
	for server, want := range map[string]string{
		"https://127.0.0.1:8443": "127.0.0.1:8443", "https://[::1]:1": "[::1]:1", "https://localhost": "localhost:443", "https://127.9.9.9:5/": "127.9.9.9:5",
		"https://192.0.2.1:8443": "", "https://aias.example": "", "http://127.0.0.1:1": "", "https://0.0.0.0:1": "", "::": "", "": "",
	} {
		got, err := loopback(server)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("loopback(%q): got %q, %v; want %q", server, got, err, want)
		}
	}
}

// BenchmarkFleet measures AIAS as a process of its own with 500 nodes: steady attestations over loopback HTTPS, database included.
func BenchmarkFleet(b *testing.B) {
	o := options(b)
	o.Nodes, o.InFlight, o.Duration = 500, 32, 2*time.Second
	for b.Loop() {
		r, err := Run(b.Context(), o)
		if err != nil || !r.OK {
			b.Fatal(r, err)
		}
		b.ReportMetric(r.Steady.PerSecond, "attestations/s")
		b.ReportMetric(r.Steady.AIASMicros, "aias-us/attestation")
		b.ReportMetric(float64(r.Memory.PerNode), "B/node")
		b.ReportMetric(float64(r.Memory.PerConnection), "B/connection")
	}
}
