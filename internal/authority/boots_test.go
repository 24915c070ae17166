package authority

import (
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/audit/archive"
	"touchstone.dev/touchstone/internal/audit/chain"
)

// TestBootsAreCountedByTheTPM: what a boot ends is ended by a reset that the TPM counted behind the quote that covered it, and by nothing that the worker
// says. What contradicts the TPM is a finding.
func TestBootsAreCountedByTheTPM(t *testing.T) {
	pretend := func(m *watched, boot string) {
		m.boot = boot
		m.start(boot)
	}
	misuse := func(m *watched) { m.event(chain.Context{}, load) }
	for name, c := range map[string]struct {
		do      func(*watched)
		kept    bool
		finding string
	}{
		"a boot": {func(m *watched) { misuse(m); m.attests(); m.reboots("boot-2"); m.attests() }, false, ""},
		"the agent is late with its start": {func(m *watched) {
			misuse(m)
			m.attests()
			m.clock.ResetCount++
			m.boot = "boot-2"
			m.attests()
			m.start("boot-2")
			m.attests()
		}, false, ""},
		"two boots without AIAS": {func(m *watched) { misuse(m); m.attests(); m.reboots("boot-2"); m.reboots("boot-3"); m.attests() }, false, ""},
		"AIAS begins anew meanwhile": {func(m *watched) {
			misuse(m)
			m.attests()
			m.stop()
			m.w.restart()
			m.run()
			m.reboots("boot-2")
			m.attests()
		}, false, ""},
		"a restart of the agent":    {func(m *watched) { misuse(m); m.attests(); m.start("boot-1"); m.attests() }, true, ""},
		"a boot that was pretended": {func(m *watched) { misuse(m); m.attests(); pretend(m, "boot-2"); m.attests() }, true, archive.Boot},
		"an entry that pretends a boot": {func(m *watched) {
			misuse(m)
			m.attests()
			m.start("boot-2")
			m.start("boot-1")
			m.attests()
		}, true, archive.Boot},
		"misuse after a boot, before its first quote": {func(m *watched) { m.attests(); m.reboots("boot-2"); misuse(m); m.attests() }, true, ""},
		"and the next boot": {func(m *watched) {
			m.attests()
			m.reboots("boot-2")
			misuse(m)
			m.attests()
			m.reboots("boot-3")
			m.attests()
		}, false, ""},
		"misuse after a boot, and one more is pretended": {func(m *watched) {
			m.attests()
			m.reboots("boot-2")
			misuse(m)
			pretend(m, "boot-3")
			m.attests()
		}, true, archive.Boot},
		"misuse before a boot that no quote covered": {func(m *watched) { m.attests(); misuse(m); m.reboots("boot-2"); m.attests() }, true, ""},
		"a reset of the TPM alone":                   {func(m *watched) { m.attests(); m.clock.ResetCount++; m.attests() }, false, archive.Reset},
		"a restart of the TPM is no reset": {func(m *watched) {
			misuse(m)
			m.attests()
			m.clock.RestartCount++
			pretend(m, "boot-2")
			m.attests()
		}, true, archive.Boot},
	} {
		t.Run(name, func(t *testing.T) {
			m := newWatched(t)
			c.do(m)
			if got := len(m.list()) > 0; got != c.kept {
				t.Errorf("the detection is there: %t, want %t", got, c.kept)
			}
			f, err := m.w.audit.archive.Node(m.name)
			if err != nil {
				t.Fatal(err)
			}
			st := f.State()
			got := ""
			if open := st.Open(); open != nil {
				got = open.Kind
			}
			if got != c.finding {
				t.Fatalf("finding: got %+v, want %q", st.Findings, c.finding)
			}
			if c.finding == "" {
				return
			}
			if r := m.attests(); r.Trusted || !strings.Contains(r.Levels[4].Reason, "TPM") && !c.kept {
				t.Errorf("with a finding: trusted %t, %+v", r.Trusted, r.Levels[4])
			}
		})
	}
}
