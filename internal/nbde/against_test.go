package nbde

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkAgainstTangd compares with tangd in the same run. Ours decides on a verdict and writes each release to disk. On a busy machine the rates say how
// many processes each has, so compare what a recovery costs. "empty" is a server of Go's that answers without doing anything: no server that the same clients
// ask on the same machine can be faster.
func BenchmarkAgainstTangd(b *testing.B) {
	dir := tangFolder(b)
	keys, err := ReadFolder(dir)
	if err != nil {
		b.Fatal(err)
	}
	kid := keys[slices.IndexFunc(keys, func(h Held) bool { return h.Use == Exchange })].Thumbprint
	r := newRack(b, 200)
	empty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		_, _ = w.Write([]byte(`{"y":""}`))
	}))
	defer empty.Close()
	compare := func(b *testing.B, theirs string, used func() time.Duration) {
		b.Helper()
		var ours, tangd, none load
		n := 0.0
		for b.Loop() {
			none.add(measure(b, empty.Listener.Addr().String(), []string{"/"}, r.body, 2*time.Second))
			before := used()
			t := measure(b, theirs, []string{"/rec/" + kid}, blinded(b, P521, nil), 2*time.Second)
			t.cpu += 1000 * (used() - before).Seconds() / (2 * t.rate)
			tangd.add(t)
			ours.add(measure(b, r.address, r.paths, r.body, 2*time.Second))
			n++
		}
		b.ReportMetric(ours.rate/tangd.rate, "times-the-rate")
		b.ReportMetric(tangd.cpu/ours.cpu, "times-cheaper")
		b.ReportMetric(ours.rate/n, "ours/s")
		b.ReportMetric(tangd.rate/n, "tangd/s")
		b.ReportMetric(none.rate/n, "empty/s")
		b.ReportMetric(ours.cpu/n, "ours-cpu-ms")
		b.ReportMetric(tangd.cpu/n, "tangd-cpu-ms")
		b.ReportMetric(none.cpu/n, "empty-cpu-ms")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("process", func(b *testing.B) { // Debian's tangd, a process for each connection as systemd starts it
		compare(b, strings.TrimPrefix(realTang(b, dir), "http://"), func() time.Duration { return 0 })
	})
	if newer := os.Getenv("TANGD"); newer != "" { // a tangd from version 14 on, which listens itself and forks
		b.Run("fork", func(b *testing.B) {
			address, used := forkingTang(b, newer, dir)
			compare(b, address, used)
		})
	}
}

func (l *load) add(m load) {
	l.rate += m.rate
	l.cpu += m.cpu
}

// forkingTang starts a tangd that listens itself, and returns its address and what it and the processes that it started have used.
func forkingTang(t testing.TB, program, dir string) (address string, used func() time.Duration) {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	_ = l.Close()
	cmd := exec.CommandContext(t.Context(), program, "-l", "-p", port, dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	address = net.JoinHostPort("127.0.0.1", port)
	for range 100 {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = c.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return address, func() time.Duration {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(b), ") ")
		var ticks int64
		for _, f := range strings.Fields(after)[11:15] { // utime, stime and those of children, proc(5)
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			ticks += n
		}
		return time.Duration(ticks) * 10 * time.Millisecond
	}
}
