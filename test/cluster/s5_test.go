//go:build cluster

package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

const (
	fleetNodes = 1000
	fleetPods  = 5000
	burst      = 1000 // pods of one round of scheduling
	rounds     = 3
	maxMemory  = 200 // MiB, of the controller
	minRatio   = 0.9 // of the rates of scheduling with and without Touchstone
	fleetTime  = 4 * time.Minute
)

// TestS5 loads the controller with a thousand nodes, and has most of them fall at once.
func TestS5(t *testing.T) {
	if shared.c != nil { // there is one cluster on a machine
		must(t, shared.c.Close())
		shared.c, built = nil, nil
	}
	ctx := t.Context()
	fast := []string{"--kube-api-qps=5000", "--kube-api-burst=5000"} // the scheduler's own brake would hide what slows it down
	c, err := Open(ctx, Config{Workers: 0, Log: say, Args: map[string][]string{Scheduler: fast}})
	must(t, err)
	defer end(t, c)
	l := &large{world: &world{Cluster: c}}
	for i := range fleetNodes {
		l.names = append(l.names, fmt.Sprintf("n%04d", i))
	}
	must(t, c.Step("kwok and the nodes", func() error { return l.openNodes(ctx) }))
	must(t, c.Step("AIAS and the workers", func() error { return l.openWorkers(t) }))
	must(t, c.Step("Touchstone's objects", func() error { return l.openObjects(ctx) }))
	must(t, c.Step("controller: all nodes trusted", func() error { return l.startController(ctx) }))
	n := l.newTenant(t, "load", "regulated")
	t.Run("scheduling", func(t *testing.T) { l.scheduling(t, n) })
	t.Run("memory", func(t *testing.T) { l.memory(t, n) })
	t.Run("one falls", func(t *testing.T) { l.oneFalls(t) })
	t.Run("60 % fall", func(t *testing.T) { l.manyFall(t, n) })
}

// scheduling compares the rates of the scheduler with and without Touchstone, in interleaved rounds.
func (l *large) scheduling(t *testing.T, n *tenant) {
	ctx := t.Context()
	rates := map[bool][]float64{}
	for range rounds {
		for _, with := range []bool{false, true} {
			if with {
				must(t, l.apply(ctx, "admission.yaml", l.admission))
				must(t, l.startController(ctx))
				must(t, n.admitted(ctx))
			} else {
				l.controller.Stop(termTime)
				must(t, writeFiles(l.dir, map[string][]byte{"admission.yaml": l.admission}))
				_, err := l.Kubectl(ctx, "delete", "-f", filepath.Join(l.dir, "admission.yaml"), "--wait=true", "--ignore-not-found")
				must(t, err)
			}
			rates[with] = append(rates[with], l.round(t, n, with))
		}
	}
	without, with := median(rates[false]), median(rates[true])
	l.logf("S5 scheduling: %.0f pods/s without Touchstone %.0f, %.0f with it %.0f, ratio of medians %.2f", without, rates[false], with, rates[true], with/without)
	if with/without < minRatio {
		t.Errorf("ratio of medians: got %.2f, want at least %.2f", with/without, minRatio)
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// round makes pods while the scheduler is away, starts it, and returns how many it places in a second.
func (l *large) round(t *testing.T, n *tenant, classy bool) float64 {
	t.Helper()
	ctx := t.Context()
	l.Members[0].Kill(Scheduler)
	must(t, n.create(ctx, "p", burst, classy))
	must(t, l.Members[0].Start(Scheduler))
	var first time.Time
	var before int
	must(t, until(ctx, "all pods placed", fleetTime, nil, func(ctx context.Context) error {
		placed, err := n.placed(ctx)
		if err == nil && placed > 0 && first.IsZero() {
			first, before = time.Now(), placed
		}
		if err == nil && placed < burst {
			err = fmt.Errorf("%d of %d", placed, burst)
		}
		return err
	}))
	rate := float64(burst-before) / time.Since(first).Seconds()
	must(t, n.removeAll(ctx))
	return rate
}

// admitted waits until pods of the class are accepted: the API server learns the new certificate of the webhook a moment after the controller's start.
func (n *tenant) admitted(ctx context.Context) error {
	good := 0
	return until(ctx, "pods of the class are accepted", podTime, nil, func(ctx context.Context) error {
		p := n.pod("try", func(p *core.Pod) { p.Spec.Containers[0].Image = loadImage })
		if err := n.Client.Create(ctx, p, client.DryRunAll); err != nil {
			good = 0
			return err
		}
		if good++; good < 20 {
			return errors.New("not for long enough")
		}
		return nil
	})
}

// loadImage is what simulated pods run: kwok asks no registry.
var loadImage = "load.test/app@sha256:" + strings.Repeat("0", 64)

// create makes pods: of the class, or with a node selector of their own, as one would have without Touchstone.
func (n *tenant) create(ctx context.Context, prefix string, count int, classy bool) error {
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("%s%05d", prefix, i))
	}
	return parallel(ctx, names, func(ctx context.Context, name string) error {
		p := n.pod(name, func(p *core.Pod) {
			p.Labels["app"], p.Spec.Containers[0].Image = "load", loadImage
			if !classy {
				delete(p.Labels, v1alpha1.ClassLabel)
				p.Spec.NodeSelector = map[string]string{"fleet": "all"}
			}
		})
		return n.Client.Create(ctx, p)
	})
}

