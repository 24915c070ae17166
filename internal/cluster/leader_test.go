package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// TestLeaders: of two replicas one acts; when it ends the other one does, within seconds, and knows everything already.
func TestLeaders(t *testing.T) {
	w := newWorld(t)
	t.Cleanup(func() {
		_ = w.Delete(context.Background(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: leaderID, Namespace: "default"}})
	})
	holder := func() string {
		var l coordinationv1.Lease
		if err := w.Get(context.Background(), types.NamespacedName{Namespace: "default", Name: leaderID}, &l); err != nil || l.Spec.HolderIdentity == nil {
			return ""
		}
		return *l.Spec.HolderIdentity
	}
	elect := func(o *Options) { o.LeaderElection, o.Namespace = true, "default" }
	w.node("w1")
	w.aias.say(w.aias.trusted("w1"))
	stop := w.run(elect)
	w.isTrusted("w1", true)
	first := holder()
	w.run(elect)
	time.Sleep(3 * time.Second)
	if got := holder(); got != first {
		t.Fatalf("leader: got %q, want %q still", got, first)
	}
	stop()
	start := time.Now()
	w.aias.say(w.aias.trusted("w1", fallen(4, "miner")))
	w.eventually("the other one tainted", func() bool { return strings.Contains(taints(w.get("w1")), "NoExecute") })
	t.Logf("taken over and tainted after %s", time.Since(start).Round(time.Millisecond))
	w.isTrusted("w1", false)
}

// TestTakeoverWithoutAIAS: a controller that starts while AIAS is away believes what was verified before, until it ends, and raises nothing.
func TestTakeoverWithoutAIAS(t *testing.T) {
	w := newWorld(t)
	w.aias.life = 20 * time.Second
	stop := w.run()
	w.node("w1")
	w.node("w2")
	r := w.aias.trusted("w1")
	w.aias.say(r)
	w.isTrusted("w1", true)
	w.isTrusted("w2", false)
	stop()
	w.aias.setDown(true)
	n := w.get("w2")
	n.Labels[v1alpha1.TrustedLabel], n.Spec.Taints = "true", nil
	if err := w.Update(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	w.run()
	w.isTrusted("w2", false)
	w.never("trust is lost before its end", time.Second, func() bool { return w.get("w1").Labels[v1alpha1.TrustedLabel] != "true" })
	w.isTrusted("w1", false) // waits for the end
	if early := time.Until(r.Issued.Truncate(time.Second).Add(w.aias.life)); early > 0 {
		t.Errorf("trust was lost %s before its end", early)
	}
}
