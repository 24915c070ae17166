package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	arv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/admission"
	"touchstone.dev/touchstone/internal/kubetest"
)

// enforced is a world with the admission policies, the scheduler and the controllers of Kubernetes that look at taints.
func enforced(t *testing.T) *world {
	t.Helper()
	s := kubetest.StartOwn(t)
	w := worldOn(t, s)
	w.account()
	ctx := context.Background()
	for _, o := range admission.Objects(admission.Options{Schedulers: []string{"admin"}}) {
		if _, hook := o.(*arv1.ValidatingWebhookConfiguration); hook {
			continue // it has tests of its own
		}
		if err := w.Create(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	use := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "use"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "touchstone-workload-controllers"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: "default"}},
	}
	if err := w.Create(ctx, use); err != nil {
		t.Fatal(err)
	}
	s.Run(t, "kube-scheduler")
	s.Run(t, "kube-controller-manager", "--controllers=taint-eviction-controller,daemonset-controller")
	return w
}

// controller is the user that the policies know.
func (w *world) controller() *rest.Config {
	c := rest.CopyConfig(w.config)
	c.Impersonate = rest.ImpersonationConfig{UserName: admission.Options{}.Controller(), Groups: []string{"system:masters", "system:authenticated"}}
	return c
}

// table tells the policies of the classes, and waits until they know them.
func (w *world) table() {
	w.t.Helper()
	c, err := client.New(w.controller(), client.Options{Scheme: w.Scheme()})
	if err != nil {
		w.t.Fatal(err)
	}
	var classes v1alpha1.TrustClassList
	if err := w.List(context.Background(), &classes); err != nil {
		w.t.Fatal(err)
	}
	if err := c.Create(context.Background(), admission.Table(classes.Items)); err != nil {
		w.t.Fatal(err)
	}
	for i := range classes.Items {
		w.eventually("policies know class "+classes.Items[i].Name, func() bool {
			p := waiting("probe", classes.Items[i].Name)
			return w.Create(context.Background(), p, client.DryRunAll) == nil && len(p.Spec.NodeSelector) == 1
		})
	}
}

// waiting is a pod for the scheduler.
func waiting(name, class string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"app": name, v1alpha1.ClassLabel: class}}}
	p.Spec = podTemplate()
	return p
}

func podTemplate() corev1.PodSpec {
	return corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}, AutomountServiceAccountToken: new(false), TerminationGracePeriodSeconds: new(int64(1))}
}

func (w *world) place(name, class string) {
	w.t.Helper()
	if err := w.Create(context.Background(), waiting(name, class)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) placed(name string) bool {
	p := &corev1.Pod{}
	return w.Get(context.Background(), types.NamespacedName{Namespace: "default", Name: name}, p) == nil && p.Spec.NodeName != "" && p.DeletionTimestamp == nil
}

// ready makes a node that takes pods, as its kubelet would.
func (w *world) ready(name string) {
	w.t.Helper()
	n := w.node(name)
	room := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("50")}
	w.report(n, func(n *corev1.Node) {
		n.Status.Capacity, n.Status.Allocatable = room, room
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue})
	})
	n = w.get(name)
	before := n.DeepCopy()
	n.Spec.Taints = nil
	for _, taint := range before.Spec.Taints {
		if taint.Key != corev1.TaintNodeNotReady {
			n.Spec.Taints = append(n.Spec.Taints, taint)
		}
	}
	if err := w.Patch(context.Background(), n, client.MergeFrom(before)); err != nil {
		w.t.Fatal(err)
	}
}

// value is the value of the NoExecute taint of a node; "none" without it.
func (w *world) value(node string) string {
	for _, taint := range w.get(node).Spec.Taints {
		if taint.Key == v1alpha1.UntrustedTaint && taint.Effect == corev1.TaintEffectNoExecute {
			return taint.Value
		}
	}
	return "none"
}