// placed counts the pods of create that have a node.
func (n *tenant) placed(ctx context.Context) (count int, err error) {
	list, err := n.load(ctx)
	for i := range list.Items {
		if list.Items[i].Spec.NodeName != "" {
			count++
		}
	}
	return count, err
}

func (n *tenant) load(ctx context.Context) (list core.PodList, err error) {
	err = n.Client.List(ctx, &list, client.InNamespace(n.name), client.MatchingLabels{"app": "load"})
	return list, err
}

func (n *tenant) removeAll(ctx context.Context) error {
	var grace int64
	if err := n.Client.DeleteAllOf(ctx, &core.Pod{}, client.InNamespace(n.name), &client.DeleteAllOfOptions{DeleteOptions: client.DeleteOptions{GracePeriodSeconds: &grace}}); err != nil {
		return err
	}
	return until(ctx, "pods gone", fleetTime, nil, func(ctx context.Context) error {
		var list core.PodList
		if err := n.Client.List(ctx, &list, client.InNamespace(n.name), client.Limit(1)); err != nil || len(list.Items) == 0 {
			return err
		}
		return errors.New("some are left")
	})
}

// memory fills the cluster and looks at the controller.
func (l *large) memory(t *testing.T, n *tenant) {
	ctx := t.Context()
	must(t, n.create(ctx, "p", fleetPods, true))
	must(t, until(ctx, "all pods placed", 2*fleetTime, nil, func(ctx context.Context) error {
		placed, err := n.placed(ctx)
		if err == nil && placed < fleetPods {
			err = fmt.Errorf("%d of %d", placed, fleetPods)
		}
		return err
	}))
	trusted, err := l.workers.Attest(ctx) // a round of results on top
	must(t, err)
	if trusted != fleetNodes {
		t.Errorf("AIAS trusts %d workers, want %d", trusted, fleetNodes)
	}
	time.Sleep(5 * time.Second)
	now, most := l.resident(t)
	l.logf("S5 controller with %d nodes and %d pods of a class: %d MiB, at most %d MiB", fleetNodes, fleetPods, now, most)
	if most >= maxMemory {
		t.Errorf("memory of the controller: got %d MiB, want less than %d", most, maxMemory)
	}
}

// digest of a program that no reference knows.
var miner = sha256.Sum256([]byte("it mines for somebody else"))

// oneFalls: a single node is never held.
func (l *large) oneFalls(t *testing.T) {
	ctx := t.Context()
	name := l.names[0]
	l.workers.Run(l.names[:1], "/var/tmp/miner", miner[:])
	began := time.Now()
	_, err := l.workers.Attest(ctx, name)
	must(t, err)
	_, err = l.Until(ctx, name, "fallen, NoExecute", func(tr *Trust) bool { return tr.Fallen() && slices.Contains(tr.Effects, core.TaintEffectNoExecute) })
	must(t, err)
	l.logf("S5 one of %d nodes fell: tainted %.2f s after it attested", fleetNodes, time.Since(began).Seconds())
	l.leaves(t, name)
	l.logf("S5 its pods are gone %.2f s after it attested", time.Since(began).Seconds())
}

