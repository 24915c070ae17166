package authority

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

// watched is a trusted node whose audit events AIAS gets, and whose TPM signs where their chain stands.
type watched struct {
	*tagMachine
	*chained
	boot  string // as the machine tells
	asked bool   // AIAS asked for an attestation with its last answer
	stop  func()
}

func newWatched(t *testing.T) *watched {
	w := realWorld(t)
	m := &watched{tagMachine: w.tagMachine("worker-1"), boot: "boot-1"}
	m.chained = &chained{m: m.machine, at: chain.Start(chain.ID{1})}
	m.run()
	t.Cleanup(func() { m.stop() })
	if r := m.judged(m.answer()); !r.Trusted {
		t.Fatalf("a machine that booted well is not trusted: %+v", r.Levels)
	}
	m.start("boot-1")
	m.states = func() *evidence.Statement {
		s := m.statement()
		s.BootID = m.boot
		return &evidence.Statement{Audit: s}
	}
	return m
}

// attests sends Evidence for a new challenge, with a statement.
func (m *watched) attests() *result.Result {
	m.w.t.Helper()
	if err := m.w.call(m.http, http.MethodGet, protocol.PathChallenge, nil, &m.next); err != nil {
		m.w.t.Fatal(err)
	}
	return m.judged(m.answer())
}

// reboots as a machine does: its TPM counts that, and its agent says so.
func (m *watched) reboots(boot string) {
	m.clock.ResetCount++
	m.boot = boot
	m.start(boot)
}

// run lets AIAS do what it does without a request.
func (m *watched) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	a := m.w.Authority
	go func() { defer close(done); a.detectionLoop(ctx) }()
	m.stop = func() { cancel(); <-done }
}

func (m *watched) feed(kind chain.Kind, body []byte, c chain.Context) {
	m.w.t.Helper()
	m.post(m.entry(kind, body, c))
}

// entry makes the next entry; post sends some.
func (m *watched) entry(kind chain.Kind, body []byte, c chain.Context) *chain.Batch {
	e := chain.Entry{Seq: m.at.Seq + 1, Time: m.w.clock.Now(), Kind: kind, Context: c, Body: body}
	raw, err := e.Append(nil)
	if err != nil {
		m.w.t.Fatal(err)
	}
	b := &chain.Batch{Before: m.at, Entries: [][]byte{raw}}
	m.at = m.at.After(raw)
	return b
}

func (m *watched) post(b *chain.Batch) {
	m.w.t.Helper()
	got, err := m.chained.send(b, "")
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.asked = got.Attest
}

func (m *watched) start(boot string) {
	b, err := chain.EncodeBody(&chain.Begin{BootID: boot})
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.feed(chain.KindStart, b, chain.Context{})
}

// event feeds one event of these records ("SYSCALL arch=...").
func (m *watched) event(c chain.Context, lines ...string) {
	m.w.t.Helper()
	m.feed(chain.KindEvent, m.text(lines...), c)
}

func (m *watched) text(lines ...string) []byte {
	var raw strings.Builder
	for _, l := range lines {
		kind, body, _ := strings.Cut(l, " ")
		fmt.Fprintf(&raw, "type=%s msg=audit(%d.500:%d): %s\n", kind, m.w.clock.Now().Unix(), m.at.Seq+1, body)
	}
	return []byte(raw.String())
}

// level5 waits until the signed result says so of level 5.
func (m *watched) level5(want string) {
	m.w.t.Helper()
	var got string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		l := m.stored().Levels[4]
		if got = fmt.Sprintf("%s %s", l.Status, l.Reason); strings.Contains(got, want) {
			return
		}
	}
	m.w.t.Fatalf("level 5: got %q, want %q", got, want)
}

func (m *watched) list() []protocol.Detection {
	m.w.t.Helper()
	l, err := m.w.admin.Detections(context.Background(), m.name)
	if err != nil {
		m.w.t.Fatal(err)
	}
	return l.Detections
}

var shopPod = chain.Context{Namespace: "shop", Pod: "web-1", PodUID: "6f", Container: "web", Image: "shop/web:1"}

const (
	escape = `SYSCALL arch=c000003e syscall=308 success=yes exit=0 a0=3 a1=0 a2=0 a3=0 items=0 ppid=1 pid=4711 auid=4294967295 uid=0 ses=4294967295 comm="x" exe="/usr/bin/nsenter" key=(null)`
	load   = `SYSCALL arch=c000003e syscall=175 success=yes exit=0 a0=1 items=0 ppid=1 pid=9 auid=1000 uid=0 ses=3 comm="x" exe="/opt/x" key=(null)`
)

