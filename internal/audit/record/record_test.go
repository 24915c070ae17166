package record_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/audit/record"
)

// realLog is a log of auditd 3.0.9 on kernel 6.18, some repetitions taken out.
func realLog(tb testing.TB) [][]byte {
	tb.Helper()
	b, err := os.ReadFile("testdata/enriched.log")
	if err != nil {
		tb.Fatal(err)
	}
	return bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
}

// line parses one line, or ends the test.
func line(tb testing.TB, s string) (record.ID, record.Record) {
	tb.Helper()
	id, r, err := record.ParseLine([]byte(s))
	if err != nil {
		tb.Fatalf("ParseLine(%q): %v", s, err)
	}
	return id, r
}

func TestTypes(t *testing.T) {
	for _, test := range []struct {
		name string
		want record.Type
		back string // "": the same
	}{
		{"SYSCALL", 1300, ""},
		{"USER_AUTH", 1100, ""},
		{"LANDLOCK_ACCESS", 1423, ""},
		{"UNKNOWN[1423]", 1423, "LANDLOCK_ACCESS"},
		{"UNKNOWN[1339]", 1339, "DM_EVENT"},
		{"UNKNOWN[65535]", 65535, ""},
		{"VIRT_MIGRATE_OUT", 2507, ""},
		{"ACCT_LOCK", 1135, ""},
		{"UNKNOWN[0]", 0, ""},
		{"UNKNOWN[65536]", 0, ""},
		{"UNKNOWN[]", 0, ""},
		{"UNKNOWN[1", 0, ""},
		{"UNKNOWN[-1]", 0, ""},
		{"syscall", 0, ""},
		{"", 0, ""},
	} {
		got, ok := record.ParseType([]byte(test.name))
		if got != test.want || ok != (test.want != 0) {
			t.Errorf("ParseType(%q): got %d, %v, want %d", test.name, got, ok, test.want)
		}
		if test.back == "" {
			test.back = test.name
		}
		if ok && got.String() != test.back {
			t.Errorf("Type(%d).String(): got %q, want %q", got, got, test.back)
		}
	}
	for n := 1; n < 1<<16; n++ {
		if got, ok := record.ParseType([]byte(record.Type(n).String())); !ok || got != record.Type(n) {
			t.Fatalf("ParseType(%q): got %d, %v, want %d", record.Type(n), got, ok, n)
		}
	}
}

func TestParseLine(t *testing.T) {
	for _, test := range []struct {
		in   string
		id   record.ID
		want record.Record
	}{
		{"type=CWD msg=audit(1795528831.746:6): cwd=\"/\"", record.ID{Sec: 1795528831, Milli: 746, Serial: 6}, record.Record{Type: record.TypeCWD, Body: []byte(`cwd="/"`)}},
		{"node=w-1.example type=UNKNOWN[1423] msg=audit(1.002:4294967295): domain=1\x1dUID=\"root\"",
			record.ID{Node: "w-1.example", Sec: 1, Milli: 2, Serial: 4294967295}, record.Record{Type: 1423, Body: []byte("domain=1"), Enriched: []byte(`UID="root"`)}},
		{"type=EOE msg=audit(1.000:1): ", record.ID{Sec: 1, Serial: 1}, record.Record{Type: record.TypeEOE, Body: []byte{}}},
		{"type=EOE msg=audit(1.000:1):", record.ID{Sec: 1, Serial: 1}, record.Record{Type: record.TypeEOE, Body: []byte{}}},
	} {
		id, got := line(t, test.in)
		if id != test.id {
			t.Errorf("ParseLine(%q): got event %v of %q, want %v", test.in, id, id.Node, test.id)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("ParseLine(%q) (-want +got):\n%s", test.in, diff)
		}
	}
}