// manyFall: the breaker closes placement at once, and removes nothing until a person confirms.
func (l *large) manyFall(t *testing.T, n *tenant) {
	ctx := t.Context()
	many := l.names[1 : 1+fleetNodes*60/100]
	pods := l.podsOn(t, many)
	l.workers.Run(many, "/var/tmp/miner", miner[:])
	began := time.Now()
	_, err := l.workers.Attest(ctx, many...)
	must(t, err)
	var state v1alpha1.TrustEnforcement
	must(t, until(ctx, "the breaker holds", fleetTime, nil, func(ctx context.Context) error {
		err := l.Client.Get(ctx, client.ObjectKey{Name: v1alpha1.EnforcementName}, &state)
		if err == nil && (state.Status.State != v1alpha1.StateHeld || int(state.Status.HeldNodes) < len(many)*9/10) {
			err = fmt.Errorf("%s, %d nodes held: %s", state.Status.State, state.Status.HeldNodes, state.Status.Message)
		}
		return err
	}))
	must(t, until(ctx, "placement closed", fleetTime, nil, func(ctx context.Context) error {
		return l.labelled(ctx, v1alpha1.ClassNodeLabelPrefix+"regulated", fleetNodes-1-len(many))
	}))
	l.logf("S5 %d nodes fell at once: held, placement closed on all of them after %.1f s: %s", len(many), time.Since(began).Seconds(), state.Status.Message)
	time.Sleep(graceTime + 5*time.Second) // longer than the grace
	executed := 0
	for _, name := range many {
		tr, err := l.Trust(ctx, name)
		must(t, err)
		if slices.Contains(tr.Effects, core.TaintEffectNoExecute) {
			executed++
		}
	}
	left := l.podsOn(t, many)
	l.logf("S5 while the breaker holds: %d of %d pods are still there, %d nodes have NoExecute", left, pods, executed)
	if lost := pods - left; executed > len(many)*30/100 || lost > pods*35/100 {
		t.Errorf("while it holds: %d nodes have NoExecute and %d of %d pods are lost, want no more than the share of the breaker", executed, lost, pods)
	}
	l.placementHolds(t, n, many)
	confirmed := time.Now()
	must(t, l.Client.Patch(ctx, &state, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"confirm":%q}}`, state.Status.HoldID))))
	must(t, until(ctx, "the fallen nodes are emptied", fleetTime, nil, func(context.Context) error {
		if left := l.podsOn(t, many); left > 0 {
			return fmt.Errorf("%d pods are left", left)
		}
		return nil
	}))
	l.logf("S5 a person confirmed: %d pods gone after %.1f s", left, time.Since(confirmed).Seconds())
}

// placementHolds makes more pods: none of them lands on a fallen node.
func (l *large) placementHolds(t *testing.T, n *tenant, fallen []string) {
	t.Helper()
	before, err := n.placed(t.Context())
	must(t, err)
	const more = 100
	must(t, n.create(t.Context(), "held", more, true))
	must(t, until(t.Context(), "pods placed while the breaker holds", fleetTime, nil, func(ctx context.Context) error {
		placed, err := n.placed(ctx)
		if err == nil && placed < before+more {
			err = fmt.Errorf("%d of %d", placed-before, more)
		}
		return err
	}))
	list, err := n.load(t.Context())
	must(t, err)
	for i := range list.Items {
		if p := &list.Items[i]; strings.HasPrefix(p.Name, "held") && slices.Contains(fallen, p.Spec.NodeName) {
			t.Errorf("pod %s is on %s, which fell", p.Name, p.Spec.NodeName)
		}
	}
}

// podsOn counts the pods of a class on nodes.
func (l *large) podsOn(t *testing.T, nodes []string) (count int) {
	t.Helper()
	var list core.PodList
	must(t, l.Client.List(t.Context(), &list, client.HasLabels{v1alpha1.ClassLabel}))
	for i := range list.Items {
		if p := &list.Items[i]; p.DeletionTimestamp == nil && slices.Contains(nodes, p.Spec.NodeName) {
			count++
		}
	}
	return count
}
