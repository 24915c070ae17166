package export

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"touchstone.dev/touchstone/internal/audit/archive"
	"touchstone.dev/touchstone/internal/audit/chain"
)

const node = "worker-1"

// crash tells the test binary to be AIAS: an exporter of the archive in that folder.
const crash = "EXPORT_CRASH"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crash); dir != "" {
		a, err := archive.Open(archive.Options{Dir: filepath.Join(dir, "audit")})
		if err != nil {
			panic(err)
		}
		var c Config
		if url := os.Getenv(crash + "_URL"); strings.HasPrefix(url, "http") {
			c = Config{Name: "to", OTLP: &OTLP{URL: url, TLS: TLS{Plain: true}}}
		} else {
			c = Config{Name: "to", Syslog: &Syslog{Address: url, TLS: TLS{Plain: true}}}
		}
		x, err := Open(c, a, filepath.Join(dir, "export"), slog.New(slog.DiscardHandler))
		if err != nil {
			panic(err)
		}
		x.Run(context.Background())
		return
	}
	os.Exit(m.Run())
}

// source is an archive that gets entries.
type source struct {
	t   testing.TB
	dir string
	a   *archive.Archive
	at  map[string]chain.Position
}

func newSource(t testing.TB, opt archive.Options) *source {
	t.Helper()
	s := &source{t: t, dir: t.TempDir(), at: map[string]chain.Position{}}
	opt.Dir = filepath.Join(s.dir, "audit")
	var err error
	if s.a, err = archive.Open(opt); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.a.Close)
	return s
}

// add appends n entries of a node, in batches.
func (s *source) add(node string, n int) {
	s.t.Helper()
	f, err := s.a.Node(node)
	if err != nil {
		s.t.Fatal(err)
	}
	at, ok := s.at[node]
	if !ok {
		at = chain.Start(chain.ID{byte(len(s.at) + 1)})
	}
	for n > 0 {
		b := &chain.Batch{Before: at}
		for ; n > 0 && len(b.Entries) < 100; n-- {
			body := fmt.Appendf(nil, "type=SYSCALL msg=audit(1795000336.990:%d): arch=c000003e syscall=59 success=yes exit=0 pid=42 auid=1000 uid=0 ses=3 exe=\"/bin/sh\" key=\"ts-exec\"\n", at.Seq+1)
			e := chain.Entry{Seq: at.Seq + 1, Time: time.Now(), Kind: chain.KindEvent, Body: body, Context: chain.Context{Pod: "till", Namespace: "shop"}}
			raw, err := e.Append(nil)
			if err != nil {
				s.t.Fatal(err)
			}
			b.Entries, at = append(b.Entries, raw), at.After(raw)
		}
		if _, err := f.Append(b, time.Time{}, false); err != nil {
			s.t.Fatal(err)
		}
	}
	s.at[node] = at
}

func (s *source) export(c Config) (*Exporter, func()) {
	s.t.Helper()
	x, err := Open(c, s.a, filepath.Join(s.dir, "export"), slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); x.Run(ctx) }()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	s.t.Cleanup(stop)
	return x, stop
}

// got is what a receiver has: how often each ID came.
type got struct {
	mu    sync.Mutex
	ids   map[string]int
	lines []string
}

func newGot() *got { return &got{ids: map[string]int{}} }

func (g *got) take(id, line string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ids[id]++
	if len(g.lines) < 10 || strings.Contains(line, "not-exported") {
		g.lines = append(g.lines, line)
	}
}

func (g *got) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.ids)
}

// complete waits until all entries of a node from first to last are there.
func (g *got) complete(t testing.TB, s *source, node string, first, last uint64) {
	t.Helper()
	id := s.at[node].Chain
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		missing := uint64(0)
		g.mu.Lock()
		for seq := first; seq <= last; seq++ {
			if g.ids[fmt.Sprintf("%s/%v/%d", node, id, seq)] == 0 {
				missing = seq
				break
			}
		}
		n := len(g.ids)
		g.mu.Unlock()
		if missing == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("entry %d of %s did not come; %d are there", missing, node, n)
		}
	}
}

var idOf = regexp.MustCompile(`\[touchstone@32473 seq="[0-9]+" id="([^"]+)"`)