func TestParseLineRefuses(t *testing.T) {
	for _, in := range []string{
		"",
		"type=",
		"type=SYSCALL",
		"type=SYSCALL ",
		"type=NONE msg=audit(1.000:1): a=1",
		"type=SYSCALL msg=audit(1.000:1)",
		"type=SYSCALL msg=audit(1.0:1): a=1",
		"type=SYSCALL msg=audit(1.0000:1): a=1",
		"type=SYSCALL msg=audit(.000:1): a=1",
		"type=SYSCALL msg=audit(-1.000:1): a=1",
		"type=SYSCALL msg=audit(1234567890123.000:1): a=1",
		"type=SYSCALL msg=audit(1.000:): a=1",
		"type=SYSCALL msg=audit(1.000:12345678901234567890): a=1",
		" type=SYSCALL msg=audit(1.000:1): a=1",
		"node= type=SYSCALL msg=audit(1.000:1): a=1",
		"node=" + strings.Repeat("n", record.MaxNode+1) + " type=SYSCALL msg=audit(1.000:1): a=1",
		"node=a\x01b type=SYSCALL msg=audit(1.000:1): a=1",
		"type=SYSCALL msg=audit(1.000:1): " + strings.Repeat("a", record.MaxLine),
	} {
		if _, _, err := record.ParseLine([]byte(in)); !errors.Is(err, record.ErrMalformed) {
			t.Errorf("ParseLine(%.80q): got %v, want %v", in, err, record.ErrMalformed)
		}
	}
}

func TestParseMessage(t *testing.T) {
	forged := "audit(5.006:7): pid=1 uid=0 msg='a\ntype=SYSCALL msg=audit(9.000:9): pid=2\x1dUID=\"x\"'\x00"
	id, r, err := record.ParseMessage(1107, []byte(forged))
	if err != nil {
		t.Fatal(err)
	}
	got := string(r.AppendLine(nil, id))
	want := "type=USER_AVC msg=audit(5.006:7): pid=1 uid=0 msg='a type=SYSCALL msg=audit(9.000:9): pid=2 UID=\"x\"'\n"
	if got != want {
		t.Errorf("ParseMessage(%q): got line %q, want %q", forged, got, want)
	}
	for _, test := range []struct {
		t    record.Type
		text string
	}{{0, "audit(1.000:1): "}, {1300, ""}, {1300, "audit(1.000:1)"}, {1300, "type=SYSCALL"}, {1300, "audit(1.000:1): " + strings.Repeat("a", record.MaxLine)}} {
		if _, _, err := record.ParseMessage(test.t, []byte(test.text)); !errors.Is(err, record.ErrMalformed) {
			t.Errorf("ParseMessage(%d, %.40q): got %v, want %v", test.t, test.text, err, record.ErrMalformed)
		}
	}
}

