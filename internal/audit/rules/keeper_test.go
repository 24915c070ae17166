package rules_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/audit/audittest"
	"touchstone.dev/touchstone/internal/audit/record"
	"touchstone.dev/touchstone/internal/audit/rules"
)

// TestKeeper: drift is told once when it comes and once when it is gone; what the Governor took out is none.
func TestKeeper(t *testing.T) {
	a := audittest.Start(t, audittest.Options{})
	if _, err := rules.Install(t.Context(), rules.Auditctl, agent(t), "", rules.DefaultControl); err != nil {
		t.Fatal(err)
	}
	k := &rules.Keeper{Agent: agent(t), Governor: rules.Governor{Ctl: rules.Auditctl, Budget: rules.Budget{Rate: 10, Window: time.Second, Out: time.Minute, MaxOut: time.Minute}}}
	now := time.Unix(1000, 0)
	tick := func(d time.Duration, changed bool) []rules.Note {
		now = now.Add(d)
		return k.Tick(t.Context(), now, changed)
	}
	if got := tick(0, false); len(got) > 0 || k.Drift() != "" {
		t.Errorf("as installed: %v", got)
	}
	a.Ctl("-W", "/etc/passwd", "-p", "wa", "-k", "ts-identity")
	if got := tick(time.Second, false); len(got) > 0 {
		t.Errorf("before a minute is over: %v", got)
	}
	got := tick(time.Second, true)
	if len(got) != 1 || got[0].Drift != "missing: -w /etc/passwd -p wa -k ts-identity" || !strings.Contains(got[0].String(), "not as meant") {
		t.Errorf("after a rule was taken out: %v", got)
	}
	if got := tick(time.Minute, false); len(got) > 0 {
		t.Errorf("told already: %v", got)
	}
	a.Ctl("-w", "/etc/passwd", "-p", "wa", "-k", "ts-identity")
	if got := tick(time.Minute, false); len(got) != 1 || got[0].Drift != "" || k.Drift() != "" {
		t.Errorf("when it was back: %v", got)
	}

	for i := range 100 { // by one process, then by many
		e, err := record.Parse(fmt.Appendf(nil, "type=SYSCALL msg=audit(1.000:1): pid=4000000 key=\"ts-exec\"\ntype=SYSCALL msg=audit(1.000:1): pid=%d", i))
		if err != nil {
			t.Fatal(err)
		}
		k.Count(e)
		e, err = record.Parse(fmt.Appendf(nil, "type=SYSCALL msg=audit(1.000:1): pid=%d key=\"ts-connect\"", i))
		if err != nil {
			t.Fatal(err)
		}
		k.Count(e)
	}
	got = tick(time.Second, false)
	if len(got) != 2 || got[0].Change == nil || got[0].Change.Key != "ts-connect" || got[0].Change.PID != 0 || got[1].Change.PID != 4000000 || k.Drift() != "" {
		t.Errorf("above the budget: %v, drift %q, want two changes and no drift", got, k.Drift())
	}
	got = tick(time.Minute, false)
	if len(got) != 2 || got[0].Change.Out || got[1].Change.Out || got[0].Change.Err != nil || k.Drift() != "" {
		t.Errorf("a minute later: %v, drift %q", got, k.Drift())
	}
	if report, err := rules.Check(t.Context(), rules.Auditctl, agent(t)); err != nil || len(report.Drift()) > 0 {
		t.Errorf("in the end: %v, %+v", err, report.Drift())
	}
}
