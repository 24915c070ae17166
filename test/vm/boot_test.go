//go:build vm

package vm

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/tpm"
)

// workerRules are IMA rules as a worker loads them: whatever is executed or loaded is measured, on every file system.
var workerRules = []string{
	"measure func=BPRM_CHECK mask=MAY_EXEC",
	"measure func=MMAP_CHECK mask=MAY_EXEC",
	"measure func=MODULE_CHECK",
}

// openLab opens the lab for a test.
func openLab(t *testing.T) *Lab {
	t.Helper()
	l, err := Open(t.Context(), Config{Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newMachine makes a machine that ends with the test; a test that failed shows its console.
func newMachine(t *testing.T, l *Lab, o Options) *Machine {
	t.Helper()
	m, err := l.NewMachine(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console of %s:\n%s", m.Name(), m.Console())
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// start boots m; on a good way up nothing goes wrong in /init.
func start(t *testing.T, m *Machine) *Guest {
	t.Helper()
	g, err := m.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Hello.Problems) > 0 {
		t.Errorf("%s came up with problems: %q", m.Name(), g.Hello.Problems)
	}
	return g
}

// measured is what a machine's logs and its TPM say, after they were held against each other.
type measured struct {
	pcrs  tpm.Bank
	paths []string // in the IMA list
}

// measure brings the PCRs, the event log and the IMA list home and checks that the logs explain the PCRs.
func measure(t *testing.T, g *Guest) measured {
	t.Helper()
	// PCRs first: the IMA list only grows.
	values, err := g.PCRs(t.Context(), "sha256")
	if err != nil {
		t.Fatal(err)
	}
	m := measured{pcrs: tpm.Bank{Alg: tpm.AlgSHA256}}
	copy(m.pcrs.Values[:], values)
	raw, err := g.ReadFile(t.Context(), EventLogPath)
	if err != nil {
		t.Fatal(err)
	}
	log, err := eventlog.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, diff := range log.Compare(&m.pcrs) {
		t.Errorf("event log of %d bytes: %v", len(raw), diff)
	}
	list, err := g.ReadFile(t.Context(), IMABinaryPath)
	if err != nil {
		t.Fatal(err)
	}
	res, err := ima.Verify(list, ima.State{}, map[tpm.Alg][]byte{tpm.AlgSHA256: values[ima.PCR]})
	if err != nil {
		t.Fatalf("IMA list of %d bytes: %v", len(list), err)
	}
	if err := res.State.CheckBootAggregate(map[tpm.Alg]*tpm.Bank{tpm.AlgSHA256: &m.pcrs}); err != nil {
		t.Error(err)
	}
	res.Each(func(some []ima.Entry) {
		for i := range some {
			m.paths = append(m.paths, some[i].Path)
		}
	})
	t.Logf("event log %d bytes, %d events; IMA list %q", len(raw), len(log.Events), m.paths)
	return m
}

// TestGoodBoot boots a good worker, acts in it, and boots it again: what happened is in its logs, and its logs are in its TPM.
func TestGoodBoot(t *testing.T) {
	l := openLab(t)
	m := newMachine(t, l, Options{Name: "good", IMARules: workerRules, Persist: []string{"/var/lib/worker"},
		JobFiles: map[string]File{"/etc/hosts": {Mode: 0o644, Data: []byte(HostAddress + " aias\n")}}})
	g := start(t, m)
	before := measure(t, g)
	if !slices.Equal(g.Hello.IMARules, workerRules) {
		t.Errorf("IMA rules: got %q, want %q", g.Hello.IMARules, workerRules)
	}
	if err := g.WriteFile(t.Context(), "/var/lib/worker/state", []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	actInGuest(t, l, g)
	after := measure(t, g)
	for _, p := range []string{"/tmp/echo", "/run/modules/good.ko", "/run/modules/unsigned.ko", "/run/modules/tampered.ko"} {
		if slices.Contains(before.paths, p) || !slices.Contains(after.paths, p) {
			t.Errorf("IMA list: got %q, then %q, want %s in the second only", before.paths, after.paths, p)
		}
	}

	if _, err := m.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := measure(t, m.Guest())
	for i := range 10 {
		if !bytes.Equal(again.pcrs.Values[i], before.pcrs.Values[i]) {
			t.Errorf("PCR %d after a reboot: got %x, want %x", i, again.pcrs.Values[i], before.pcrs.Values[i])
		}
	}
	b, err := m.Guest().ReadFile(t.Context(), "/var/lib/worker/state")
	if err != nil || string(b) != "kept" {
		t.Errorf("file in a folder that persists: got %q, %v", b, err)
	}
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// actInGuest does what attackers and administrators do.
func actInGuest(t *testing.T, l *Lab, g *Guest) {
	t.Helper()
	out, exit, err := g.Exec(t.Context(), "/bin/busybox", "cat", "/etc/hosts")
	if err != nil || exit != 0 || !strings.Contains(string(out), "aias") {
		t.Errorf("cat /etc/hosts: got %q, exit %d, %v", out, exit, err)
	}
	out, exit, err = g.RunUnknown(t.Context(), "/tmp/echo", "mined")
	if err != nil || exit != 0 || string(out) != "mined\n" {
		t.Errorf("unknown program: got %q, exit %d, %v, want it to run", out, exit, err)
	}
	k, err := l.Kernel("")
	if err != nil {
		t.Fatal(err)
	}
	mods, err := k.TestModules()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		data   []byte
		accept bool
	}{{"unsigned", mods.Unsigned, false}, {"tampered", mods.Tampered, false}, {"good", mods.Good, true}} {
		err := g.LoadModule(t.Context(), c.name, c.data)
		if (err == nil) != c.accept || (err != nil && !errors.Is(err, ErrAction)) {
			t.Errorf("load of the %s module: got %v, want acceptance %v", c.name, err, c.accept)
		}
	}
	loaded, err := g.ReadFile(t.Context(), "/proc/modules")
	if err != nil || !strings.Contains(string(loaded), testModule+" ") {
		t.Errorf("/proc/modules: got %q, %v, want %s in it", loaded, err, testModule)
	}
}

// TestRefusedBoot boots what must not boot, then what an enrolled key or the owner's own keys make good.
func TestRefusedBoot(t *testing.T) {
	l := openLab(t)
	m := newMachine(t, l, Options{Name: "refused", KernelSigner: l.Keys.Rogue})
	_, err := m.Start(t.Context())
	if !Refused(err) {
		t.Fatalf("kernel signed by nobody we know: got %v, want a refused boot", err)
	}
	var boot *BootError
	if errors.As(err, &boot) {
		t.Logf("refused: %q", boot.Refusals)
	}

	if err := m.Change(func(o *Options) { o.KernelSigner, o.Firmware = l.Keys.MOK, MOKEnrolled }); err != nil {
		t.Fatal(err)
	}
	measure(t, start(t, m))
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	if err := m.Change(func(o *Options) { o.KernelSigner, o.Firmware, o.UKI = l.Keys.Owner, OwnKeys, true }); err != nil {
		t.Fatal(err)
	}
	measure(t, start(t, m))
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}
