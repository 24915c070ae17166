package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

// others are taints that are not ours, one of them of our key.
func others(n *corev1.Node) {
	n.Spec.Taints = []corev1.Taint{
		{Key: "dedicated", Value: "gpu", Effect: corev1.TaintEffectNoSchedule},
		{Key: v1alpha1.UntrustedTaint, Effect: corev1.TaintEffectPreferNoSchedule},
	}
}

// TestTrustComesAndGoes: a node is tainted until its first result, freed by it, and tainted again when it falls; others' taints stay.
func TestTrustComesAndGoes(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.node("w1", others)
	w.isTrusted("w1", false)
	const theirs = "dedicated:NoSchedule untrusted:PreferNoSchedule"
	if got := taints(w.get("w1")); got != theirs+" untrusted:NoSchedule" {
		t.Errorf("taints of a node that never attested: got %q, want no NoExecute", got)
	}
	w.aias.say(w.aias.trusted("w1"))
	w.isTrusted("w1", true)
	if got := taints(w.get("w1")); got != theirs {
		t.Errorf("taints of a trusted node: got %q, want %q", got, theirs)
	}
	nt := w.trust("w1")
	if s := nt.Status; len(s.Levels) != 5 || s.Node == nil || s.Node.UID != w.get("w1").UID || s.ExpiresAt == nil || s.Result == "" || len(nt.OwnerReferences) != 1 {
		t.Errorf("NodeTrust: got %+v", nt)
	}
	start := time.Now()
	w.aias.say(w.aias.trusted("w1", fallen(4, "/usr/bin/miner is not known")))
	w.eventually("tainted", func() bool { return strings.Contains(taints(w.get("w1")), both) })
	t.Logf("from the verdict at AIAS to the taint: %s", time.Since(start).Round(time.Millisecond))
	w.isTrusted("w1", false)
	n := w.get("w1")
	if got := taints(n); got != theirs+" "+both || n.Labels[v1alpha1.LevelLabelPrefix+"4"] != "fail" {
		t.Errorf("fallen node: got taints %q, labels %v", got, n.Labels)
	}
	if got := w.trust("w1").Status.Reason; got != "/usr/bin/miner is not known" {
		t.Errorf("reason: got %q", got)
	}
	w.aias.say(w.aias.trusted("w1"))
	w.isTrusted("w1", true)
}

// TestBinding: a result counts only for the machine, boot, TPM and node object that it is about, and trust comes back by itself.
func TestBinding(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.node("w1")
	w.aias.say(w.aias.trusted("w1"))
	w.isTrusted("w1", true)
	code := func(want string) {
		t.Helper()
		w.isTrusted("w1", false)
		w.eventually(want, func() bool { return w.trust("w1").Status.Conditions[0].Reason == want })
	}
	status := func(change func(*corev1.Node)) {
		t.Helper()
		w.report(w.get("w1"), change)
	}
	status(func(n *corev1.Node) { n.Status.NodeInfo.BootID = "another" })
	code("Rebooted")
	w.aias.say(w.aias.trusted("w1", func(r *result.Result) { r.Machine.BootID = "another" }))
	w.isTrusted("w1", true)
	status(func(n *corev1.Node) { n.Status.NodeInfo.SystemUUID = "stolen" })
	code("OtherMachine")
	status(func(n *corev1.Node) { n.Status.NodeInfo.SystemUUID = "uuid-w1" })
	w.isTrusted("w1", true)
	w.aias.say(w.aias.trusted("w1", func(r *result.Result) { r.Machine.BootID, r.AKName = "another", "000bother" }))
	code("OtherTPM")
	w.aias.say(w.aias.trusted("w1", func(r *result.Result) { r.Machine.BootID = "another" }))
	w.isTrusted("w1", true)
	w.aias.send(protocol.NodeResult{Node: "w1", Removed: true})
	code("NotEnrolled")
}

