package cluster

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/internal/cluster/isecl"
	"touchstone.dev/touchstone/internal/kubetest"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

// isecl installs what the chart has for controller.iseclCompat, and returns the controller's own rights.
func (w *world) isecl(s *kubetest.Server) *rest.Config {
	w.t.Helper()
	cmd := exec.Command(filepath.Join(kubetest.Programs(w.t, "helm"), "helm"), "template", "touchstone", "../../deploy/helm/touchstone", "--namespace", "touchstone",
		"--set", "controller.iseclCompat=true,controller.approveKubelets=true", "--show-only", "templates/isecl.yaml", "--show-only", "templates/controller.yaml")
	cmd.Env = []string{"HOME=" + w.t.TempDir(), "PATH=/nonexistent"}
	out, err := cmd.Output() // it tells of the symbolic link on stderr
	if err != nil {
		w.t.Fatalf("helm: %v: %s", err, out)
	}
	ns := &corev1.Namespace{}
	ns.Name = "touchstone"
	if err := w.Create(context.Background(), ns); err != nil {
		w.t.Fatal(err)
	}
	for _, document := range strings.Split(strings.TrimPrefix(string(out), "---\n"), "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &u.Object); err != nil {
			w.t.Fatal(err)
		}
		if k := u.GetKind(); k == "" || k == "Deployment" || k == "PodDisruptionBudget" || k == "NetworkPolicy" {
			continue
		}
		if err := w.Create(context.Background(), u); err != nil {
			w.t.Fatalf("%s %s: %v", u.GetKind(), u.GetName(), err)
		}
	}
	w.eventually("HostAttributesCrd is served", func() bool {
		_, err := w.object()
		return !meta.IsNoMatchError(err)
	})
	c := rest.CopyConfig(w.config)
	c.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:touchstone:trust-controller", Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	return c
}

// object reads custom-isecl: its hosts by name.
func (w *world) object() (map[string]isecl.Host, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(isecl.Kind)
	if err := w.Get(context.Background(), types.NamespacedName{Namespace: "default", Name: "custom-isecl"}, u); err != nil {
		return nil, err
	}
	hosts := map[string]isecl.Host{}
	list, _, err := unstructured.NestedSlice(u.Object, "spec", "hostList")
	for _, entry := range list {
		var h isecl.Host
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(entry.(map[string]any), &h); err != nil {
			return nil, err
		}
		hosts[h.Name] = h
	}
	return hosts, err
}

// roomy lets the scheduler use a node: no controller does so here.
func (w *world) roomy(name string) {
	w.t.Helper()
	w.report(w.get(name), func(n *corev1.Node) {
		n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("100")}
		n.Status.Capacity = n.Status.Allocatable
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue})
	})
	n := w.get(name)
	before := n.DeepCopy()
	n.Spec.Taints = nil
	if err := w.Patch(context.Background(), n, client.MergeFrom(before)); err != nil {
		w.t.Fatal(err)
	}
}

// demands is a pod as isecl's documentation writes them.
func demands(terms map[string]string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		var m []corev1.NodeSelectorRequirement
		for k, v := range terms {
			m = append(m, corev1.NodeSelectorRequirement{Key: k, Operator: corev1.NodeSelectorOpIn, Values: []string{v}})
		}
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: m}},
		}}}
	}
}

