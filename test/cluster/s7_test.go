//go:build cluster

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/internal/audit/audittest"
	"touchstone.dev/touchstone/internal/audit/rules"
)

// TestS7: what auditd records on a worker costs it its sensitive pods, until somebody who looked into it says so. The machine's kernel is that of
// all workers here; the log of its auditd is on one of them.
func TestS7(t *testing.T) {
	s := installed(t)
	ctx, w2 := t.Context(), s.Workers[1]
	auditd := audittest.Start(t, audittest.Options{})
	_, err := rules.Install(ctx, rules.Auditctl, "/usr/bin/trust-agent", t.TempDir(), rules.Control{Backlog: 8192, Wait: 60000})
	must(t, err)
	_, err = w2.Run(ctx, "mount", "--bind", auditd.Dir, "/var/log/audit")
	must(t, err)
	t.Cleanup(func() { _, _ = w2.Run(context.Background(), "umount", "/var/log/audit") })
	must(t, s.Step("S7 the chart gives agents the audit events", func() error { return s.audited(ctx) }))
	_, err = s.Until(ctx, w2.Name, "trusted", (*Trust).Trusted)
	must(t, err)
	n := s.newTenant(t, "bank", "regulated")
	must(t, n.alice.Create(ctx, n.pod("ledger", onWorker(w2))))
	must(t, until(ctx, "ledger runs", podTime, nil, func(ctx context.Context) error {
		running, err := s.running(ctx, n.name, "ledger")
		if _, ok := running[w2.Name]; err == nil && !ok {
			err = errors.New("it does not")
		}
		return err
	}))

	began := time.Now()
	mine(t)
	fallen, err := s.Until(ctx, w2.Name, "fallen", (*Trust).Fallen)
	must(t, err)
	s.logf("S7 %s fell %.2f s after a miner began: %s", w2.Name, time.Since(began).Seconds(), fallen.Status.Reason)
	if got := fallen.Red(); !slices.Equal(got, []int{5}) {
		t.Errorf("levels that do not hold: got %v, want level 5 alone", got)
	}
	s.leaves(t, w2.Name)
	s.logf("S7 its sensitive pods are gone after %.2f s", time.Since(began).Seconds())
	why, err := s.InAIAS(ctx, nil, "touchstone", "why", w2.Name)
	if !strings.Contains(string(why), "T1496") {
		t.Errorf("touchstone why: got %s (%v), want the technique T1496", why, err)
	}

	_, err = s.aias.Client.ClearDetections(ctx, w2.Name, "all", "the miner was a rehearsal")
	must(t, err)
	_, err = s.Until(ctx, w2.Name, "trusted", (*Trust).Trusted)
	must(t, err)
}

// namespaced is for the laboratory: its workers have PID namespaces of their own, where the kernel does not answer what the state of audit is.
const namespaced = policySpec + `
exceptions:
- {rule: runtime.audit-chain, allow: fail, reason: a worker of the laboratory is in a PID namespace}
`

// audited installs the chart once more, with the agents' audit on, and waits until all agents are those.
func (s *world) audited(ctx context.Context) error {
	if _, err := s.Install(ctx, s.Workers[0], namespaced, map[string]any{"agent": map[string]any{"audit": map[string]any{"enabled": true}}}); err != nil {
		return err
	}
	return until(ctx, "the agents are new", installTime, nil, func(ctx context.Context) error {
		var d apps.DaemonSet
		err := s.Client.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: "trust-agent"}, &d)
		if st := d.Status; err == nil && (st.ObservedGeneration < d.Generation || st.UpdatedNumberScheduled < st.DesiredNumberScheduled || st.NumberReady < st.DesiredNumberScheduled) {
			err = fmt.Errorf("%d of %d are new, %d ready", st.UpdatedNumberScheduled, st.DesiredNumberScheduled, st.NumberReady)
		}
		return err
	})
}

// mine starts a program as a miner is started. It does nothing.
func mine(t *testing.T) {
	t.Helper()
	program := filepath.Join("/dev/shm", fmt.Sprintf("touchstone-s7-%d", os.Getpid()))
	code, err := os.ReadFile("/bin/true")
	must(t, err)
	must(t, os.WriteFile(program, code, 0o700)) //nolint:gosec // it is to be started
	t.Cleanup(func() { _ = os.Remove(program) })
	must(t, exec.CommandContext(t.Context(), program, "-o", "stratum+tcp://127.0.0.1:3333", "--donate-level=1").Run()) //nolint:gosec // ours
}
