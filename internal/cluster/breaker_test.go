package cluster

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// enforcement is the object, or an empty one.
func (w *world) enforcement() *v1alpha1.TrustEnforcement {
	w.t.Helper()
	te := &v1alpha1.TrustEnforcement{}
	if err := w.Get(context.Background(), types.NamespacedName{Name: v1alpha1.EnforcementName}, te); client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
	return te
}

// count counts the nodes whose taints contain what.
func (w *world) count(nodes []string, what string) int {
	n := 0
	for _, name := range nodes {
		if strings.Contains(taints(w.get(name)), what) {
			n++
		}
	}
	return n
}

func (w *world) fleet(n int) []string {
	w.t.Helper()
	var names []string
	for i := range n {
		name := fmt.Sprintf("w%02d", i)
		names = append(names, name)
		w.node(name)
		w.aias.say(w.aias.trusted(name))
	}
	return names
}

// TestBreaker: when too many nodes fall at once, no pod comes, and none is removed, until a person confirms; also by a controller that started later.
func TestBreaker(t *testing.T) {
	w := newWorld(t)
	w.account()
	w.class("regulated", 0)
	nodes := w.fleet(10)
	stop := w.run()
	for _, name := range nodes {
		w.isTrusted(name, true)
	}
	// The first three to fall are not too many yet, and may be carried out; the fourth trips the breaker before it is.
	w.pod("one", "w04", "regulated")
	w.pod("two", "w05", "regulated")
	time.Sleep(300 * time.Millisecond)
	w.aias.say(w.aias.trusted("w09", fallen(4, "one is carried out")))
	w.eventually("one node is carried out", func() bool { return strings.Contains(taints(w.get("w09")), both) })
	w.aias.say(w.aias.trusted("w09"))
	w.isTrusted("w09", true)

	for _, name := range nodes[:6] {
		w.aias.say(w.aias.trusted(name, fallen(4, "bad policy")))
	}
	w.eventually("held", func() bool {
		te := w.enforcement()
		return te.Status.State == v1alpha1.StateHeld && te.Status.HeldNodes == 6
	})
	w.eventually("all have NoSchedule, none NoExecute", func() bool {
		return w.count(nodes, "untrusted:NoSchedule") == 6 && w.count(nodes, "untrusted:NoExecute") == 0
	})
	w.eventually("NodeTrust says so", func() bool {
		return meta.IsStatusConditionTrue(w.trust("w03").Status.Conditions, v1alpha1.ConditionHeld)
	})
	w.event("TrustEnforcement", v1alpha1.EnforcementName, "EnforcementHeld", "spec.confirm")
	id := w.enforcement().Status.HoldID
	stop()
	w.run()
	w.never("a new controller carries it out", 1500*time.Millisecond, func() bool { return w.count(nodes, "untrusted:NoExecute") > 0 })
	for _, pod := range []string{"one", "two"} {
		if there, leaving := w.has(pod); !there || leaving {
			t.Errorf("pod %s is removed while enforcement is held", pod)
		}
	}
	te := w.enforcement()
	if te.Status.HoldID != id {
		t.Errorf("hold after a restart: got %q, want %q", te.Status.HoldID, id)
	}
	w.edit(te, func() { te.Spec.Confirm = "wrong" })
	w.never("confirmed by a wrong name", 500*time.Millisecond, func() bool { return w.count(nodes, "untrusted:NoExecute") > 0 })
	w.edit(te, func() { te.Spec.Confirm = id })
	w.eventually("carried out", func() bool { return w.count(nodes, "untrusted:NoExecute") == 6 })
	w.gone("one")
	w.gone("two")
}

// TestOutage: AIAS is away for longer than results live: no pod comes, none is removed; when it is back, trust is.
func TestOutage(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.aias.life = 5 * time.Second
	nodes := w.fleet(5)
	w.eventually("all are trusted", func() bool { return w.count(nodes, "untrusted") == 0 && w.trust("w04").Status.Trusted })
	w.aias.setDown(true)
	w.eventually("placement is closed", func() bool { return w.count(nodes, "untrusted:NoSchedule") == 5 })
	w.eventually("held", func() bool { return w.enforcement().Status.State == v1alpha1.StateHeld })
	w.eventually("nothing is removed", func() bool { return w.count(nodes, "untrusted:NoExecute") == 0 })
	w.never("something is removed", time.Second, func() bool { return w.count(nodes, "untrusted:NoExecute") > 0 })
	w.aias.life = time.Minute
	w.aias.setDown(false)
	for _, name := range nodes {
		w.aias.say(w.aias.trusted(name))
	}
	for _, name := range nodes {
		w.isTrusted(name, true)
	}
	w.eventually("enforced again", func() bool { return w.enforcement().Status.State == v1alpha1.StateEnforcing })
}

// TestOtherPodsStay: without NoExecute where pods without a class may stay.
func TestOtherPodsStay(t *testing.T) {
	w := newWorld(t)
	te := &v1alpha1.TrustEnforcement{}
	te.Name, te.Spec.OtherPods = v1alpha1.EnforcementName, v1alpha1.Stay
	if err := w.Create(context.Background(), te); err != nil {
		t.Fatal(err)
	}
	w.node("w1")
	w.aias.say(w.aias.trusted("w1"))
	w.run()
	w.isTrusted("w1", true)
	w.aias.say(w.aias.trusted("w1", fallen(1, "x")))
	w.isTrusted("w1", false)
	if got := taints(w.get("w1")); got != "untrusted:NoSchedule" {
		t.Errorf("taints: got %q, want NoSchedule only", got)
	}
	te = w.enforcement()
	w.edit(te, func() { te.Spec.OtherPods = v1alpha1.Evict })
	w.eventually("NoExecute follows the settings", func() bool { return strings.Contains(taints(w.get("w1")), "NoExecute") })
}