// TestISecL: with --isecl-compat, and no more rights than the chart gives, labels, annotation, taint and HostAttributesCrd are as isecl's users know them; pods with isecl's
// affinity go where those labels say, by the real scheduler; spoofed labels are put right; and all of it goes when the option does.
func TestISecL(t *testing.T) {
	s := kubetest.StartOwn(t)
	w := worldOn(t, s)
	w.account()
	rights := w.isecl(s)
	stop := w.run(func(o *Options) { o.ISecL, o.Config = true, rights })
	s.Run(t, "kube-scheduler")
	for _, name := range []string{"w1", "w2"} {
		w.node(name)
		w.roomy(name)
	}
	w.aias.say(w.aias.trusted("w1", func(r *result.Result) { r.Tags = map[string]string{"Country": "DE"} }))
	w.isTrusted("w1", true)
	w.isTrusted("w2", false)
	n := w.get("w1")
	for k, want := range map[string]string{"isecl.trusted": "true", "isecl.TAG_Country": "DE", "isecl.FEATURE_TPM": "true", "isecl.FEATURE_SecureBootEnabled": "true"} {
		if got := n.Labels[k]; got != want {
			t.Errorf("label %s: got %q, want %q", k, got, want)
		}
	}
	if end, err := time.Parse("2006-01-02T15.04.05Z", n.Labels["HvsTrustExpiry"]); err != nil || time.Until(end) <= 0 {
		t.Errorf("label HvsTrustExpiry: got %q, want a time to come", n.Labels["HvsTrustExpiry"])
	}
	if got := n.Annotations["HvsSignedTrustReport"]; strings.Count(got, ".") != 2 {
		t.Errorf("annotation HvsSignedTrustReport: got %q, want a signed result", got)
	}
	if n := w.get("w2"); n.Labels["isecl.trusted"] != "false" || !strings.Contains(taints(n), "untrusted:NoSchedule untrusted:NoSchedule") {
		t.Errorf("untrusted node: got labels %v, taints %q", n.Labels, taints(n))
	}
	w.eventually("both nodes are in custom-isecl", func() bool {
		hosts, err := w.object()
		w1, w2 := hosts["w1"], hosts["w2"]
		return err == nil && len(hosts) == 2 && w1.Trusted && w1.Tags["TAG_Country"] == "DE" && w1.Features["FEATURE_UEFI"] == "true" && w1.Report != "" && w1.ValidTo != "" && w1.Updated != "" &&
			!w2.Trusted && len(w2.Features) == 0 && w2.Report == ""
	})
	w.pod("lands", "", "", demands(map[string]string{"isecl.trusted": "true", "isecl.TAG_Country": "DE"}))
	w.pod("waits", "", "", demands(map[string]string{"isecl.trusted": "true", "isecl.TAG_Country": "FR"}))
	bound := func(name string) string {
		p := &corev1.Pod{}
		if err := w.Get(context.Background(), types.NamespacedName{Namespace: "default", Name: name}, p); err != nil {
			t.Fatal(err)
		}
		return p.Spec.NodeName
	}
	w.eventually("a pod with isecl's affinity lands on the node with the labels", func() bool { return bound("lands") == "w1" })
	w.eventually("one that asks for another tag is refused by the scheduler", func() bool { return w.unschedulable("waits") })
	w.aias.say(w.aias.trusted("w1", fallen(4, "miner")))
	w.eventually("custom-isecl says that w1 fell", func() bool {
		hosts, err := w.object()
		return err == nil && !hosts["w1"].Trusted
	})
	w.isTrusted("w1", false)
	w.pod("late", "", "", demands(map[string]string{"isecl.trusted": "true"}))
	w.eventually("no pod lands on a fallen node", func() bool { return w.unschedulable("late") })
	w.edit(n, func() { n.Labels["isecl.trusted"], n.Labels["isecl.TAG_Country"] = "true", "FR" }, client.FieldOwner("kubelet"))
	w.eventually("spoofed labels are put right", func() bool {
		n := w.get("w1")
		return n.Labels["isecl.trusted"] == "false" && n.Labels["isecl.TAG_Country"] == ""
	})
	w.aias.send(protocol.NodeResult{Node: "w2", Removed: true})
	if err := w.Delete(context.Background(), w.get("w2")); err != nil {
		t.Fatal(err)
	}
	w.eventually("a node that is gone is not in custom-isecl", func() bool {
		hosts, err := w.object()
		return err == nil && len(hosts) == 1
	})

	stop()
	n = w.get("w1")
	n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "untrusted", Value: "theirs", Effect: corev1.TaintEffectPreferNoSchedule})
	if err := w.Update(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	w.run(func(o *Options) { o.Config = rights })
	w.eventually("what was written goes with the option", func() bool {
		n := w.get("w1")
		for k := range n.Labels {
			if isecl.Ours(k) {
				return false
			}
		}
		for k := range n.Annotations {
			if isecl.Ours(k) {
				return false
			}
		}
		return taints(n) == both+" untrusted:PreferNoSchedule" || taints(n) == "untrusted:PreferNoSchedule "+both
	})
}

// unschedulable says whether the scheduler has found no node for a pod.
func (w *world) unschedulable(name string) bool {
	w.t.Helper()
	p := &corev1.Pod{}
	if err := w.Get(context.Background(), types.NamespacedName{Namespace: "default", Name: name}, p); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return p.Spec.NodeName == "" && c.Reason == corev1.PodReasonUnschedulable
		}
	}
	return false
}