// TestSomeLevels: a node whose level 5 fails keeps the pods of a class that leaves level 5 out, and takes new ones; those of a class of all levels leave.
// When a level of the class fails, its pods leave within the grace, though the controller is dead by then: Kubernetes removes them for the taint.
func TestSomeLevels(t *testing.T) {
	const grace = 4 * time.Second
	w := enforced(t)
	lenient := func(s *v1alpha1.TrustClassSpec) {
		s.PodSecurity, s.Images.Digests, s.Network.Isolation = "privileged", v1alpha1.Any, v1alpha1.None
	}
	w.class("all", grace, lenient)
	w.class("some", grace, lenient, func(s *v1alpha1.TrustClassSpec) { s.Levels = []int32{1, 2, 3, 4} })
	w.table()
	w.ready("w1")
	stop := w.run(func(o *Options) { o.Config = w.controller() })
	w.isTrusted("w1", false)
	w.aias.say(w.aias.trusted("w1"))
	w.isTrusted("w1", true)
	w.place("full", "all")
	w.place("part", "some")
	w.daemons("daemon", "some")
	for _, name := range []string{"full", "part"} {
		w.eventually("pod "+name+" runs on a trusted node", func() bool { return w.placed(name) })
	}
	w.eventually("the DaemonSet has its pod", func() bool { return w.daemon() != "" })
	daemon := w.daemon()

	w.aias.say(w.aias.trusted("w1", fallen(5, "miner")))
	w.isTrusted("w1", false)
	if got := w.value("w1"); got != "5" {
		t.Errorf("value of the taint of a node whose level 5 fails: got %q, want 5", got)
	}
	w.eventually("the pod of all levels leaves", func() bool { return !w.placed("full") })
	w.place("late", "some")
	w.place("too-late", "all")
	w.eventually("a new pod of the class of some levels runs on the fallen node", func() bool { return w.placed("late") })
	w.never("a pod of the class of some levels leaves, or one of all levels comes", 2*grace, func() bool {
		return !w.placed("part") || !w.placed("late") || w.daemon() != daemon || w.placed("too-late")
	})

	// Each eviction is refused, so that what removes the pods is neither the controller's first step nor, since it is dead then, its last.
	for _, name := range []string{"part", "late"} {
		w.budget(name)
		w.running(name)
	}
	w.aias.say(w.aias.trusted("w1", fallen(5, "miner"), fallen(4, "foreign driver")))
	start := time.Now()
	w.eventually("the taint says so", func() bool { return w.value("w1") == "4-5" })
	stop()
	if took := time.Since(start); took >= grace {
		t.Fatalf("the controller was alive for %s: this test shows nothing", took)
	}
	if !w.placed("part") || !w.placed("late") {
		t.Fatal("the pods left at once, though a budget guards them")
	}
	for _, name := range []string{"part", "late"} {
		w.eventually("pod "+name+" leaves by itself", func() bool { return !w.placed(name) })
	}
	took := time.Since(start)
	t.Logf("with a dead controller the pods left %s after the fall, the grace is %s", took.Round(time.Millisecond), grace)
	if took < grace-time.Second {
		t.Errorf("they left after %s, before their grace of %s", took, grace)
	}
}

// running makes a pod one that a budget guards.
func (w *world) running(name string) {
	w.t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	if err := w.Status().Patch(context.Background(), p, client.RawPatch(types.MergePatchType, []byte(`{"status":{"phase":"Running"}}`))); err != nil {
		w.t.Fatal(err)
	}
}

// daemons makes a DaemonSet of a class.
func (w *world) daemons(name, class string) {
	w.t.Helper()
	labels := map[string]string{"daemon": name, v1alpha1.ClassLabel: class}
	d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	d.Spec = appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"daemon": name}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podTemplate()},
	}
	if err := w.Create(context.Background(), d); err != nil {
		w.t.Fatal(err)
	}
}

// daemon is the name of the DaemonSet's pod that has a node and is not on its way out.
func (w *world) daemon() string {
	var pods corev1.PodList
	if err := w.List(context.Background(), &pods, client.HasLabels{"daemon"}); err != nil {
		w.t.Fatal(err)
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Spec.NodeName != "" && p.DeletionTimestamp == nil && strings.HasPrefix(p.Name, "daemon-") {
			return p.Name
		}
	}
	return ""
}
