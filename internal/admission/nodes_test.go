package admission

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

func nodeNamed(name string) *corev1.Node {
	n := &corev1.Node{}
	n.Name = name
	return n
}

// effects are those of our taint on a node.
func effects(n *corev1.Node) string {
	var out []string
	for _, taint := range n.Spec.Taints {
		if taint.Key == ourTaint {
			out = append(out, string(taint.Effect))
		}
	}
	return strings.Join(out, ",")
}

// TestNewNodes: each starts tainted, by whomever it is made; nobody brings labels of ours along.
func TestNewNodes(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		user   string
		taints []corev1.Taint
		want   string
	}{
		{"system:node:new-1", nil, "NoSchedule"},
		{"system:node:new-2", []corev1.Taint{{Key: "x", Effect: noExecute}}, "NoSchedule"},
		{"system:node:new-3", []corev1.Taint{{Key: ourTaint, Effect: corev1.TaintEffectNoSchedule}}, "NoSchedule"},
		{"system:node:new-5", []corev1.Taint{{Key: ourTaint, Effect: noExecute}}, "NoExecute,NoSchedule"},
		{admin, nil, "NoSchedule"},
	} {
		n := nodeNamed("new-" + tt.user[len(tt.user)-1:])
		n.Spec.Taints = tt.taints
		w.must(w.as(tt.user).Create(ctx, n))
		if got := effects(n); got != tt.want {
			t.Errorf("new node by %s with taints %v: effects of our taint %q, want %q", tt.user, tt.taints, got, tt.want)
		}
	}
	for _, user := range []string{"system:node:new-4", alice, admin} {
		n := nodeNamed("new-4")
		n.Labels = map[string]string{v1alpha1.TrustedLabel: "true"}
		w.refused("new node with our label by "+user, w.as(user).Create(ctx, n), "node")
		n = nodeNamed("new-4")
		n.Status.Conditions = []corev1.NodeCondition{{Type: v1alpha1.TrustedCondition, Status: "True"}}
		if err := w.as(user).Create(ctx, n); err == nil {
			t.Errorf("new node with our condition by %s: accepted", user)
		}
	}
}