// TestDetectionFellsAndIsCleared: misuse costs trust at once, is told whole, survives a restart, and ends when an operator says why.
func TestDetectionFellsAndIsCleared(t *testing.T) {
	m := newWatched(t)
	start := time.Now()
	m.event(shopPod, escape)
	m.level5("fail Process of a pod entered other namespaces")
	t.Logf("from the event to the signed result: %s", time.Since(start).Round(time.Millisecond))
	m.event(shopPod, escape)
	got := m.list()
	if len(got) != 1 || got[0].Rule != "escape-setns" || got[0].Count != 2 || got[0].Pod != "web-1" {
		t.Fatalf("detections: got %+v, want escape-setns twice in web-1", got)
	}
	if want := "by /usr/bin/nsenter (pid 4711, uid 0, no login) in pod shop/web-1, container web of image shop/web:1"; got[0].Who != want {
		t.Errorf("who: got %q, want %q", got[0].Who, want)
	}
	m.stop()
	m.w.restart()
	m.run()
	if got := m.list(); len(got) != 1 || got[0].Count != 2 {
		t.Fatalf("after a restart: got %+v, want what was there", got)
	}
	if a := m.w.Authority.node(m.name).auditedUpTo(); a != m.at.Seq {
		t.Errorf("auditedUpTo: got %d, want %d", a, m.at.Seq)
	}
	if r := m.judged(m.answer()); r.Trusted || r.Audit == nil || r.Audit.Detections[got[0].Severity] != 1 || r.Audit.Chain != appraisal.Pass {
		t.Errorf("fresh Evidence lifts a detection, or the result does not say it: %+v %+v", r.Trusted, r.Audit)
	}
	if _, err := m.w.admin.ClearDetections(context.Background(), m.name, got[0].ID, " "); err == nil {
		t.Error("cleared without a reason")
	}
	wantProblem(t, "unknown", m.w.call(m.http, http.MethodPost, "/v1/nodes/worker-1/detections/all/clear", protocol.ClearRequest{Reason: "x"}, nil), http.StatusForbidden, "role")
	if _, err := m.w.admin.ClearDetections(context.Background(), m.name, got[0].ID, "was a test, ticket 4711"); err != nil {
		t.Fatal(err)
	}
	m.level5("pass")
	acts, err := m.w.store.Acts(context.Background(), 10)
	if err != nil || acts[0].Act != "detection.clear" || !strings.Contains(acts[0].Detail, "ticket 4711") {
		t.Errorf("acts: got %+v, %v, want the clearing with its reason", acts, err)
	}
}

// TestDetectionEnds: by time, by a boot, by what repairs it.
func TestDetectionEnds(t *testing.T) {
	t.Run("time", func(t *testing.T) {
		m := newWatched(t)
		m.event(chain.Context{Unit: "ssh.service"}, `CONFIG_CHANGE op=remove_rule key="ts-exec" list=4 res=1 auid=0 ses=1`)
		m.level5("fail Audit rules removed")
		m.w.clock.Advance(61 * time.Minute)
		m.start("boot-1") // its agent writes on
		if err := m.w.call(m.http, http.MethodGet, protocol.PathChallenge, nil, &m.next); err != nil {
			t.Fatal(err)
		}
		m.judged(m.answer()) // it attests meanwhile
		m.level5("pass")
	})
	t.Run("boot", func(t *testing.T) {
		m := newWatched(t)
		m.event(chain.Context{Unit: "ssh.service"}, load)
		m.level5("fail Kernel module loaded")
		if !m.asked {
			t.Error("AIAS does not ask for a signature on what it found")
		}
		m.start("boot-1") // the agent began anew, not the worker
		m.attests()
		if len(m.list()) != 1 {
			t.Fatal("a start of the agent ends what only a boot does")
		}
		m.start("boot-1")
		if m.asked {
			t.Error("AIAS asks for a signature that it has")
		}
		m.reboots("boot-2")
		if len(m.list()) != 1 {
			t.Fatal("the worker's word on a boot ends what only a boot does")
		}
		if r := m.attests(); !r.Trusted {
			t.Errorf("after a boot that the TPM counted: %+v", r.Levels)
		}
		m.level5("pass")
	})
	t.Run("repair", func(t *testing.T) {
		m := newWatched(t)
		m.event(chain.Context{}, `CONFIG_CHANGE op=set audit_enabled=0 old=1 auid=1000 ses=3 res=1`)
		m.level5("fail Auditing switched off")
		m.event(chain.Context{}, `CONFIG_CHANGE op=set audit_enabled=1 old=0 auid=1000 ses=3 res=1`)
		m.level5("pass")
	})
}

