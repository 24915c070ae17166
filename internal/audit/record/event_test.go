package record_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"touchstone.dev/touchstone/internal/audit/record"
)

// realEvents groups the real log by event: it has no interleaving.
func realEvents(tb testing.TB) []*record.Event {
	tb.Helper()
	var events []*record.Event
	for _, l := range realLog(tb) {
		id, r, err := record.ParseLine(l)
		if err != nil {
			tb.Fatal(err)
		}
		if n := len(events); n > 0 && events[n-1].ID == id {
			events[n-1].Records = append(events[n-1].Records, r)
		} else {
			events = append(events, &record.Event{ID: id, Records: []record.Record{r}})
		}
	}
	return events
}

// bySerial returns the real event with this serial number.
func bySerial(tb testing.TB, serial uint64) *record.Event {
	tb.Helper()
	for _, e := range realEvents(tb) {
		if e.ID.Serial == serial {
			return e
		}
	}
	tb.Fatalf("no event %d in the log", serial)
	return nil
}

// event makes an event of lines that lack their header.
func event(tb testing.TB, lines ...string) *record.Event {
	tb.Helper()
	for i, l := range lines {
		typ, body, _ := strings.Cut(l, " ")
		lines[i] = "type=" + typ + " msg=audit(1.000:1): " + body
	}
	e, err := record.Parse([]byte(strings.Join(lines, "\n")))
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func TestRawAndBack(t *testing.T) {
	for _, e := range realEvents(t) {
		raw := e.Raw()
		back, err := record.Parse(raw)
		if err != nil {
			t.Fatalf("Parse(Raw of %v): %v", e.ID, err)
		}
		if diff := cmp.Diff(e, back); diff != "" {
			t.Errorf("Parse(Raw of %v) (-want +got):\n%s", e.ID, diff)
		}
		clone := back.Clone()
		clear(raw)
		if diff := cmp.Diff(e, clone); diff != "" {
			t.Errorf("Clone of %v (-want +got):\n%s", e.ID, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const ok = "type=CWD msg=audit(1.000:1): cwd=\"/\"\n"
	for _, test := range []struct{ name, in string }{
		{"nothing", ""},
		{"empty line", ok + "\n" + ok},
		{"two events", ok + strings.Replace(ok, ":1)", ":2)", 1)},
		{"two times", ok + strings.Replace(ok, ".000", ".001", 1)},
		{"two nodes", ok + "node=a " + ok},
		{"too many records", strings.Repeat(ok, record.MaxRecords+1)},
		{"too many bytes", strings.Repeat(ok, record.MaxEvent/len(ok)+1)},
		{"long line", strings.Replace(ok, "/", strings.Repeat("/", 2*record.MaxLine), 1)},
	} {
		if _, err := record.Parse([]byte(test.in)); !errors.Is(err, record.ErrMalformed) {
			t.Errorf("Parse(%s): got %v, want %v", test.name, err, record.ErrMalformed)
		}
	}
}

func TestProcess(t *testing.T) {
	e := bySerial(t, 110)
	got, ok := e.Process()
	if !ok {
		t.Fatal("no process")
	}
	want := record.Process{PID: 23005, PPID: 22969, AUID: record.Unset, Session: record.Unset, Syscall: 257, Arch: 0xc000003e, Exit: 4, Success: true}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(record.Process{}, "PID")); diff != "" || got.PID == 0 {
		t.Errorf("Process (-want +got):\n%s", diff)
	}
	failed, _ := event(t, "SYSCALL arch=40000003 syscall=5 success=no exit=-13 pid=4294967295 uid=4294967296 auid=x").Process()
	if failed.Exit != -13 || !failed.Failed || failed.Success || failed.UID != record.Unset || failed.AUID != record.Unset {
		t.Errorf("Process: got %+v, want exit -13, failed, uid and auid unset", failed)
	}
	if _, ok := event(t, "DAEMON_END op=terminate auid=0 pid=1 res=success").Process(); ok {
		t.Error("Process of DAEMON_END: got one, want none: the kernel stamped nothing")
	}
}

func TestPartsOfRealEvents(t *testing.T) {
	e := bySerial(t, 110)
	var got []string
	for _, p := range e.Paths() {
		got = append(got, string(p.Name)+" "+string(p.Kind))
	}
	if want := []string{"/tmp/ar/run/w/ PARENT", "/tmp/ar/run/w/a b CREATE"}; !slices.Equal(got, want) {
		t.Errorf("Paths: got %q, want %q", got, want)
	}
	if p := e.Paths()[1]; p.Mode != 0o100644 || p.Inode != 12329634 || string(p.Dev) != "fe:00" || p.UID != 0 || p.Item != 1 {
		t.Errorf("Paths[1]: got %+v", p)
	}
	if cwd, _ := e.CWD(); string(cwd) != "/tmp/ar/run" {
		t.Errorf("CWD: got %q", cwd)
	}
	if keys := e.Keys(); len(keys) != 1 || string(keys[0]) != "ts-two" {
		t.Errorf("Keys: got %q, want ts-two", keys)
	}
	if title := e.Proctitle(); len(title) != 3 || string(title[1]) != "/tmp/ar/run/w/a b" {
		t.Errorf("Proctitle: got %q", title)
	}
	if m := e.Main(); m.Type != record.TypeSyscall {
		t.Errorf("Main: got %v, want SYSCALL", m.Type)
	}
	if m := bySerial(t, 5).Main(); m.Type != record.TypeConfigChange {
		t.Errorf("Main: got %v, want CONFIG_CHANGE", m.Type)
	}
	if keys := bySerial(t, 5).Keys(); keys != nil {
		t.Errorf("Keys of a change of rules: got %q, want none: the key is the changed rule's", keys)
	}
	if keys := event(t, "SYSCALL pid=1 key=74732D610174732D62").Keys(); len(keys) != 2 || string(keys[1]) != "ts-b" {
		t.Errorf("Keys: got %q, want ts-a and ts-b", keys)
	}
}

func TestArgv(t *testing.T) {
	e := bySerial(t, 400)
	a, ok := e.Argv()
	if !ok || !a.Complete || len(a.Args) != 3 || string(a.Args[1]) != strings.Repeat(" ", 20000) || string(a.Args[2]) != "end" {
		t.Errorf("Argv of 20000 spaces: got %d arguments, complete %v", len(a.Args), a.Complete)
	}
	lost := *e
	lost.Records = slices.Clone(e.Records)
	for i, r := range lost.Records {
		if r.Type == record.TypeExecve && bytes.Contains(r.Body, []byte("a1[3]")) {
			lost.Records = slices.Delete(lost.Records, i, i+1)
			break
		}
	}
	if a, _ := lost.Argv(); a.Complete {
		t.Error("Argv without the part a1[3]: complete")
	}
	for _, test := range []struct {
		name     string
		lines    []string
		want     []string
		complete bool
	}{
		{"quoted, hex, empty", []string{`EXECVE argc=4 a0="ls" a1="-l" a2=612062 a3=""`}, []string{"ls", "-l", "a b", ""}, true},
		{"quoted parts", []string{`EXECVE argc=2 a0="x" a1_len=4 a1[0]="ab"`, `EXECVE  a1[1]="cd"`}, []string{"x", "abcd"}, true},
		{"many records", []string{`EXECVE argc=3 a0="x" a1="y"`, `EXECVE  a2="z"`}, []string{"x", "y", "z"}, true},
		{"argument lost", []string{`EXECVE argc=3 a0="x"`, `EXECVE  a2="z"`}, []string{"x", "z"}, false},
		{"end lost", []string{`EXECVE argc=3 a0="x" a1="y"`}, []string{"x", "y"}, false},
		{"first lost", []string{`EXECVE  a1[1]=6162 a2="z"`}, []string{"ab", "z"}, false},
		{"number beyond all", []string{`EXECVE argc=99999999999999999999 a0="x" a999999999="y"`}, []string{"x", "y"}, false},
	} {
		a, ok := event(t, test.lines...).Argv()
		if !ok {
			t.Fatalf("Argv(%s): none", test.name)
		}
		got := make([]string, len(a.Args))
		for i, arg := range a.Args {
			got[i] = string(arg)
		}
		if !slices.Equal(got, test.want) || a.Complete != test.complete {
			t.Errorf("Argv(%s): got %q, complete %v, want %q, %v", test.name, got, a.Complete, test.want, test.complete)
		}
	}
	if _, ok := event(t, "CWD cwd=\"/\"").Argv(); ok {
		t.Error("Argv of an event that executed nothing: got one")
	}
}

func TestSockaddr(t *testing.T) {
	six := hex.EncodeToString(netip.MustParseAddr("2001:db8::1").AsSlice())
	for _, test := range []struct {
		saddr string
		want  record.Sockaddr
		ok    bool
	}{
		{"02000D057F0000010000000000000000", record.Sockaddr{Family: 2, Addr: netip.MustParseAddrPort("127.0.0.1:3333")}, true},
		{"0A00115C00000000" + six + "00000000", record.Sockaddr{Family: 10, Addr: netip.MustParseAddrPort("[2001:db8::1]:4444")}, true},
		{"01002F72756E2F7800FFFF", record.Sockaddr{Family: 1, Path: []byte("/run/x")}, true},
		{"010000616273", record.Sockaddr{Family: 1, Path: []byte("@abs")}, true},
		{"0100", record.Sockaddr{Family: 1, Path: []byte{}}, true},
		{"100000000700000002000000", record.Sockaddr{Family: 16, PID: 7, Groups: 2}, true},
		{"1100", record.Sockaddr{Family: 17}, true},
		{"02000D05", record.Sockaddr{}, false},
		{"0A00115C", record.Sockaddr{}, false},
		{"02", record.Sockaddr{}, false},
		{"(null)", record.Sockaddr{}, false},
	} {
		got, ok := event(t, "SOCKADDR saddr="+test.saddr).Sockaddr()
		if ok != test.ok {
			t.Errorf("Sockaddr(%s): got %v, want %v", test.saddr, ok, test.ok)
		}
		if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); ok && diff != "" {
			t.Errorf("Sockaddr(%s) (-want +got):\n%s", test.saddr, diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, e := range realEvents(f) {
		f.Add(e.Raw())
	}
	f.Add([]byte("node=a type=USER_CMD msg=audit(1.000:1): pid=1 msg='cmd=6C73 ' pid=2 msg='x='\x1dUID=\"root\"\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := record.Parse(raw)
		if err != nil {
			return
		}
		canonical := e.Raw()
		again, err := record.Parse(canonical)
		if err != nil {
			t.Fatalf("Parse of canonical bytes: %v\n%q", err, canonical)
		}
		if !bytes.Equal(again.Raw(), canonical) {
			t.Fatalf("Raw is not stable: %q, then %q", canonical, again.Raw())
		}
		e.Process()
		e.Paths()
		e.Argv()
		e.Sockaddr()
		e.Keys()
		e.Proctitle()
		for _, r := range e.Records {
			for name := range r.Fields() {
				if _, ok := r.Field(string(name)); !ok {
					t.Fatalf("Fields gives %q, Field does not, in %q", name, r.Body)
				}
				r.Text(string(name))
			}
			for name := range r.ClaimedFields() {
				r.ClaimedText(string(name))
			}
		}
	})
}