func TestFields(t *testing.T) {
	for _, test := range []struct {
		in, name  string
		raw, text string // "-": none
	}{
		{`type=SYSCALL msg=audit(1.000:1): a0=6162 comm="ls" exe=2F612062 key=(null)`, "a0", "6162", "6162"},
		{`type=EXECVE msg=audit(1.000:1): argc=1 a0=6162`, "a0", "6162", "ab"},
		{`type=SYSCALL msg=audit(1.000:1): a0=6162 comm="ls" exe=2F612062 key=(null)`, "comm", `"ls"`, "ls"},
		{`type=SYSCALL msg=audit(1.000:1): a0=6162 comm="ls" exe=2F612062 key=(null)`, "exe", "2F612062", "/a b"},
		{`type=SYSCALL msg=audit(1.000:1): a0=6162 comm="ls" exe=2F612062 key=(null)`, "key", "(null)", "-"},
		{`type=SYSCALL msg=audit(1.000:1): ppid=1 pid=22`, "pid", "22", "22"},
		{`type=SYSCALL msg=audit(1.000:1): ppid=1 pid=22`, "id", "-", "-"},
		{`type=PATH msg=audit(1.000:1): item=0 name="pid=7"`, "pid", "-", "-"},
		{`type=PATH msg=audit(1.000:1): item=0 name=abc`, "name", "abc", "abc"}, // odd: no hex
		{`type=PATH msg=audit(1.000:1): item=0 name="(null)"`, "name", `"(null)"`, "(null)"},
		{`type=PATH msg=audit(1.000:1): item=0 name="open`, "name", `"open`, `"open`},
		{`type=AVC msg=audit(1.000:1): avc:  denied  { read } for  pid=5 comm="x y" scontext=u:r:t`, "pid", "5", "5"},
		{`type=AVC msg=audit(1.000:1): avc:  denied  { read } for  pid=5 comm="x y" scontext=u:r:t`, "scontext", "u:r:t", "u:r:t"},
		{`type=USER_TTY msg=audit(1.000:1): pid=1 data=6C73`, "data", "6C73", "ls"},
		{`type=BPF msg=audit(1.000:1): prog-id=13 op=LOAD`, "op", "LOAD", "LOAD"},
	} {
		_, r := line(t, test.in)
		got := func(b []byte, ok bool) string {
			if !ok {
				return "-"
			}
			return string(b)
		}
		if raw := got(r.Field(test.name)); raw != test.raw {
			t.Errorf("Field(%q) of %q: got %q, want %q", test.name, test.in, raw, test.raw)
		}
		if text := got(r.Text(test.name)); text != test.text {
			t.Errorf("Text(%q) of %q: got %q, want %q", test.name, test.in, text, test.text)
		}
	}
}

// TestClaims: what a program wrote never looks stamped, whatever quotes it puts in.
func TestClaims(t *testing.T) {
	_, r := line(t, `type=USER_LOGIN msg=audit(1.000:1): pid=7 uid=1000 auid=4294967295 ses=4294967295 msg='op=login acct=726F6F74 exe="/usr/sbin/sshd" ' pid=1 uid=0 auid=0 msg='x=1 res=success'`+"\x1d"+`UID="mallory" AUID="unset"`)
	for name, want := range map[string]string{"pid": "7", "uid": "1000", "auid": "4294967295"} {
		if got, _ := r.Field(name); string(got) != want {
			t.Errorf("Field(%q): got %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"exe", "acct", "op", "res", "x"} {
		if got, ok := r.Field(name); ok {
			t.Errorf("Field(%q): got %q, want none: it is claimed", name, got)
		}
	}
	for name, want := range map[string]string{"exe": "/usr/sbin/sshd", "acct": "root", "op": "login", "res": "success", "pid": "1"} {
		if got, _ := r.ClaimedText(name); string(got) != want {
			t.Errorf("ClaimedText(%q): got %q, want %q", name, got, want)
		}
	}
	if got, _ := r.Resolved("uid"); string(got) != "mallory" {
		t.Errorf("Resolved(uid): got %q, want mallory", got)
	}
	if v, ok := r.Number("auid", 10); !ok || v != record.Unset {
		t.Errorf("Number(auid): got %d, %v, want Unset", v, ok)
	}
	// In the kernel's records there is no claim, whatever stands in them.
	_, r = line(t, `type=SYSCALL msg=audit(1.000:1): pid=7 msg='uid=0'`)
	if got := r.Claim(); got != nil {
		t.Errorf("Claim of a kernel record: got %q, want none", got)
	}
	for typ, want := range map[record.Type]record.Origin{1005: record.OriginUser, 1006: record.OriginKernel, 1199: record.OriginUser, 1200: record.OriginDaemon, 1300: record.OriginKernel,
		1701: record.OriginKernel, 2000: record.OriginKernel, 2100: record.OriginUser, 2999: record.OriginUser, 3000: record.OriginKernel} {
		if got := typ.Origin(); got != want {
			t.Errorf("Type(%d).Origin(): got %d, want %d", typ, got, want)
		}
	}
}
