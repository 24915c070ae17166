package authority

import (
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/release"
)

// TestStanding: a release follows the node at each moment: not before its first Evidence, then, no more after a fall, after its silence, after its removal.
func TestStanding(t *testing.T) {
	w := newWorld(t)
	m := w.enrolled("worker-1")
	n := w.node("worker-1")
	lax := &release.Conditions{SoftwareTPM: release.Allow}
	want := func(when, missing string) {
		t.Helper()
		a := release.Meets(lax, n.standing(w.clock.Now()), w.clock.Now())
		if a.Meets != (missing == "") || !strings.Contains(strings.Join(a.Missing, "; "), missing) {
			t.Errorf("standing() %s: got %v %q, want %q", when, a.Meets, a.Missing, missing)
		}
	}
	want("before the first evidence", "not attested yet")
	m.attest()
	want("trusted", "")
	w.clock.Advance(testLifetime + time.Second)
	want("silent", "expired")
	m.attest()
	want("back", "")
	m.list = append(m.list, "miner"...)
	m.attest()
	want("fallen", "level 5 is fail (unknown program miner")
}