// TestRecreated: a node object that is made again proves itself again, although the machine is the same.
func TestRecreated(t *testing.T) {
	w := newWorld(t)
	w.run()
	old := w.aias.trusted("w1")
	n := w.node("w1")
	w.aias.say(old)
	w.isTrusted("w1", true)
	if err := w.Delete(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	w.eventually("NodeTrust goes with its node", func() bool { return w.trust("w1").UID == "" })
	time.Sleep(1100 * time.Millisecond) // times are kept to the second
	w.node("w1")
	w.isTrusted("w1", false)
	w.aias.say(old)
	w.never("trusted by an old result", 500*time.Millisecond, func() bool { return w.get("w1").Labels[v1alpha1.TrustedLabel] == "true" })
	if got := w.trust("w1").Status.Conditions[0].Reason; got != "NodeRecreated" {
		t.Errorf("reason: got %q, want NodeRecreated", got)
	}
	time.Sleep(1100 * time.Millisecond)
	w.aias.say(w.aias.trusted("w1"))
	w.isTrusted("w1", true)
}

// TestExpiry: what is not renewed ends, to the moment, and AIAS need not say so; what AIAS takes back ends at once.
func TestExpiry(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.node("w1")
	w.aias.life = 3 * time.Second
	r := w.aias.trusted("w1")
	w.aias.say(r)
	w.isTrusted("w1", true)
	w.aias.setDown(true)
	end := r.Issued.Truncate(time.Second).Add(w.aias.life)
	w.eventually("tainted", func() bool { return strings.Contains(taints(w.get("w1")), "untrusted:NoSchedule") })
	if late := time.Since(end); late < 0 || late > time.Second {
		t.Errorf("tainted %s after the end, want at once", late)
	}
	w.isTrusted("w1", false)
	w.aias.life = 5 * time.Minute
	w.aias.setDown(false)
	w.aias.say(w.aias.trusted("w1"))
	w.isTrusted("w1", true)
	w.aias.send(protocol.NodeResult{Node: "w1", Result: w.aias.said["w1"].Result, Trust: protocol.Untrusted, Reason: "silent"})
	w.isTrusted("w1", false)
}

// TestSpoofs: labels and taints that others change are put right.
func TestSpoofs(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.node("w1")
	w.isTrusted("w1", false)
	n := w.get("w1")
	w.edit(n, func() {
		n.Labels[v1alpha1.TrustedLabel] = "true"
		n.Labels[v1alpha1.ClassNodeLabelPrefix+"regulated"] = "true"
		n.Spec.Taints = nil
	}, client.FieldOwner("intruder"))
	w.eventually("put right", func() bool {
		n := w.get("w1")
		_, spoofed := n.Labels[v1alpha1.ClassNodeLabelPrefix+"regulated"]
		return !spoofed && n.Labels[v1alpha1.TrustedLabel] == "false" && strings.Contains(taints(n), "untrusted:NoSchedule")
	})
	if err := w.Delete(context.Background(), w.trust("w1")); err != nil {
		t.Fatal(err)
	}
	w.eventually("NodeTrust is there again", func() bool { return len(w.trust("w1").Status.Conditions) > 0 })
}

// TestForged: results that AIAS did not sign, or signed for another node, do not count; a new key of AIAS is found.
func TestForged(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.node("w1")
	w.node("w2")
	w.isTrusted("w1", false)
	w.aias.say(w.aias.trusted("w2"))
	w.isTrusted("w2", true)
	forger := newAIAS(t, time.Now)
	forger.say(forger.trusted("w1"))
	w.aias.send(forger.said["w1"])
	w.aias.send(protocol.NodeResult{Node: "w1", Result: w.aias.said["w2"].Result, Trust: protocol.Trusted})
	w.never("a forged result counts", time.Second, func() bool { return w.get("w1").Labels[v1alpha1.TrustedLabel] == "true" })
	time.Sleep(5 * time.Second) // keys are asked for with a rest between
	w.aias.newKey()
	w.aias.say(w.aias.trusted("w1"))
	w.isTrusted("w1", true)
}

// TestClasses: nodes have the labels of the classes that they meet, and only proven tags; classes count them.
func TestClasses(t *testing.T) {
	w := newWorld(t)
	w.run()
	ctx := context.Background()
	class := func(name string, spec v1alpha1.TrustClassSpec) {
		t.Helper()
		tc := &v1alpha1.TrustClass{Spec: spec}
		tc.Name = name
		if err := w.Create(ctx, tc); err != nil {
			t.Fatal(err)
		}
	}
	class("strict", v1alpha1.TrustClassSpec{})
	class("boot", v1alpha1.TrustClassSpec{Levels: []int32{1, 2, 3}})
	class("german", v1alpha1.TrustClassSpec{Tags: map[string]v1alpha1.TagValues{"country": {"de"}}})
	w.node("w1")
	w.aias.say(w.aias.trusted("w1", func(r *result.Result) {
		r.Tags = map[string]string{"country": "de", "bad/tag/name": "x", "site": "not a label"}
	}))
	has := func(want ...string) {
		t.Helper()
		w.eventually(strings.Join(want, " "), func() bool {
			var got []string
			for _, name := range []string{"boot", "german", "strict"} {
				if w.get("w1").Labels[v1alpha1.ClassNodeLabelPrefix+name] == "true" {
					got = append(got, name)
				}
			}
			return strings.Join(got, " ") == strings.Join(want, " ") && strings.Join(w.trust("w1").Status.Classes, " ") == strings.Join(want, " ")
		})
	}
	has("boot", "german", "strict")
	if got := w.get("w1").Labels[v1alpha1.TagLabelPrefix+"country"]; got != "de" {
		t.Errorf("label of the tag: got %q, want de", got)
	}
	nodes := func(class string, want int32) {
		t.Helper()
		w.eventually("count of "+class, func() bool {
			var tc v1alpha1.TrustClass
			return w.Get(ctx, types.NamespacedName{Name: class}, &tc) == nil && tc.Status.Nodes == want
		})
	}
	nodes("german", 1)
	w.aias.say(w.aias.trusted("w1", func(r *result.Result) { r.Tags = map[string]string{"country": "fr"} }))
	has("boot", "strict")
	nodes("german", 0)
	lost := false
	for _, c := range w.trust("w1").Status.Conditions {
		lost = lost || c.Type == v1alpha1.ClassConditionPrefix+"german"
	}
	if s := w.trust("w1").Status; !lost || s.FellAt == nil || !s.Trusted {
		t.Errorf("a lost class: got %+v, want a condition of it and the time", s)
	}
	w.aias.say(w.aias.trusted("w1", fallen(5, "miner")))
	has("boot")
	w.aias.send(protocol.NodeResult{Node: "w1", Removed: true})
	has()
}
