package record_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/record"
)

// collector keeps what a Coalescer emits, in short: "serial:TYPE,TYPE" with "!" when it is partial.
type collector struct {
	*record.Coalescer
	got []string
	bad []string
	raw [][]byte
}

func collect(o record.Options) *collector {
	c := &collector{}
	o.Emit = func(e *record.Event) {
		var types []string
		for _, r := range e.Records {
			types = append(types, r.Type.String())
		}
		mark := ""
		if e.Partial {
			mark = "!"
		}
		c.got = append(c.got, fmt.Sprintf("%s%d%s:%s", e.ID.Node, e.ID.Serial, mark, strings.Join(types, ",")))
		c.raw = append(c.raw, e.Raw())
	}
	o.Malformed = func(line []byte, at int64) { c.bad = append(c.bad, fmt.Sprintf("%d:%s", at, line)) }
	c.Coalescer = record.NewCoalescer(o)
	return c
}

// lines makes log lines of "[node/]serial@seconds TYPE body".
func lines(in ...string) string {
	var b strings.Builder
	for _, l := range in {
		head, rest, _ := strings.Cut(l, " ")
		typ, body, _ := strings.Cut(rest, " ")
		if node, after, ok := strings.Cut(head, "/"); ok {
			fmt.Fprintf(&b, "node=%s ", node)
			head = after
		}
		serial, sec, ok := strings.Cut(head, "@")
		if !ok {
			sec = "1.000"
		}
		fmt.Fprintf(&b, "type=%s msg=audit(%s:%s): %s\n", typ, sec, serial, body)
	}
	return b.String()
}

func TestCoalescer(t *testing.T) {
	for _, test := range []struct {
		name  string
		in    string
		opts  record.Options
		want  []string // before Flush
		flush []string // by Flush
	}{
		{name: "interleaved", in: lines("1 SYSCALL items=1", "2 SYSCALL items=0", "1 PATH item=0", "2 PROCTITLE", "1 PROCTITLE"),
			want: []string{"2:SYSCALL,PROCTITLE", "1:SYSCALL,PATH,PROCTITLE"}},
		{name: "nodes", in: lines("a/1 SYSCALL items=0", "b/1 SYSCALL items=0", "b/1 PROCTITLE", "a/1 PROCTITLE", "1 USER_CMD"),
			want: []string{"b1:SYSCALL,PROCTITLE", "a1:SYSCALL,PROCTITLE", "1:USER_CMD"}},
		{name: "same serial, other time", in: lines("1@1.000 SYSCALL items=0", "1@1.001 SYSCALL items=0", "1@1.000 PROCTITLE"),
			want: []string{"1:SYSCALL,PROCTITLE"}, flush: []string{"1!:SYSCALL"}},
		{name: "EOE", in: lines("1 SYSCALL items=0", "1 EOE", "1 EOE", "2 EOE"), want: []string{"1:SYSCALL"}},
		{name: "EOE after PROCTITLE", in: lines("1 SYSCALL items=0", "1 PROCTITLE", "1 EOE"), want: []string{"1:SYSCALL,PROCTITLE"}},
		{name: "alone", in: lines("1 USER_LOGIN pid=1 msg='x'", "2 DAEMON_START op=start", "3 KERNEL state=initialized", "4 ANOM_LOGIN_FAILURES pid=1"),
			want: []string{"1:USER_LOGIN", "2:DAEMON_START", "3:KERNEL", "4:ANOM_LOGIN_FAILURES"}},
		{name: "kernel without a call", in: lines("1 ANOM_ABEND pid=1", "2 UNKNOWN[1999] x=1"), flush: []string{"1:ANOM_ABEND", "2:UNKNOWN[1999]"}},
		{name: "with a call", in: lines("1 CONFIG_CHANGE op=x", "1 SYSCALL items=0", "1 PROCTITLE", "2 LANDLOCK_ACCESS x", "2 SYSCALL items=0", "2 PROCTITLE"),
			want: []string{"1:CONFIG_CHANGE,SYSCALL,PROCTITLE", "2:LANDLOCK_ACCESS,SYSCALL,PROCTITLE"}},
		{name: "by the records' clock", in: lines("1@1.000 SYSCALL items=0", "2@3.000 SYSCALL items=0", "3@3.001 SYSCALL items=0"),
			want: []string{"1!:SYSCALL"}, flush: []string{"2!:SYSCALL", "3!:SYSCALL"}},
		{name: "a call that slept an hour", in: lines("1@5000.000 SYSCALL items=0", "2@1400.000 SYSCALL items=1", "3@5001.900 USER", "2@1400.000 PATH item=0", "2@1400.000 PROCTITLE", "1@5000.000 PROCTITLE"),
			want: []string{"3:USER", "2:SYSCALL,PATH,PROCTITLE", "1:SYSCALL,PROCTITLE"}},
		{name: "too many open", opts: record.Options{MaxOpen: 2}, in: lines("1 SYSCALL items=0", "2 SYSCALL items=0", "3 SYSCALL items=0", "2 PROCTITLE", "1 PROCTITLE"),
			want: []string{"1!:SYSCALL", "2:SYSCALL,PROCTITLE", "1!:PROCTITLE"}, flush: []string{"3!:SYSCALL"}},
		{name: "too many bytes open", opts: record.Options{OpenBytes: 20}, in: lines("1 SYSCALL items=0", "2 SYSCALL items=0", "3 SYSCALL items=0"),
			want: []string{"1!:SYSCALL"}, flush: []string{"2!:SYSCALL", "3!:SYSCALL"}},
		{name: "path missing", in: lines("1 SYSCALL items=2", "1 PATH item=0", "1 PROCTITLE", "2 SYSCALL items=2", "2 PATH item=1", "2 PATH item=0", "2 PROCTITLE"),
			want: []string{"1!:SYSCALL,PATH,PROCTITLE", "2!:SYSCALL,PATH,PATH,PROCTITLE"}},
		{name: "hidden path", in: lines("1 SYSCALL arch=c000003e syscall=240 items=2", "1 PATH item=0", "1 PROCTITLE"), want: []string{"1:SYSCALL,PATH,PROCTITLE"}},
		{name: "call missing", in: lines("1 PATH item=0", "1 PROCTITLE", "2 CWD cwd=x"), want: []string{"1!:PATH,PROCTITLE"}, flush: []string{"2!:CWD"}},
		{name: "arguments missing", in: lines("1 SYSCALL items=0", "1 EXECVE argc=2 a0=\"x\"", "1 PROCTITLE", "2 SYSCALL items=0", "2 EXECVE argc=1 a0=\"x\"", "2 PROCTITLE"),
			want: []string{"1!:SYSCALL,EXECVE,PROCTITLE", "2:SYSCALL,EXECVE,PROCTITLE"}},
		{name: "io_uring", in: lines("1 URINGOP uring_op=18 items=0"), flush: []string{"1:URINGOP"}},
	} {
		c := collect(test.opts)
		c.Write([]byte(test.in))
		if !slices.Equal(c.got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, c.got, test.want)
		}
		before := len(c.got)
		c.Flush()
		if got := c.got[before:]; !slices.Equal(got, test.flush) {
			t.Errorf("%s, Flush: got %q, want %q", test.name, got, test.flush)
		}
		if len(c.bad) > 0 || c.Open() != 0 {
			t.Errorf("%s: malformed %q, %d open after Flush", test.name, c.bad, c.Open())
		}
	}
}

