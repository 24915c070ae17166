//go:build vm

package vm

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
)

const workerName = "worker-1"

// worker is one worker with the product's agent, and the AIAS that judges it.
type worker struct {
	lab     *Lab
	aias    *aias
	machine *Machine
	good    Options // of the machine when all is well
	resets  uint32  // reset counter of the TPM at the last verdict
}

// TestWorker follows one worker through its life: it enrols and is trusted, runs what it should not, is booted again, and is
// then booted in ways that each take one thing away. Every verdict comes from the product's own agent and AIAS.
func TestWorker(t *testing.T) {
	w := newWorker(t)
	w.enrol(t)
	w.rebootTrusted(t)
	w.tryModule(t)
	w.runUnknown(t)
	w.updateKernel(t)
	kernelOnly, bootLoader := []int{4}, []int{3}
	for _, c := range []struct {
		name   string
		change func(*Options)
		levels []int    // that must fall, and no others unless more says so
		more   []int    // that may fall with them
		rules  []string // that must be among those that failed
	}{
		{
			"a command line that takes protection away", func(o *Options) { o.CommandLine += " mitigations=off" },
			kernelOnly, nil, []string{"kernel.command-line"},
		},
		{
			"an initrd with one more file", func(o *Options) { o.Files["/usr/bin/helper"] = File{Mode: 0o755, Data: []byte("#!/bin/busybox sh\n")} },
			kernelOnly, nil, []string{"kernel.initrd"},
		},
		{
			"a kernel signed by a machine owner key", func(o *Options) { o.Firmware, o.KernelSigner = MOKEnrolled, w.lab.Keys.MOK },
			bootLoader, []int{4}, []string{"boot-loader.mok"},
		},
		{
			"Secure Boot switched off", func(o *Options) { o.Firmware = SecureBootDisabled },
			[]int{2, 3, 4}, []int{1, 5}, []string{"secure-boot.log"},
		},
		{"everything as it was", func(*Options) {}, nil, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := w.bootChanged(t, c.change)
			for _, l := range v.Levels {
				falls := l.Status == appraisal.Fail || l.Status == appraisal.Unknown
				want := slices.Contains(c.levels, l.Level)
				if falls != want && !(falls && slices.Contains(c.more, l.Level)) {
					t.Errorf("level %d %s: got %s, want it to fall: %v", l.Level, l.Name, l.Status, want)
				}
			}
			if got := failedRules(v); !containsAll(got, c.rules) {
				t.Errorf("failed rules: got %q, want %q among them", got, c.rules)
			}
			if want := len(c.levels) == 0; v.Trusted != want {
				t.Errorf("trusted: got %v, want %v", v.Trusted, want)
			}
		})
	}
}

func containsAll(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// newWorker makes the worker and an AIAS that knows what it should boot, but not yet its firmware.
func newWorker(t *testing.T) *worker {
	t.Helper()
	l := openLab(t)
	agent, err := l.BuildStatic(t.Context(), "./cmd/trust-agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("trust-agent is %d KiB", len(agent)>>10)
	w := &worker{lab: l, aias: startAIAS(t, l)}
	w.machine = newMachine(t, l, Options{
		Name: workerName, IMARules: productRules(t), Persist: []string{"/var/lib/trust-agent"},
		Files:    map[string]File{AgentPath: {Mode: 0o755, Data: agent}},
		JobFiles: w.aias.agentFiles(t, workerName),
	})
	w.good = w.machine.Options()
	w.aias.importPackages(t, l.Packages("")...)
	w.aias.importMachine(t, w.machine)
	w.aias.reload(t)
	return w
}

// booted waits for the verdict on the machine's present boot.
func (w *worker) booted(t *testing.T, since time.Time) *appraisal.Verdict {
	t.Helper()
	resets := w.resets
	return w.aias.judged(t, workerName, since, "is judged after its boot", func(n *protocol.Node, _ *appraisal.Verdict) bool {
		w.resets = n.ResetCount
		return n.ResetCount > resets
	})
}

// enrol boots a worker whose firmware nobody has seen before, and then has it declared good.
func (w *worker) enrol(t *testing.T) {
	t.Helper()
	since := time.Now()
	start(t, w.machine)
	v := w.booted(t, since)
	if got := failing(v); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("levels that fall before the firmware is known: got %v, want [1 2], rules %q", got, failedRules(v))
	}
	w.aias.capture(t, workerName)
	w.aias.reload(t)
	w.aias.judged(t, workerName, since, "is trusted", func(n *protocol.Node, _ *appraisal.Verdict) bool { return n.Trust == protocol.Trusted })
}

// rebootTrusted boots the worker again: it need not enrol again, AIAS sees the reset, and it is trusted.
func (w *worker) rebootTrusted(t *testing.T) {
	t.Helper()
	since := time.Now()
	if _, err := w.machine.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := w.booted(t, since); !v.Trusted {
		t.Errorf("after a reboot: got not trusted by %q", failedRules(v))
	}
	w.logAgent(t)
}

// logAgent shows what the agent said in this boot, and what it needs of the machine.
func (w *worker) logAgent(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(w.machine.Console()) {
		if strings.HasPrefix(line, "agent: ") {
			t.Logf("  %s", strings.TrimSpace(line))
		}
	}
	g := w.machine.Guest()
	files, err := g.Glob(t.Context(), "/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := g.ReadFile(t.Context(), f)
		if err != nil || !strings.HasPrefix(string(b), "Name:\ttrust-agent\n") {
			continue // a process may have ended since it was listed
		}
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "VmHWM:") || strings.HasPrefix(line, "VmRSS:") {
				t.Logf("  trust-agent %s", strings.Join(strings.Fields(line), " "))
			}
		}
	}
}