// TestNodeEdits: of a node, nobody but the controller changes what is ours; everybody goes on with what is theirs.
func TestNodeEdits(t *testing.T) {
	w := newWorld(t)
	const self = "system:node:edited"
	lifecycle := "system:serviceaccount:kube-system:node-controller"
	w.must(w.as(admin).Create(ctx, nodeNamed("edited")))
	mine := w.as(options.Controller())
	get := func() *corev1.Node {
		n := &corev1.Node{}
		w.must(w.as(admin).Get(ctx, client.ObjectKey{Name: "edited"}, n))
		return n
	}
	n := get()
	n.Labels = map[string]string{ourLabel: "true", v1alpha1.TrustedLabel: "false"}
	n.Spec.Taints = []corev1.Taint{{Key: ourTaint, Effect: corev1.TaintEffectNoSchedule}, {Key: ourTaint, Effect: noExecute, TimeAdded: new(metav1.Now())}}
	w.must(mine.Update(ctx, n))
	n.Status.Conditions = []corev1.NodeCondition{{Type: v1alpha1.TrustedCondition, Status: "False"}}
	w.must(mine.Status().Update(ctx, n))

	edits := []struct {
		name   string
		change func(*corev1.Node)
		words  string // "" means accepted of an administrator
	}{
		{"label added", func(n *corev1.Node) { n.Labels[v1alpha1.ClassNodeLabelPrefix+"free"] = "true" }, "node labels of Touchstone"},
		{"label changed", func(n *corev1.Node) { n.Labels[v1alpha1.TrustedLabel] = "true" }, "node labels of Touchstone"},
		{"label removed", func(n *corev1.Node) { delete(n.Labels, ourLabel) }, "node labels of Touchstone"},
		{"all labels removed", func(n *corev1.Node) { n.Labels = nil }, "node labels of Touchstone"},
		{"taint removed", func(n *corev1.Node) { n.Spec.Taints = nil }, "the taint touchstone.dev/untrusted"},
		{"one effect removed", func(n *corev1.Node) { n.Spec.Taints = n.Spec.Taints[:1] }, "the taint touchstone.dev/untrusted"},
		{"effect weakened", func(n *corev1.Node) {
			for i := range n.Spec.Taints {
				if n.Spec.Taints[i].Key == ourTaint {
					n.Spec.Taints[i].Effect = corev1.TaintEffectPreferNoSchedule
				}
			}
			n.Spec.Taints = n.Spec.Taints[:1]
		}, "the taint touchstone.dev/untrusted"},
		{"other label", func(n *corev1.Node) { n.Labels["disk"] = "fast" }, ""},
		{"other taint before ours", func(n *corev1.Node) {
			n.Spec.Taints = append([]corev1.Taint{{Key: "x", Value: n.ResourceVersion, Effect: noExecute, TimeAdded: new(metav1.Now())}},
				slices.DeleteFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == "x" })...)
		}, ""},
		{"cordoned", func(n *corev1.Node) { n.Spec.Unschedulable = true }, ""},
	}
	for _, e := range edits {
		for _, user := range []string{admin, alice, self, lifecycle} {
			n, before := get(), get()
			e.change(n)
			update := w.as(user).Update(ctx, n.DeepCopy())
			patch := w.as(user).Patch(ctx, n.DeepCopy(), client.MergeFrom(before))
			after := get()
			if e.words != "" && (after.Labels[ourLabel] != "true" || after.Labels[v1alpha1.TrustedLabel] != "false" || len(after.Labels) < 2 || update == nil || patch == nil) {
				t.Errorf("%s by %s: update %v, patch %v, labels %v", e.name, user, update, patch, after.Labels)
			}
			if user == admin || user == alice {
				if e.words != "" {
					w.refused(e.name+" by "+user, update, e.words)
					w.refused(e.name+" by "+user+", patch", patch, e.words)
				} else {
					w.accepted(e.name+" by "+user, update)
				}
			}
		}
	}

	for _, user := range []string{admin, alice, self} {
		n := get()
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeReady, Status: "True"})
		w.accepted("own condition in status by "+user, w.as(user).Status().Update(ctx, n))
		n = get()
		n.Status.Conditions[0].Status = "True"
		w.refused("our condition by "+user, w.as(user).Status().Update(ctx, n), "condition touchstone.dev/Trusted")
		n = get()
		n.Labels[ourLabel] = "false"
		_ = w.as(user).Status().Update(ctx, n)
		if got := get().Labels[ourLabel]; got != "true" {
			t.Errorf("label through status by %s: became %q", user, got)
		}
	}

	n = get()
	n.Spec.Taints = nil
	w.accepted("taint removed by the controller", mine.Update(ctx, n))
	for _, user := range []string{admin, alice} {
		n = get()
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: ourTaint, Effect: noExecute})
		w.refused("taint added by "+user, w.as(user).Update(ctx, n), "only the trust-controller changes it")
	}
	n = get()
	n.Spec.Taints = []corev1.Taint{{Key: "node.kubernetes.io/memory-pressure", Effect: corev1.TaintEffectNoSchedule}}
	w.accepted("another taint", w.as(admin).Update(ctx, n))
	w.must(w.as(admin).Delete(ctx, n))
	again := nodeNamed("edited")
	w.must(w.as(self).Create(ctx, again))
	if effects(again) != "NoSchedule" || len(again.Labels) != 0 {
		t.Errorf("a node that was deleted and makes itself again: taints %v, labels %v: want ours, and no labels", again.Spec.Taints, again.Labels)
	}
}