func TestCoalescerTick(t *testing.T) {
	c := collect(record.Options{})
	now := time.Unix(1000, 0)
	c.Write([]byte(lines("1 SECCOMP sig=0")))
	c.Tick(now)
	c.Tick(now.Add(1900 * time.Millisecond))
	if len(c.got) != 0 {
		t.Errorf("after 1.9 s: got %q, want none", c.got)
	}
	c.Tick(now.Add(-time.Hour)) // the clock was set back: the time begins anew
	c.Tick(now.Add(-time.Hour + 1900*time.Millisecond))
	if len(c.got) != 0 {
		t.Errorf("after the clock was set back: got %q, want none", c.got)
	}
	c.Tick(now.Add(-time.Hour + 2*time.Second))
	if want := []string{"1:SECCOMP"}; !slices.Equal(c.got, want) {
		t.Errorf("after 2 s: got %q, want %q", c.got, want)
	}
}

func TestCoalescerMessages(t *testing.T) {
	c := collect(record.Options{})
	c.Message(1300, []byte("audit(1.000:1): items=0 pid=1\x00"))
	c.Message(1320, []byte("audit(1.000:1): "))
	c.Message(1107, []byte("audit(1.000:2): pid=1 msg='x'"))
	c.Message(1300, []byte("audit(broken"))
	if want := []string{"1:SYSCALL", "2:USER_AVC"}; !slices.Equal(c.got, want) || len(c.bad) != 1 {
		t.Errorf("got %q, malformed %q, want %q and one malformed", c.got, c.bad, want)
	}
}

func TestCoalescerMalformed(t *testing.T) {
	long := "type=CWD msg=audit(1.000:5): " + strings.Repeat("x", record.MaxLine)
	begin := "garbage\n" + lines("1 USER a")
	in := begin + long + "\n\n" + lines("2 USER b") + "type=SYSC"
	want := []string{"0:garbage", fmt.Sprintf("%d:%s", len(begin), long[:record.MaxLine]), fmt.Sprintf("%d:", len(begin)+len(long)+1), fmt.Sprintf("%d:type=SYSC", len(in)-9)}
	for _, step := range []int{1, 7, 4096, len(in)} {
		c := collect(record.Options{})
		for rest := []byte(in); len(rest) > 0; rest = rest[min(step, len(rest)):] {
			c.Write(rest[:min(step, len(rest))])
		}
		if c.Safe() != int64(len(in)-9) {
			t.Errorf("Safe: got %d, want %d, where the line without end begins", c.Safe(), len(in)-9)
		}
		c.Flush()
		if !slices.Equal(c.bad, want) {
			t.Errorf("steps of %d: malformed %.80q, want %.80q", step, c.bad, want)
		}
		if want := []string{"1:USER", "2:USER"}; !slices.Equal(c.got, want) {
			t.Errorf("steps of %d: got %q, want %q", step, c.got, want)
		}
	}
}