// read reads frames of RFC 6587 until the connection ends.
func (g *got) read(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		size, err := r.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(size, " "))
		if err != nil {
			g.take("broken frame "+size, "")
			return
		}
		line := make([]byte, n)
		if _, err := io.ReadFull(r, line); err != nil {
			return
		}
		m := idOf.FindSubmatch(line)
		if m == nil || !strings.HasPrefix(string(line), "<1") {
			g.take("no message: "+string(line), "")
			continue
		}
		g.take(string(m[1]), string(line))
	}
}

// listen is a receiver of syslog; c nil: over TCP.
func (g *got) listen(t testing.TB, address string, c *tls.Config) (net.Listener, func()) {
	t.Helper()
	var l net.Listener
	var err error
	for range 100 {
		if l, err = net.Listen("tcp", address); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	if c != nil {
		l = tls.NewListener(l, c)
	}
	var mu sync.Mutex
	var conns []net.Conn
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			go g.read(conn)
		}
	}()
	stop := sync.OnceFunc(func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
	})
	t.Cleanup(stop)
	return l, stop
}

func plainSyslog(l net.Listener) Config {
	return Config{Name: "to", Syslog: &Syslog{Address: l.Addr().String(), TLS: TLS{Plain: true}}}
}

// TestSyslog: what is there at first is not sent, all that comes is, over an outage and a new start, and the cursor says so.
func TestSyslog(t *testing.T) {
	s, g := newSource(t, archive.Options{}), newGot()
	s.add(node, 5)
	l, stop := g.listen(t, "127.0.0.1:0", nil)
	x, end := s.export(plainSyslog(l))
	s.add(node, 700)
	s.add("worker-2", 3)
	x.Wake(node)
	x.Wake("worker-2")
	g.complete(t, s, node, 6, 705)
	g.complete(t, s, "worker-2", 1, 3)
	if n := g.count(); n != 703 {
		t.Errorf("%d entries came, want 703", n)
	}
	for end := time.Now().Add(20 * time.Second); x.Stats().Behind > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("stats: got %+v, want nothing behind", x.Stats())
		}
	}
	stop()
	s.add(node, 300)
	x.Wake(node)
	time.Sleep(300 * time.Millisecond)
	l, _ = g.listen(t, l.Addr().String(), nil)
	g.complete(t, s, node, 706, 1005)
	end()
	s.add(node, 10)
	s.export(plainSyslog(l))
	g.complete(t, s, node, 1006, 1015)
	if st := x.Stats(); st.Missing+st.Refused > 0 || st.Failures == 0 {
		t.Errorf("stats: got %+v, want failures only", st)
	}
	if want := `touchstone - event [touchstone@32473 seq="6" id="worker-1/`; !strings.Contains(strings.Join(g.lines, "\n"), want) {
		t.Errorf("lines: got %q, want %q in one", g.lines, want)
	}
}

// TestReceiverLoses: a receiver that dies with what it had not read yet gets it again.
func TestReceiverLoses(t *testing.T) {
	s, g := newSource(t, archive.Options{}), newGot()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x, _ := s.export(plainSyslog(l))
	s.add(node, 50)
	x.Wake(node)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); x.Stats().Sent < 50 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	_ = conn.Close() // its kernel had acknowledged all of it
	_ = l.Close()
	g.listen(t, l.Addr().String(), nil)
	g.complete(t, s, node, 1, 50)
}

// TestRetention: what the archive removed before it could be sent is told as a gap with its numbers.
func TestRetention(t *testing.T) {
	s, g := newSource(t, archive.Options{Segment: 4 << 10, MaxBytes: 32 << 10}), newGot()
	s.add(node, 10)
	l, stop := g.listen(t, "127.0.0.1:0", nil)
	_, end := s.export(plainSyslog(l))
	end()
	stop()
	s.add(node, 40000)
	f, err := s.a.Node(node)
	if err != nil {
		t.Fatal(err)
	}
	cut := f.Cut().Seq
	if cut == 0 {
		t.Fatal("the archive removed nothing")
	}
	l, _ = g.listen(t, l.Addr().String(), nil)
	x, _ := s.export(plainSyslog(l))
	g.complete(t, s, node, cut+1, 40010)
	want := fmt.Sprintf("entries 11 to %d of chain %v", cut, s.at[node].Chain)
	g.mu.Lock()
	defer g.mu.Unlock()
	if !strings.Contains(strings.Join(g.lines, "\n"), want) {
		t.Errorf("lines: got %q, want %q in one", g.lines, want)
	}
	if st := x.Stats(); st.Missing != cut-10 {
		t.Errorf("stats: got %+v, want %d missing", st, cut-10)
	}
}