// TestDetectionsAreBounded: a storm of different misuse is kept in bounds, and told.
func TestDetectionsAreBounded(t *testing.T) {
	m := newWatched(t)
	var many *chain.Batch
	for i := range 3000 {
		b := m.entry(chain.KindEvent, m.text(strings.Replace(load, "/opt/x", fmt.Sprintf("/opt/%d", i), 1)), chain.Context{})
		if i%100 == 0 {
			m.w.clock.Advance(time.Minute) // a new budget
			many = b
		} else {
			many.Entries = append(many.Entries, b.Entries...)
		}
		if i%100 == 99 {
			m.post(many)
		}
	}
	got := m.list()
	if len(got) > maxDetections+1 || len(got) < maxDetections {
		t.Errorf("got %d detections, want about %d", len(got), maxDetections)
	}
	var all uint64
	more := false
	for _, d := range got {
		all += d.Count
		more = more || d.Subject == "(more)" && strings.Contains(d.Who, "in entries ")
	}
	if all != 3000 || !more {
		t.Errorf("got %d in all, told of more: %t; want 3000, true", all, more)
	}
}

// TestNothingIsSkippedSilently: what AIAS cannot read or follow is a finding with its number and place, which ends as others do.
func TestNothingIsSkippedSilently(t *testing.T) {
	m := newWatched(t)
	m.feed(chain.KindEvent, []byte("type=SYSCALL msg=audit(broken"), chain.Context{})
	m.level5("warn Audit events that cannot be read were not looked at: 1; in entries 2 to 2 of chain")
	m.event(chain.Context{}, `LOGIN pid=1`)
	m.feed(chain.KindEvent, []byte{0xff, 0}, chain.Context{})
	got := m.list()
	if len(got) != 1 || got[0].Rule != unreadable.rule || got[0].Count != 2 || !strings.Contains(got[0].Who, "entries 2 to 4") {
		t.Errorf("detections: got %+v, want two unreadable events in entries 2 to 4", got)
	}
	if r := m.attests(); !r.Trusted {
		t.Errorf("events that cannot be read cost trust, and the policy does not say so: %+v", r.Levels[4])
	}
	m.stop()
	m.w.restart()
	m.run()
	if again := m.list(); len(again) != 1 || again[0].Count != 2 {
		t.Errorf("after a restart: got %+v", again)
	}
	if _, err := m.w.admin.ClearDetections(context.Background(), m.name, unreadable.rule, "looked at, ticket 7"); err != nil {
		t.Fatal(err)
	}
	m.level5("pass")
}

// TestForgottenCorrelations: a storm that makes AIAS forget what it follows over time is told.
func TestForgottenCorrelations(t *testing.T) {
	m := newWatched(t)
	var many *chain.Batch
	for i := range 12000 {
		b := m.entry(chain.KindEvent, m.text(fmt.Sprintf(`USER_LOGIN pid=9 uid=0 auid=4294967295 ses=4294967295 msg='op=login acct="u" exe="/usr/sbin/sshd" hostname=? addr=10.%d.%d.%d terminal=ssh res=failed'`, i>>16, i>>8&255, i&255)), chain.Context{})
		if many == nil {
			many = b
		} else {
			many.Entries = append(many.Entries, b.Entries...)
		}
		if len(many.Entries) == 4000 {
			m.post(many)
			many = nil
		}
	}
	for _, d := range m.list() {
		if d.Rule == forgotten.rule {
			if d.Count == 0 || !strings.Contains(d.Who, "in entries ") {
				t.Errorf("got %+v, want how many and where", d)
			}
			return
		}
	}
	t.Errorf("got %+v, want %s among them", m.list(), forgotten.rule)
}

// TestOwnRules: the rules of the operator count, and faulty ones are refused with the old ones in force.
func TestOwnRules(t *testing.T) {
	dir := t.TempDir()
	rule := filepath.Join(dir, "own.yml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(rule, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const good = "title: Own\nname: own\nlevel: high\nlogsource: {product: linux, category: process_creation}\ndetection: {s: {Image: /opt/own}, condition: s}\n"
	write(good)
	w := newWorld(t, func(w *world) { w.cfg.DetectionRules = dir })
	if _, ok := w.rules.Load().Rule("own"); !ok {
		t.Error("the operator's rule is not there")
	}
	write(strings.Replace(good, "Image:", "Image|sounds:", 1))
	if _, err := w.admin.Reload(context.Background()); err == nil || !strings.Contains(err.Error(), "sounds") {
		t.Errorf("reload: got %v, want the modifier named", err)
	}
	if _, ok := w.rules.Load().Rule("own"); !ok {
		t.Error("a refused reload took the old rules away")
	}
}
