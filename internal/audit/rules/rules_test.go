package rules_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/audittest"
	"touchstone.dev/touchstone/internal/audit/record"
	"touchstone.dev/touchstone/internal/audit/rules"
)

func TestMeaning(t *testing.T) {
	for _, test := range []struct{ a, b string }{
		{"-w /etc/passwd -p wa -k x", "-a always,exit -F path=/etc/passwd -F perm=aw -F key=x"},
		{"-w /etc/sudoers.d/ -p wa -k x", "-a exit,always -S all -F dir=/etc/sudoers.d -F perm=wa -k x"},
		{"-a always,exit -F arch=b64 -S chmod -F a1&04000 -F key=x", "-a always,exit -F arch=b64 -S chmod -F a1&0x800 -F key=x"},
		{"-a always,exit -F arch=b64 -S a,b -F auid!=unset -k x", "-A always,exit -F arch=b64 -S b -S a -F auid!=-1 -F key=x"},
		{"-a always,exit -F arch=b64 -S connect -F a2=28 -F key=x", "-a always,exit -F arch=b64 -S connect -F a2=0x1C -F key=x"},
	} {
		a, errA := rules.ParseRule(test.a)
		b, errB := rules.ParseRule(test.b)
		if errA != nil || errB != nil || a.Meaning() != b.Meaning() || a.Key != "x" {
			t.Errorf("meaning of %q: %q (%v), of %q: %q (%v), want the same", test.a, a.Meaning(), errA, test.b, b.Meaning(), errB)
		}
	}
	a, _ := rules.ParseRule("-w /etc/passwd -p wa -k x")
	for _, other := range []string{"-w /etc/passwd -p w -k x", "-w /etc/passwd -p wa -k y", "-w /etc/shadow -p wa -k x", "-a never,exit -F path=/etc/passwd -F perm=wa -F key=x",
		"-a always,exit -F path=/etc/passwd -F perm=wa -F uid=0 -F key=x", "-a always,exit -S open -F path=/etc/passwd -F perm=wa -F key=x"} {
		if b, err := rules.ParseRule(other); err != nil || a.Meaning() == b.Meaning() {
			t.Errorf("meaning of %q (%v) is that of %q", other, err, a)
		}
	}
	for _, bad := range []string{"", "-w", "-w /x -p", "-D -e", "-a always -S x", "-a always,exit -F nothing", "-a always,exit -F a0=", "-S open -F a0=1", "echo hello"} {
		if r, err := rules.ParseRule(bad); !errors.Is(err, rules.ErrRule) {
			t.Errorf("ParseRule(%q): got %v, %v, want %v", bad, r, err, rules.ErrRule)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add("-a always,exit -F arch=b64 -S chmod -F a1&04000 -F key=x")
	f.Add("-w /etc/passwd -p wa -k x")
	f.Fuzz(func(t *testing.T, line string) {
		if r, err := rules.ParseRule(line); err == nil {
			if again, err := rules.ParseRule(r.String()); err != nil || again.Meaning() != r.Meaning() {
				t.Errorf("%q: read again: %v, meaning %q, then %q", line, err, r.Meaning(), again.Meaning())
			}
		}
	})
}

// TestShipped: what the product ships keeps its own promises.
func TestShipped(t *testing.T) {
	all, err := rules.Shipped("/usr/bin/trust-agent")
	if err != nil {
		t.Fatal(err)
	}
	twins := map[string]bool{}
	seen := map[string]string{}
	for _, r := range all {
		where := fmt.Sprintf("%s:%d", r.File, r.Line)
		exclude := strings.Contains(r.String(), "never,exclude")
		if !strings.HasPrefix(r.Key, rules.KeyPrefix) && !exclude {
			t.Errorf("%s: key %q, want one that begins with %s", where, r.Key, rules.KeyPrefix)
		}
		if before, twice := seen[r.Meaning()]; twice {
			t.Errorf("%s: means the same as %s", where, before)
		}
		seen[r.Meaning()] = where
		for _, arch := range []string{"arch=b64", "arch=b32"} {
			if strings.Contains(r.String(), arch) {
				twins[arch+r.Key] = true
			}
		}
		if strings.Contains(r.String(), " -S ") && !strings.Contains(r.String(), "arch=") {
			t.Errorf("%s: names calls without arch=: numbers of calls differ", where)
		}
	}
	for twin := range twins {
		key := twin[len("arch=b64"):]
		if !twins["arch=b32"+key] && key != "ts-kexec" && key != "ts-connect" { // said so in the files
			t.Errorf("key %s has no rule for 32-bit programs", key)
		}
	}
	if _, err := rules.Shipped("trust-agent"); !errors.Is(err, rules.ErrRule) {
		t.Errorf("Shipped with a relative path: got %v, want %v", err, rules.ErrRule)
	}
}

// agent is the program that stands for the agent.
func agent(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// TestInstall: into the real kernel, with a rule of somebody else's, drift mended, and each rule compared with what auditctl lists.
func TestInstall(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	ctx, folder := t.Context(), t.TempDir()
	a.Ctl("-w", "/etc/hostname", "-p", "wa", "-k", "theirs")
	a.Ctl("-w", "/etc/hosts", "-p", "wa", "-k", "ts-forgotten")

	before, err := rules.Check(ctx, rules.Auditctl, agent(t))
	if err != nil || before.Count(rules.StateLoaded) != 0 || before.Count(rules.StateExtra) != 1 || before.Others != 1 {
		t.Errorf("before: %v, %v", before.Summary(), err)
	}
	report, err := rules.Install(ctx, rules.Auditctl, agent(t), folder, rules.DefaultControl)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Drift() {
		t.Errorf("%s:%d %s: %s (%s)", f.Rule.File, f.Rule.Line, f.Rule, f.State, f.Why)
	}
	if n := report.Count(rules.StateLoaded); n < 90 || report.Others != 1 {
		t.Errorf("after: %s, want 90 rules and one of others", report.Summary())
	}
	t.Log(report.Summary())
	if s := a.Ctl("-s"); !strings.Contains(s, "backlog_limit 65536") || !strings.Contains(s, "backlog_wait_time 100\n") || !strings.Contains(s, "enabled 1") {
		t.Errorf("status: %s", s)
	}

	// Somebody takes a rule out, adds one, and puts an exclusion of ours behind.
	a.Ctl("-W", "/etc/passwd", "-p", "wa", "-k", "ts-identity")
	a.Ctl("-w", "/etc/services", "-p", "r", "-k", "ts-identity")
	report, err = rules.Check(ctx, rules.Auditctl, agent(t))
	if err != nil || report.Count(rules.StateMissing) != 1 || report.Count(rules.StateExtra) != 1 || len(report.Drift()) != 2 {
		t.Errorf("after tampering: %s, %+v, %v", report.Summary(), report.Drift(), err)
	}
	if report, err = rules.Install(ctx, rules.Auditctl, agent(t), folder, rules.DefaultControl); err != nil || len(report.Drift()) != 0 {
		t.Errorf("mended: %s, %+v, %v", report.Summary(), report.Drift(), err)
	}

	if l := a.Ctl("-l"); strings.Index(l, "-w /etc/passwd") > strings.Index(l, "ts-exec") {
		t.Errorf("what was put back stands behind the rules that match everything:\n%s", l)
	}

	// The file for the next boot: auditctl loads it whole, though paths are missing.
	text, err := os.ReadFile(filepath.Join(folder, "50-touchstone.rules"))
	if err != nil {
		t.Fatal(err)
	}
	a.Ctl("-D")
	_, _ = rules.Auditctl(ctx, "-R", filepath.Join(folder, "50-touchstone.rules"))
	report, err = rules.Check(ctx, rules.Auditctl, agent(t))
	if err != nil || len(report.Drift()) != 0 {
		t.Errorf("after the next boot: %s, %+v, %v\n%s", report.Summary(), report.Drift(), err, text)
	}
}

// TestLocked: nothing is changed when the rules are locked, and that is said. (Locking for real lasts until the next boot.)
func TestLocked(t *testing.T) {
	var calls []string
	ctl := func(_ context.Context, args ...string) (string, error) {
		calls = append(calls, args[0])
		switch args[0] {
		case "-s":
			return "enabled 2\nfailure 1\n", nil
		case "-l":
			return "No rules\n", nil
		}
		return "", errors.New("Operation not permitted")
	}
	report, err := rules.Install(t.Context(), ctl, "/usr/bin/trust-agent", t.TempDir(), rules.Control{Immutable: true})
	if !errors.Is(err, rules.ErrImmutable) || report == nil || report.Count(rules.StateMissing) == 0 || !slices.Equal(calls, []string{"-l", "-s"}) {
		t.Errorf("Install: got %v after calls %q, want %v and no change", err, calls, rules.ErrImmutable)
	}
}

// TestGovernor: a process that floods a rule is left out of it, others are not; many that do take the rule out; and all comes back.
func TestGovernor(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	dir := t.TempDir()
	a.Ctl("-w", dir, "-p", "wa", "-k", "ts-hot")
	list := func() string { return a.Ctl("-l") }
	before := list()
	g := &rules.Governor{Ctl: rules.Auditctl, Budget: rules.Budget{Rate: 100, Window: time.Second, Out: time.Minute, MaxOut: 3 * time.Minute}}
	now := time.Unix(1000, 0)
	flood := func(n, processes int) {
		for i := range n {
			e, err := record.Parse(fmt.Appendf(nil, "type=SYSCALL msg=audit(1.000:1): pid=%d key=\"ts-hot\"", 4000000+i%processes))
			if err != nil {
				t.Fatal(err)
			}
			g.Count(e)
		}
	}
	tick := func(d time.Duration) []rules.Change { now = now.Add(d); return g.Tick(t.Context(), now) }

	flood(50, 1)
	if got := append(tick(0), tick(time.Second)...); len(got) > 0 || list() != before {
		t.Errorf("within the budget: %v", got)
	}
	flood(150, 1)
	got := tick(time.Second)
	if len(got) != 1 || !got[0].Out || got[0].PID != 4000000 || got[0].Err != nil || got[0].Rate != 150 {
		t.Fatalf("one process above the budget: got %+v", got)
	}
	if l := list(); !strings.Contains(l, "never,exit") || !strings.Contains(l, "pid=4000000") || !strings.Contains(l, "ts-hot") || strings.Index(l, "never") > strings.Index(l, "ts-hot") {
		t.Errorf("rules: %s", l)
	}
	if got := tick(59 * time.Second); len(got) > 0 {
		t.Errorf("before its time: %v", got)
	}
	if got := tick(time.Second); len(got) != 1 || got[0].Out || got[0].Err != nil || list() != before {
		t.Errorf("after its time: %v, rules %s", got, list())
	}
	tick(time.Second)
	flood(150, 50)
	got = tick(time.Second)
	if len(got) != 1 || got[0].PID != 0 || got[0].Err != nil || got[0].Until.Sub(now) != 2*time.Minute || strings.Contains(list(), "ts-hot") {
		t.Errorf("many processes above the budget: got %+v, rules %s", got, list())
	}
	if out := g.Out(); !slices.Equal(out, []string{"ts-hot"}) {
		t.Errorf("Out: got %q", out)
	}
	if got := g.Close(t.Context()); len(got) != 1 || got[0].Err != nil || list() != before {
		t.Errorf("Close: %v, rules %s", got, list())
	}
}
