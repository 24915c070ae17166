//go:build cluster

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	certificates "k8s.io/api/certificates/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/swtpm/machine"
)

// waits is how long a kubelet that must not be let in is watched.
const waits = 5 * time.Second

// TestS0 follows a worker that joins by attestation: with the bootstrap token alone it is no node; when its agent has attested, it is one;
// booted otherwise it falls with the right level red, and is not let in again.
func TestS0(t *testing.T) {
	s := installed(t)
	ctx, w := t.Context(), s.Workers[2]
	good := captured(t, s.Cluster, "good")
	w.Kubelet = []string{"--node-labels", "touchstone.dev/agent=host"}
	must(t, w.Boot(ctx, good))
	must(t, w.ImportProduct(ctx))
	must(t, w.StartKubelet(ctx))
	t.Run("a bootstrap token alone admits no node", func(t *testing.T) {
		_, err := s.Request(ctx, w.Name)
		must(t, err)
		time.Sleep(waits)
		if r, err := s.Request(ctx, w.Name); err != nil || len(r.Status.Certificate) > 0 {
			t.Errorf("the request of a machine that has not attested: got %v, want it undecided", err)
		}
		s.wantNoNode(t, w.Name)
	})
	t.Run("it joins when it has attested", func(t *testing.T) { s.joinsByAttestation(t, w) })
	for _, c := range []struct {
		name string
		boot func() *machine.Boot
		then func() error // when it has booted
		red  []int        // levels that must be red, and no others but those of more
		more []int
		rule string // that must have failed, when the levels do not tell enough
	}{
		{name: "other firmware", boot: boot(t, s, "smp2", false), red: []int{1}},
		{name: "Secure Boot off", boot: func() *machine.Boot {
			b, err := good.SecureBootOff()
			must(t, err)
			return b
		}, red: []int{2}, more: []int{3, 4}},
		{name: "a key added to db", boot: boot(t, s, "uki-msplus", false), red: []int{2, 3, 4}},
		{name: "an owner's key enrolled", boot: boot(t, s, "mok-enrolled", false), red: []int{3}, more: []int{4}},
		{name: "an older kernel", boot: boot(t, s, "kernel-55", false), red: []int{4}, more: []int{5}},
		{name: "another command line", boot: boot(t, s, "cmdline", false), red: []int{4}},
		{name: "another initrd", boot: boot(t, s, "initrd", false), red: []int{4}},
		{name: "an unsigned module tried", boot: boot(t, s, "modules", true), red: []int{4}, more: []int{5}, rule: appraisal.RuleModules},
		{
			name: "a changed binary run", boot: func() *machine.Boot { return good }, red: []int{5},
			then: func() error { return w.Execute("/usr/bin/busybox", []byte("not what Debian signed")) },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			must(t, w.Boot(ctx, c.boot()))
			began := time.Now()
			if c.then != nil {
				_, err := s.Until(ctx, w.Name, "trusted", (*Trust).Trusted)
				must(t, err)
				began = time.Now()
				must(t, c.then())
			}
			most := append(slices.Clone(c.red), c.more...)
			fell, err := s.Until(ctx, w.Name, fmt.Sprintf("fallen, red levels %v and at most %v", c.red, most), func(tr *Trust) bool {
				return tr.Fallen() && subset(c.red, tr.Red()) && subset(tr.Red(), most)
			})
			must(t, err)
			s.logf("S0 %s: levels %v red %.2f s later: %s", c.name, fell.Red(), time.Since(began).Seconds(), fell.Status.Reason)
			if c.rule != "" && !s.failed(t, w.Name, c.rule) {
				t.Errorf("AIAS does not say that rule %s failed", c.rule)
			}
		})
	}
	t.Run("booted otherwise it is not let in", func(t *testing.T) { s.refusesJoin(t, w) })
	t.Run("everything as it was", func(t *testing.T) {
		began := time.Now()
		must(t, w.Boot(ctx, good))
		// The kubelet asks again with the same key, which gives the request the same name: what was denied stays denied until an
		// administrator, or the controller manager after an hour, removes it.
		must(t, s.forgetRequests(ctx, w.Name))
		must(t, s.Joined(ctx, w))
		_, err := s.Until(ctx, w.Name, "trusted", (*Trust).Trusted)
		must(t, err)
		s.logf("S0 booted as approved: %s is trusted again %.2f s after containerd was up", w.Name, time.Since(began).Seconds())
	})
}