// TestNamespaceClass: who gives a class to a namespace, takes it or changes it must be allowed to use it.
func TestNamespaceClass(t *testing.T) {
	w := newWorld(t)
	ns := func(class string) *corev1.Namespace {
		n := &corev1.Namespace{}
		n.GenerateName = "class-"
		if class != "" {
			n.Labels = map[string]string{v1alpha1.ClassLabel: class}
		}
		return n
	}
	w.refused("created with a class by mallory", w.as(mallory).Create(ctx, ns("regulated")), "may not use trust class regulated")
	w.refused("created with a class that alice may not use", w.as(alice).Create(ctx, ns("free")), "may not use trust class free")
	w.accepted("created without by mallory", w.as(mallory).Create(ctx, ns("")))
	n := ns("regulated")
	w.must(w.as(alice).Create(ctx, n))
	for _, class := range []string{"", "other", "free"} {
		for _, user := range []string{mallory, alice} {
			words := "may not use trust class regulated"
			if user == alice {
				if class == "" {
					continue // may: both classes are hers
				}
				words = "may not use trust class " + class
			}
			m := n.DeepCopy()
			m.Labels = map[string]string{v1alpha1.ClassLabel: class}
			if class == "" {
				m.Labels = nil
			}
			w.refused("changed to "+class+" by "+user, w.as(user).Update(ctx, m.DeepCopy()), words)
			_ = w.as(user).SubResource("finalize").Update(ctx, m.DeepCopy())
			w.must(w.as(admin).Get(ctx, client.ObjectKeyFromObject(n), n))
			if got := n.Labels[v1alpha1.ClassLabel]; got != "regulated" {
				t.Errorf("changed to %q by %s: class is now %q", class, user, got)
			}
		}
	}
	n.Labels["x"] = "y"
	w.accepted("another label by mallory", w.as(mallory).Update(ctx, n))
	delete(n.Labels, v1alpha1.ClassLabel)
	w.accepted("taken by alice", w.as(alice).Update(ctx, n))
}

// TestWritten: verdicts and the table are the controller's.
func TestWritten(t *testing.T) {
	w := newWorld(t)
	mine := w.as(options.Controller())
	nt := &v1alpha1.NodeTrust{}
	nt.Name = "w-written"
	for _, user := range []string{admin, alice, kubelet} {
		if err := w.as(user).Create(ctx, nt.DeepCopy()); err == nil {
			t.Errorf("NodeTrust made by %s: accepted", user)
		}
	}
	w.must(mine.Create(ctx, nt))
	nt.Status.Trusted = true
	for _, user := range []string{admin, alice} {
		w.refused("status by "+user, w.as(user).Status().Update(ctx, nt.DeepCopy()), "only the trust-controller writes nodetrusts")
	}
	w.accepted("status by the controller", mine.Status().Update(ctx, nt))

	it := &v1alpha1.ImageTrust{}
	it.Name = v1alpha1.ImageTrustName("sha256:" + strings.Repeat("a", 64))
	w.refused("ImageTrust made by admin", w.as(admin).Create(ctx, it.DeepCopy()), "only the trust-controller writes imagetrusts")
	w.must(mine.Create(ctx, it))
	it.Status.Pods = 1
	w.refused("status of an ImageTrust by admin", w.as(admin).Status().Update(ctx, it.DeepCopy()), "only the trust-controller writes imagetrusts")
	w.accepted("status of an ImageTrust by the controller", mine.Status().Update(ctx, it))
	w.accepted("ImageTrust deleted by admin", w.as(admin).Delete(ctx, it.DeepCopy()))

	table := &v1alpha1.TrustAdmission{}
	w.must(mine.Get(ctx, client.ObjectKey{Name: v1alpha1.AdmissionName}, table))
	for _, user := range []string{admin, alice} {
		w.refused("table deleted by "+user, w.as(user).Delete(ctx, table.DeepCopy()), "only the trust-controller writes trustadmissions")
		loose := table.DeepCopy()
		r := loose.Classes["regulated"]
		r.Digests = v1alpha1.Any
		loose.Classes["regulated"] = r
		w.refused("table changed by "+user, w.as(user).Update(ctx, loose), "only the trust-controller writes trustadmissions")
	}
}
