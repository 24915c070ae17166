package fleet

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

func newMaker(t testing.TB) *softtpm.CA {
	t.Helper()
	ca, err := softtpm.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func client(t testing.TB, s *server) *operator.Client {
	t.Helper()
	c, err := operator.New(*s.bundle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// lowerFiles takes the soft and hard limit of open files down as far as a test needs; it cannot be raised again by everyone.
func lowerFiles(t testing.TB) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	low := l
	low.Max = min(l.Max, MaxNodes)
	low.Cur = min(l.Cur, low.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
}

func TestProc(t *testing.T) {
	got, err := parseStat([]byte("42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 150 25 0 0 20 0 5 0 1 1 1\n"))
	if err != nil || got != 1750*time.Millisecond {
		t.Errorf("parseStat: got %v, %v; want 1.75s", got, err)
	}
	for _, bad := range []string{"", "42 (a) S 1", "42 (a) S 1 42 42 0 -1 4194560 1 0 0 0 x 25 0"} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q): got %v, want an error", bad, got)
		}
	}
	rss, err := parseStatus([]byte("Name:\taias\nVmHWM:\t 9 kB\nVmRSS:\t    2048 kB\n"))
	if err != nil || rss != 2<<20 {
		t.Errorf("parseStatus: got %d, %v; want 2 MiB", rss, err)
	}
	for _, bad := range []string{"", "VmRSS:\tmuch kB\n"} {
		if got, err := parseStatus([]byte(bad)); err == nil {
			t.Errorf("parseStatus(%q): got %v, want an error", bad, got)
		}
	}
}

func TestReadHeap(t *testing.T) {
	text := "# HELP go_gc_gogc_percent x\ngo_gc_gogc_percent 50\ngo_memstats_next_gc_bytes 1.5e+06\ngo_gc_duration_seconds_count 12\n"
	got, err := readHeap(strings.NewReader(text))
	if want := (heap{live: 1_000_000, runs: 12}); err != nil || got != want {
		t.Errorf("readHeap: got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "go_memstats_next_gc_bytes many\n"} {
		if got, err := readHeap(strings.NewReader(bad)); err == nil {
			t.Errorf("readHeap(%q): got %+v, want an error", bad, got)
		}
	}
}

func TestSum(t *testing.T) {
	ms := func(n ...int) (out []time.Duration) {
		for _, v := range n {
			out = append(out, time.Duration(v)*time.Millisecond)
		}
		return out
	}
	var r Report
	r.sum([]tally{
		{took: ms(5, 1, 3), trusted: 2, errors: map[string]int{"not trusted": 1}, opened: 1},
		{took: ms(2, 4), trusted: 2, errors: map[string]int{"stale-challenge": 2}, opened: 1, resumed: 1},
	}, spent{wall: 2 * time.Second, aias: time.Second, own: 500 * time.Millisecond})
	want := Report{
		Attestations: 5, Trusted: 4, Errors: map[string]int{"not trusted": 1, "stale-challenge": 2}, Opened: 2, Resumed: 1,
		Steady:  Costs{Seconds: 2, PerSecond: 2.5, AIASMicros: 200_000, GeneratorMicros: 100_000, AIASCores: 0.5, GeneratorCores: 0.25},
		Latency: Latency{P50: 3, P95: 5, P99: 5, Max: 5},
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("sum (-want +got):\n%s", diff)
	}
	var none Report
	none.sum([]tally{{}}, spent{wall: time.Second})
	if none.OK || none.Latency != (Latency{}) {
		t.Errorf("sum of nothing: got %+v, want no success", none)
	}
}