// boot reads a boot of the golden corpus when it is needed.
func boot(t *testing.T, s *world, name string, after bool) func() *machine.Boot {
	return func() *machine.Boot {
		t.Helper()
		return capturedAt(t, s.Cluster, name, after)
	}
}

// failed reports whether a rule failed in the verdict of AIAS on a node.
func (s *world) failed(t *testing.T, node, rule string) bool {
	t.Helper()
	report, err := s.aias.Client.Why(t.Context(), node)
	must(t, err)
	var v appraisal.Verdict
	must(t, json.Unmarshal(report.Verdict, &v))
	for _, l := range v.Levels {
		for _, f := range l.Findings {
			if f.Rule == rule && f.Status == appraisal.Fail {
				return true
			}
		}
	}
	return false
}

// subset reports whether every element of a is in b.
func subset(a, b []int) bool {
	return !slices.ContainsFunc(a, func(i int) bool { return !slices.Contains(b, i) })
}

func (s *world) wantNoNode(t *testing.T, name string) {
	t.Helper()
	if err := s.Client.Get(t.Context(), client.ObjectKey{Name: name}, &core.Node{}); !apierrors.IsNotFound(err) {
		t.Errorf("node %s: got %v, want none", name, err)
	}
}

func (s *world) joinsByAttestation(t *testing.T, w *Worker) {
	ctx := t.Context()
	began := time.Now()
	must(t, w.StartAgent(ctx, s.aias))
	must(t, s.Joined(ctx, w))
	ready := time.Since(began)
	_, err := s.Until(ctx, w.Name, "trusted", (*Trust).Trusted)
	must(t, err)
	s.logf("S0 joined by attestation: Ready %.2f s after the agent was built and started, trusted after %.2f s", ready.Seconds(), time.Since(began).Seconds())
}

// refusesJoin: a worker with a new disk and another boot asks for a certificate, and is denied it.
func (s *world) refusesJoin(t *testing.T, w *Worker) {
	ctx := t.Context()
	must(t, w.StopKubelet(ctx))
	must(t, s.Client.Delete(ctx, &core.Node{ObjectMeta: objectMeta("", w.Name)}))
	must(t, w.ForgetKubelet())
	must(t, s.forgetRequests(ctx, w.Name))
	must(t, w.Boot(ctx, capturedAt(t, s.Cluster, "cmdline", false)))
	began := time.Now()
	must(t, w.StartKubelet(ctx))
	err := until(ctx, "denial", readyTime, nil, func(ctx context.Context) error {
		var list certificates.CertificateSigningRequestList
		if err := s.Client.List(ctx, &list); err != nil {
			return err
		}
		for i := range list.Items {
			r := &list.Items[i]
			if requestedNode(r) != w.Name {
				continue
			}
			if len(r.Status.Certificate) > 0 {
				t.Fatalf("request %s of a worker that booted otherwise was signed", r.Name)
			}
			for _, condition := range r.Status.Conditions {
				if condition.Type == certificates.CertificateDenied {
					s.logf("S0 not let in: denied after %.2f s: %s", time.Since(began).Seconds(), condition.Message)
					return nil
				}
			}
		}
		return errors.New("no request was denied")
	})
	must(t, err)
	s.wantNoNode(t, w.Name)
}

// forgetRequests removes the certificate requests for a node, so that new ones are told from old ones.
func (c *Cluster) forgetRequests(ctx context.Context, node string) error {
	var list certificates.CertificateSigningRequestList
	if err := c.Client.List(ctx, &list); err != nil {
		return err
	}
	for i := range list.Items {
		if requestedNode(&list.Items[i]) == node {
			if err := c.Client.Delete(ctx, &list.Items[i]); err != nil {
				return fmt.Errorf("forget the requests of %s: %w", node, err)
			}
		}
	}
	return nil
}