// TestCoalescerBrokenAnywhere: where reads end makes no difference.
func TestCoalescerBrokenAnywhere(t *testing.T) {
	in := append(bytes.Join(realLog(t)[:32], []byte("\n")), '\n')
	whole := collect(record.Options{})
	whole.Write(in)
	if len(whole.got) != 9 || whole.Stats().Partial != 0 {
		t.Fatalf("got %d events, %d partial: %q", len(whole.got), whole.Stats().Partial, whole.got)
	}
	for cut := range len(in) {
		c := collect(record.Options{})
		c.Write(in[:cut])
		safe := c.Safe()
		if n := len(c.got); safe < int64(cut) {
			// Another reader that begins at Safe sees what this one did not emit, and nothing before.
			again := collect(record.Options{})
			again.Write(in[safe:])
			if !slices.Equal(append(slices.Clone(c.got[:n]), again.got...), whole.got) {
				t.Fatalf("cut at %d, taken over at %d: got %q and %q", cut, safe, c.got, again.got)
			}
		}
		c.Write(in[cut:])
		if !slices.Equal(c.got, whole.got) || len(c.bad) > 0 {
			t.Fatalf("cut at %d: got %q, want %q (malformed %q)", cut, c.got, whole.got, c.bad)
		}
	}
}

func TestRealLog(t *testing.T) {
	c := collect(record.Options{})
	in := append(bytes.Join(realLog(t), []byte("\n")), '\n')
	c.Write(in)
	if s := c.Stats(); s.Events != 74 || s.Partial != 0 || s.Malformed != 0 || c.Open() != 0 {
		t.Errorf("got %+v, %d open, want 74 events, none partial", s, c.Open())
	}
	if got := bytes.Join(c.raw, nil); !bytes.Equal(got, in) {
		t.Error("Raw of all events differs from the log")
	}
}

// TestCoalescerShuffled: records of many open events in any order come out by event, none lost, against a map.
func TestCoalescerShuffled(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var in []string
		want := map[string]int{}
		for e := range 500 {
			in = append(in, lines(fmt.Sprintf("%d SECCOMP sig=0", e*rng.IntN(5)*1000+e)))
		}
		for range 2 {
			rng.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
			for _, l := range in {
				want[l]++
			}
		}
		c := collect(record.Options{})
		for range 2 {
			for _, l := range in {
				c.Write([]byte(l))
				if rng.IntN(4) == 0 { // close some
					c.Write([]byte(strings.Replace(l, "SECCOMP", "EOE", 1)))
				}
			}
		}
		c.Flush()
		got := map[string]int{}
		for _, raw := range c.raw {
			for l := range strings.Lines(string(raw)) {
				got[l]++
			}
		}
		for l, n := range want {
			if got[l] != n {
				t.Fatalf("record %q: came out %d times, want %d", l, got[l], n)
			}
		}
	}
}

func TestCoalescerAllocatesNothing(t *testing.T) {
	in := []byte(burst(2000))
	c := record.NewCoalescer(record.Options{Emit: func(*record.Event) {}})
	c.Write(in)
	if n := testing.AllocsPerRun(5, func() { c.Write(in) }); n > 0 {
		t.Errorf("%v allocations for 2000 events, want none", n)
	}
}

func FuzzCoalescer(f *testing.F) {
	f.Add([]byte(lines("1 SYSCALL items=1", "2 SYSCALL items=0", "1 PATH item=0", "2 PROCTITLE", "1 EOE", "n/3 USER x")), 3)
	f.Add(append(bytes.Join(realLog(f)[:12], []byte("\n")), '\n'), 1000)
	f.Add([]byte("type=SYSCALL msg=audit(1.000:1): \x1d\ntype=EXECVE msg=audit(1.000:1): argc=1 a0_len=1 a0[0]=\n"), 1)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		step = max(1, step)
		opts := record.Options{MaxOpen: 8, OpenBytes: 4096}
		whole, parts := collect(opts), collect(opts)
		whole.Write(in)
		for rest := in; len(rest) > 0; rest = rest[min(step, len(rest)):] {
			parts.Write(rest[:min(step, len(rest))])
		}
		whole.Flush()
		parts.Flush()
		if !slices.Equal(whole.got, parts.got) || !slices.Equal(whole.bad, parts.bad) {
			t.Fatalf("in steps of %d: got %q, at once %q", step, parts.got, whole.got)
		}
		records := uint64(0)
		for i, raw := range whole.raw {
			e, err := record.Parse(raw)
			if err != nil {
				t.Fatalf("event %d: %v", i, err)
			}
			records += uint64(len(e.Records))
		}
		eoe := uint64(bytes.Count(in, []byte("type=EOE")) + bytes.Count(in, []byte("type=UNKNOWN[1320]")))
		if s := whole.Stats(); records > s.Records || records+eoe < s.Records {
			t.Fatalf("%d records came in, %d of them EOE at most, %d came out", s.Records, eoe, records)
		}
	})
}