// authorityFor makes a certificate for 127.0.0.1 and writes it to a file.
func authorityFor(t testing.TB) (file string, c *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "siem"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// TestTLS: events go to who has the right certificate, and to nobody else.
func TestTLS(t *testing.T) {
	s, g := newSource(t, archive.Options{}), newGot()
	ca, c := authorityFor(t)
	_, foreign := authorityFor(t)
	l, stop := g.listen(t, "127.0.0.1:0", foreign)
	x, _ := s.export(Config{Name: "to", Syslog: &Syslog{Address: l.Addr().String(), TLS: TLS{CA: ca}}})
	s.add(node, 20)
	x.Wake(node)
	for end := time.Now().Add(10 * time.Second); x.Stats().Failures == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a receiver with a foreign certificate is no failure")
		}
	}
	if n := g.count(); n > 0 {
		t.Fatalf("%d entries went to a receiver with a foreign certificate", n)
	}
	stop()
	g.listen(t, l.Addr().String(), c)
	g.complete(t, s, node, 1, 20)
}

// otlp is a receiver of OTLP that decodes with the official types.
func (g *got) otlp(refuse func(n int, ids []string) (int, *collector.ExportLogsPartialSuccess)) http.Handler {
	n := 0
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sender was killed
		}
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil || r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			g.take(fmt.Sprint("bad request: ", err, r.URL, r.Header), "")
			return
		}
		b, err := io.ReadAll(z)
		req := new(collector.ExportLogsServiceRequest)
		if err == nil {
			err = proto.Unmarshal(b, req)
		}
		if err != nil {
			g.take("no request: "+err.Error(), "")
			return
		}
		var ids, lines []string
		for _, rl := range req.ResourceLogs {
			host := ""
			for _, a := range rl.Resource.Attributes {
				if a.Key == "host.name" {
					host = a.Value.GetStringValue()
				}
			}
			for _, sl := range rl.ScopeLogs {
				for _, l := range sl.LogRecords {
					line := host + " " + l.EventName + " " + l.Body.GetStringValue()
					for _, a := range l.Attributes {
						line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
						if a.Key == "log.record.uid" {
							ids = append(ids, a.Value.GetStringValue())
						}
					}
					lines = append(lines, line)
				}
			}
		}
		g.mu.Lock()
		n++
		turn := n
		g.mu.Unlock()
		answer := new(collector.ExportLogsServiceResponse)
		if refuse != nil {
			code, p := refuse(turn, ids)
			if code != 0 {
				w.WriteHeader(code)
				return
			}
			answer.PartialSuccess = p
		}
		for i := range ids {
			g.take(ids[i], lines[i])
		}
		out, err := proto.Marshal(answer)
		if err == nil {
			_, err = w.Write(out)
		}
		if err != nil {
			g.take(err.Error(), "")
		}
	})
}

// TestOTLP: entries come as records of OpenTelemetry with all that identifies them; who is busy gets them later, and what is refused for good keeps nothing back.
func TestOTLP(t *testing.T) {
	s, g := newSource(t, archive.Options{}), newGot()
	poison := ""
	busy, partly := 0, 0
	server := httptest.NewServer(g.otlp(func(n int, ids []string) (int, *collector.ExportLogsPartialSuccess) {
		if n == 1 {
			busy++
			return http.StatusServiceUnavailable, nil
		}
		for _, id := range ids {
			if id == poison {
				return http.StatusBadRequest, nil
			}
		}
		if partly++; partly == 1 {
			return 0, &collector.ExportLogsPartialSuccess{RejectedLogRecords: 2, ErrorMessage: "no"}
		}
		return 0, nil
	}))
	defer server.Close()
	x, _ := s.export(Config{Name: "to", OTLP: &OTLP{URL: server.URL + "/v1/logs", TLS: TLS{Plain: true}}})
	s.add(node, 1000)
	poison = fmt.Sprintf("%s/%v/%d", node, s.at[node].Chain, 77)
	x.Wake(node)
	g.complete(t, s, node, 1, 76)
	g.complete(t, s, node, 78, 1000)
	if st := x.Stats(); st.Refused != 3 || st.Failures != 1 || busy != 1 {
		t.Errorf("stats: got %+v, want one failure, and three refused", st)
	}
	line := strings.Join(g.lines, "\n")
	for _, want := range []string{"worker-1 touchstone.audit.event SYSCALL [ts-exec] /bin/sh", "k8s.pod.name=string_value:\"till\"", "process.pid=int_value:42", "log.record.original="} {
		if !strings.Contains(strings.ReplaceAll(line, ":  ", ":"), want) && !strings.Contains(strings.ReplaceAll(line, ": ", ":"), want) {
			t.Errorf("records: got %q, want %q in one", g.lines[:1], want)
		}
	}
}

