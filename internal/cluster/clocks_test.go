package cluster

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// TestClocks: the clocks of AIAS and of the controller differ. Trust is never granted wrongly, the reason names the clock, and it comes back by itself.
func TestClocks(t *testing.T) {
	w := newWorld(t)
	var ahead atomic.Int64 // the controller's clock, of AIAS's
	w.run(func(o *Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	for _, tc := range []struct {
		name    string
		ahead   time.Duration
		trusted bool
		reason  string
	}{
		{"same", 0, true, ""},
		{"behind-a-little", -50 * time.Second, true, ""},
		{"behind-result-from-the-future", -2 * time.Minute, false, "future"},
		{"behind-by-hours", -5 * time.Hour, false, "future"},
		{"ahead-a-little", 4 * time.Minute, true, ""},
		{"ahead-result-has-expired", 6 * time.Minute, false, "expired"},
		{"ahead-by-years", 10 * 365 * 24 * time.Hour, false, "expired"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ahead.Store(int64(tc.ahead))
			w.node(tc.name)
			w.aias.say(w.aias.trusted(tc.name))
			if tc.trusted {
				w.isTrusted(tc.name, true)
			} else {
				w.isTrusted(tc.name, false)
				w.eventually("the reason is "+tc.reason, func() bool { return strings.Contains(w.trust(tc.name).Status.Reason, tc.reason) })
				w.never("trusted", 300*time.Millisecond, func() bool { return w.get(tc.name).Labels[v1alpha1.TrustedLabel] == "true" })
			}
			ahead.Store(0)
			w.aias.say(w.aias.trusted(tc.name))
			w.isTrusted(tc.name, true)
		})
	}
}

// TestClockSteps: the clock of the controller is set while a node is trusted: forward beyond the end of its result it falls with the next look, and a clock
// that is set back while AIAS is silent makes no result live for longer.
func TestClockSteps(t *testing.T) {
	for name, step := range map[string]time.Duration{"forward": 10 * time.Minute, "back": -10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var ahead atomic.Int64
			w.run(func(o *Options) {
				o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			})
			w.aias.life = 8 * time.Second
			w.node("w1")
			w.aias.say(w.aias.trusted("w1"))
			w.isTrusted("w1", true)
			w.aias.setDown(true)
			ahead.Store(int64(step))
			took := w.eventually("it falls", func() bool { return w.get("w1").Labels[v1alpha1.TrustedLabel] == "false" })
			t.Logf("fell after %s", took.Round(time.Millisecond))
		})
	}
}
