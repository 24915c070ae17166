package shown

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
)

func auditEntry(t *testing.T) *Entry {
	t.Helper()
	const id = "msg=audit(1795000336.990:769606): "
	e := &chain.Entry{Seq: 7, Time: time.Date(2026, 11, 24, 12, 0, 0, 5e6, time.UTC), Kind: chain.KindEvent,
		Context: chain.Context{Namespace: "shop", Pod: `till"]` + "\x1b[2J", Container: "till"},
		Body: []byte("type=SYSCALL " + id + `arch=c000003e syscall=59 success=yes exit=0 ppid=1 pid=42 auid=1000 uid=0 gid=0 euid=0 ses=3 comm="sh" exe="/bin/sh" key="ts-exec"` + "\n" +
			"type=EXECVE " + id + `argc=3 a0="sh" a1="-c" a2=1B5B324A0A6C73` + "\n" +
			"type=PATH " + id + `item=0 name="/bin/sh" nametype=NORMAL` + "\n")}
	v := New("worker-1", e)
	if v.Event == nil {
		t.Fatal("the records cannot be read")
	}
	return v
}

// TestAuditForms: each form is one line that says who did what, and nothing that the worker wrote gets out of its place.
func TestAuditForms(t *testing.T) {
	v := auditEntry(t)
	for name, form := range map[string]func(*Entry) string{"text": Text, "syslog": Syslog, "json": JSON} {
		got := form(v)
		if strings.ContainsAny(got, "\n\x1b") {
			t.Errorf("%s: %q holds control characters", name, got)
		}
		for _, want := range []string{"/bin/sh", "ts-exec", "42"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q does not say %q", name, got, want)
			}
		}
	}
	const head = `<110>1 2026-11-24T12:00:00.005000Z worker-1 touchstone - event [touchstone@32473 seq="7" pod="till\"\]`
	if got := Syslog(v); !strings.HasPrefix(got, head) {
		t.Errorf("Syslog(): got %q, want it to begin with %q", got, head)
	}
	var l line
	if err := json.Unmarshal([]byte(JSON(v)), &l); err != nil || len(l.Argv) != 3 || l.Argv[2] != "\x1b[2J\nls" || l.PID == nil || *l.PID != 42 {
		t.Errorf("JSON(): %+v, %v", l, err)
	}
}

func TestAuditGap(t *testing.T) {
	body, err := chain.EncodeBody(&chain.Gap{Why: chain.GapSpoolFull, Events: 12, AtLeast: true, First: "1.2:3", Last: "1.2:14"})
	if err != nil {
		t.Fatal(err)
	}
	v := New("worker-1", &chain.Entry{Seq: 9, Kind: chain.KindGap, Body: body})
	if got, want := v.Words(), "entry 9: at least 12 events are missing (spool-full), from 1.2:3 to 1.2:14"; got != want {
		t.Errorf("Words(): got %q, want %q", got, want)
	}
	if got := Syslog(v); !strings.HasPrefix(got, "<108>1 ") {
		t.Errorf("Syslog() of a gap: got %q, want a warning", got)
	}
}