// TestKill9 kills the exporter again and again while entries come: each arrives, to either kind of receiver.
func TestKill9(t *testing.T) {
	for _, kind := range []string{"syslog", "otlp"} {
		t.Run(kind, func(t *testing.T) {
			s, g := newSource(t, archive.Options{}), newGot()
			target := ""
			if kind == "otlp" {
				server := httptest.NewServer(g.otlp(nil))
				defer server.Close()
				target = server.URL + "/v1/logs"
			} else {
				l, _ := g.listen(t, "127.0.0.1:0", nil)
				target = l.Addr().String()
			}
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			begin := func() *exec.Cmd {
				cmd := exec.Command(exe, "-test.run=^$")
				cmd.Env = append(os.Environ(), crash+"="+s.dir, crash+"_URL="+target)
				cmd.Stderr = os.Stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				return cmd
			}
			kill := func(cmd *exec.Cmd) {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
			// The first one makes the cursors, of an archive with nothing in it.
			first := begin()
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				if _, err := os.Stat(filepath.Join(s.dir, "export", "to.json")); err == nil {
					break
				}
				if time.Now().After(end) {
					t.Fatal("no cursors")
				}
			}
			kill(first)
			for round := range 8 {
				s.add(node, 3000)
				cmd := begin()
				time.Sleep(time.Duration(150+90*round) * time.Millisecond)
				kill(cmd)
			}
			last := begin()
			defer kill(last)
			g.complete(t, s, node, 1, 24000)
			g.mu.Lock()
			defer g.mu.Unlock()
			twice := 0
			for id, n := range g.ids {
				if !strings.HasPrefix(id, node+"/") {
					t.Errorf("came: %q", id)
				}
				if n > 1 {
					twice++
				}
			}
			t.Logf("%d of %d entries came more than once", twice, len(g.ids))
		})
	}
}

func TestValidate(t *testing.T) {
	good := []Config{
		{Name: "siem", Syslog: &Syslog{Address: "siem:6514"}},
		{Name: "otel", OTLP: &OTLP{URL: "https://c:4318/v1/logs", TokenFile: "/x"}},
		{Name: "lab", OTLP: &OTLP{URL: "http://c:4318/v1/logs", TLS: TLS{Plain: true}}},
	}
	if err := Validate(good); err != nil {
		t.Errorf("Validate(): %v", err)
	}
	for name, c := range map[string][]Config{
		"no name":         {{Syslog: &Syslog{Address: "a:1"}}},
		"a path":          {{Name: "../x", Syslog: &Syslog{Address: "a:1"}}},
		"twice":           {good[0], good[0]},
		"neither":         {{Name: "a"}},
		"both":            {{Name: "a", Syslog: good[0].Syslog, OTLP: good[1].OTLP}},
		"no port":         {{Name: "a", Syslog: &Syslog{Address: "siem"}}},
		"http unsaid":     {{Name: "a", OTLP: &OTLP{URL: "http://c/v1/logs"}}},
		"no path":         {{Name: "a", OTLP: &OTLP{URL: "https://c"}}},
		"half a pair":     {{Name: "a", Syslog: &Syslog{Address: "a:1", TLS: TLS{Key: "k"}}}},
		"plain, and a CA": {{Name: "a", Syslog: &Syslog{Address: "a:1", TLS: TLS{Plain: true, CA: "c"}}}},
	} {
		if err := Validate(c); err == nil {
			t.Errorf("%s: Validate(): got nil", name)
		}
	}
}

func FuzzPartial(f *testing.F) {
	b, err := proto.Marshal(&collector.ExportLogsServiceResponse{PartialSuccess: &collector.ExportLogsPartialSuccess{RejectedLogRecords: 7, ErrorMessage: "why"}})
	if err != nil {
		f.Fatal(err)
	}
	if n, why := partial(b); n != 7 || why != "why" {
		f.Fatalf("partial(): got %d, %q", n, why)
	}
	f.Add(b)
	f.Add([]byte("<html>"))
	f.Fuzz(func(_ *testing.T, b []byte) { partial(b) })
}
