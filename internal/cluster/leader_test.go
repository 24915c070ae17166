package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/result"
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

// TestTakeoverVerifies: a controller that starts while AIAS is away believes no NodeTrust that somebody wrote, and without the keys of AIAS none at all.
func TestTakeoverVerifies(t *testing.T) {
	w := newWorld(t)
	stop := w.run()
	w.node("w1")
	w.node("w2")
	w.aias.say(w.aias.trusted("w1"))
	w.aias.say(w.aias.trusted("w2", fallen(4, "miner")))
	w.isTrusted("w1", true)
	w.isTrusted("w2", false)
	stop()
	w.aias.setDown(true)
	// The word of another AIAS, in the right form.
	forger := newAIAS(t, w.aias.now)
	token, err := result.Sign(forger.key, forger.trusted("w2"))
	if err != nil {
		t.Fatal(err)
	}
	nt := w.trust("w2")
	before := nt.DeepCopy()
	good := w.trust("w1").Status
	nt.Status.Trusted, nt.Status.Reason, nt.Status.Levels, nt.Status.Conditions, nt.Status.FellAt = true, "", good.Levels, good.Conditions, nil
	nt.Status.Result, nt.Status.VerifiedAt, nt.Status.ExpiresAt = token, good.VerifiedAt, good.ExpiresAt
	if err := w.Status().Patch(context.Background(), nt, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	stop = w.run()
	w.eventually("the forged one is refused", func() bool {
		return strings.Contains(w.trust("w2").Status.Reason, "recorded before this controller started")
	})
	w.isTrusted("w2", false)
	w.isTrusted("w1", true)
	stop()
	w.run(func(o *Options) { o.Keys = nil })
	w.eventually("nothing is believed without keys", func() bool { return strings.Contains(w.trust("w1").Status.Reason, "no keys of AIAS are kept") })
	w.isTrusted("w1", false)
}