// tryModule tries to load an unsigned module: the kernel refuses it, and AIAS hears of it on the level of the kernel.
func (w *worker) tryModule(t *testing.T) {
	t.Helper()
	k, err := w.lab.Kernel("")
	if err != nil {
		t.Fatal(err)
	}
	mods, err := k.TestModules()
	if err != nil {
		t.Fatal(err)
	}
	since := time.Now()
	if err := w.machine.Guest().LoadModule(t.Context(), "rootkit", mods.Unsigned); err == nil {
		t.Error("the kernel took an unsigned module")
	}
	v := w.aias.judged(t, workerName, since, "tried an unsigned module", func(_ *protocol.Node, v *appraisal.Verdict) bool { return !v.Trusted })
	t.Logf("the verdict fell %.2f s after the module was tried", time.Since(since).Seconds())
	if got := failedRules(v); !slices.Contains(got, appraisal.RuleModules) {
		t.Errorf("failed rules: got %q, want %s among them", got, appraisal.RuleModules)
	}
}

// runUnknown runs a program that nothing knows, from a tmpfs: level 5 falls and names it.
func (w *worker) runUnknown(t *testing.T) {
	t.Helper()
	since := time.Now()
	if _, _, err := w.machine.Guest().RunUnknown(t.Context(), "/tmp/echo", "mined"); err != nil {
		t.Fatal(err)
	}
	w.aias.judged(t, workerName, since, "ran an unknown program", func(_ *protocol.Node, v *appraisal.Verdict) bool {
		for _, f := range v.Levels[4].Findings {
			if f.Status == appraisal.Fail && strings.Contains(f.Message+f.Observed, "/tmp/echo") {
				return true
			}
		}
		return false
	})
	t.Logf("level 5 fell %.2f s after the program ran", time.Since(since).Seconds())
}

// updateKernel boots a kernel that AIAS has not heard of: level 4 falls, until the package is imported, and then the same boot is trusted.
func (w *worker) updateKernel(t *testing.T) {
	t.Helper()
	kernels := w.lab.Kernels()
	if len(kernels) < 2 {
		t.Log("no other kernel in the package lists: the update of a kernel is not tried")
		return
	}
	since := time.Now()
	v := w.bootChanged(t, func(o *Options) { o.Kernel = kernels[1] })
	if got := failing(v); !slices.Contains(got, 4) || slices.Contains(got, 1) || slices.Contains(got, 2) {
		t.Errorf("levels that fall with a kernel that nobody imported: got %v, want 4 and neither 1 nor 2, rules %q", got, failedRules(v))
	}
	w.aias.importPackages(t, w.lab.Packages(kernels[1])...)
	w.aias.importMachine(t, w.machine)
	w.aias.reload(t)
	w.aias.judged(t, workerName, since, "is trusted with "+kernels[1], func(n *protocol.Node, _ *appraisal.Verdict) bool { return n.Trust == protocol.Trusted })
}

// bootChanged boots the good worker with one thing changed.
func (w *worker) bootChanged(t *testing.T, change func(*Options)) *appraisal.Verdict {
	t.Helper()
	if err := w.machine.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	good := w.good
	good.Files = maps.Clone(good.Files)
	if err := w.machine.Change(func(o *Options) { *o = good; change(o) }); err != nil {
		t.Fatal(err)
	}
	since := time.Now()
	if _, err := w.machine.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w.booted(t, since)
}
