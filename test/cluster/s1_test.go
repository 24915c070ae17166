//go:build cluster

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

const (
	taintTime = time.Second            // from what the agent saw to the taint
	lookTime  = 300 * time.Millisecond // until the agent sees it: watch.interval and watch.debounce of its defaults
	graceTime = 30 * time.Second       // of the class regulated
)

// TestS1 follows pods of class regulated: where they land, what happens when their worker falls, and every way around it.
func TestS1(t *testing.T) {
	s := installed(t)
	ctx, n := t.Context(), s.newTenant(t, "payments", "regulated")
	t.Run("no suitable node", func(t *testing.T) { s.staysPending(t) })
	must(t, n.alice.Create(ctx, n.deployment("ledger", 1)))
	began := time.Now()
	var home string
	must(t, until(ctx, "ledger runs", podTime, nil, func(ctx context.Context) error {
		running, err := s.running(ctx, n.name, "ledger")
		for home = range running {
			return err
		}
		return errors.Join(err, errors.New("no pod runs"))
	}))
	s.logf("S1 a pod of class regulated runs on %s after %.2f s", home, time.Since(began).Seconds())
	fallen := s.worker(home)
	t.Run("the worker falls", func(t *testing.T) { n.falls(t, fallen) })
	t.Run("ways around", func(t *testing.T) { n.waysAround(t, fallen) })
	t.Run("trust returns", func(t *testing.T) {
		must(t, fallen.Boot(ctx, captured(t, s.Cluster, "good")))
		began := time.Now()
		_, err := s.Until(ctx, fallen.Name, "trusted", (*Trust).Trusted)
		must(t, err)
		s.logf("S1 %s is trusted again %.2f s after its boot", fallen.Name, time.Since(began).Seconds())
	})
}

func (s *world) worker(name string) *Worker {
	for _, w := range s.Workers {
		if w.Name == name {
			return w
		}
	}
	return nil
}

// staysPending: a class that no node meets keeps its pods waiting, and says why.
func (s *world) staysPending(t *testing.T) {
	ctx := t.Context()
	class := &v1alpha1.TrustClass{ObjectMeta: objectMeta("", "moon"), Spec: v1alpha1.TrustClassSpec{
		SoftwareTPM: v1alpha1.Allow, Tags: map[string]v1alpha1.TagValues{"site": {"moon"}},
	}}
	must(t, s.Client.Create(ctx, class))
	t.Cleanup(func() { _ = s.Client.Delete(context.Background(), class) })
	n := s.newTenant(t, "lunar", "moon")
	must(t, until(ctx, "a pod is accepted", podTime, nil, func(ctx context.Context) error { return n.alice.Create(ctx, n.pod("rover")) }))
	began := time.Now()
	text, err := s.event(ctx, n.name, "rover", "tag site is not proven, want moon", "w1", "w2")
	must(t, err)
	s.logf("S1 Pending, explained after %.2f s: %s", time.Since(began).Seconds(), text)
	var pod core.Pod
	must(t, s.Client.Get(ctx, client.ObjectKey{Namespace: n.name, Name: "rover"}, &pod))
	if pod.Status.Phase != core.PodPending || pod.Spec.NodeName != "" {
		t.Errorf("the pod: got %s on %q, want it Pending on no node", pod.Status.Phase, pod.Spec.NodeName)
	}
}

// falls: the worker runs what nobody knows. The clock starts when the count of its IMA list changes.
func (n *tenant) falls(t *testing.T, w *Worker) {
	ctx := t.Context()
	watcher, err := n.Set.CoreV1().Nodes().Watch(ctx, meta.ListOptions{FieldSelector: "metadata.name=" + w.Name})
	must(t, err)
	defer watcher.Stop()
	must(t, w.Execute("/var/tmp/.x/xmrig", []byte("it mines for somebody else")))
	began := time.Now()
	must(t, tainted(watcher))
	took := time.Since(began)
	n.logf("S1 fall of %s: tainted %.3f s after the count of its IMA list changed", w.Name, took.Seconds())
	if took > taintTime+lookTime {
		t.Errorf("taint after %v, want at most %v", took, taintTime+lookTime)
	}
	must(t, until(ctx, "sensitive pods gone", graceTime+5*time.Second, nil, func(ctx context.Context) error {
		left, err := n.on(ctx, w.Name)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("still there: %q", left)
		}
		return err
	}))
	gone := time.Since(began)
	n.logf("S1 sensitive pods are gone from %s %.2f s after the change", w.Name, gone.Seconds())
	if gone > graceTime {
		t.Errorf("pods gone after %v, want at most the grace %v", gone, graceTime)
	}
	must(t, until(ctx, "ledger elsewhere", podTime, nil, func(ctx context.Context) error {
		running, err := n.running(ctx, n.name, "ledger")
		if err == nil && (len(running) != 1 || running[w.Name] != nil) {
			err = fmt.Errorf("running: %v", running)
		}
		return err
	}))
	n.logf("S1 its replacement runs elsewhere %.2f s after the change", time.Since(began).Seconds())
	if tr, err := n.Trust(ctx, w.Name); err != nil || !tr.Fallen() || !subset([]int{5}, tr.Red()) {
		t.Errorf("%s: got red levels %v, %v, want it fallen on level 5", w.Name, tr.Red(), err)
	}
}

// tainted waits until a node that is watched has our taint.
func tainted(w watch.Interface) error {
	limit := time.After(trustTime)
	for {
		select {
		case e, ok := <-w.ResultChan():
			node, isNode := e.Object.(*core.Node)
			if !ok || !isNode {
				return errors.New("the watch of the node ended")
			}
			for _, taint := range node.Spec.Taints {
				if taint.Key == v1alpha1.UntrustedTaint && taint.Effect == core.TaintEffectNoExecute {
					return nil
				}
			}
		case <-limit:
			return fmt.Errorf("no taint within %v", trustTime)
		}
	}
}

// waysAround tries to get a pod of the class onto a worker that has fallen.
func (n *tenant) waysAround(t *testing.T, w *Worker) {
	ctx := t.Context()
	all := core.TolerationOpExists
	n.refused(t, "spec.nodeName", n.alice.Create(ctx, n.pod("direct", func(p *core.Pod) { p.Spec.NodeName = w.Name })), "remove spec.nodeName")
	n.refused(t, "a toleration of everything", n.alice.Create(ctx, n.pod("tolerant", func(p *core.Pod) {
		p.Spec.Tolerations = []core.Toleration{{Operator: all}}
	})), "must not tolerate")
	waiting := n.pod("waiting", func(p *core.Pod) { p.Spec.SchedulerName = "nobody" })
	must(t, n.alice.Create(ctx, waiting))
	binding := &core.Binding{ObjectMeta: objectMeta(n.name, "waiting"), Target: core.ObjectReference{Kind: "Node", Name: w.Name}}
	n.refused(t, "a binding by a tenant", n.alice.SubResource("binding").Create(ctx, waiting, binding.DeepCopy()), "bind")
	n.refused(t, "a binding by an administrator", n.Client.SubResource("binding").Create(ctx, waiting, binding.DeepCopy()), "is not one of the")
	n.refused(t, "a node selector taken away", n.alice.Update(ctx, n.changed(t, "waiting", func(p *core.Pod) { p.Spec.NodeSelector = nil })), "may not change fields")
	n.refused(t, "the class taken away", n.alice.Update(ctx, n.changed(t, "waiting", func(p *core.Pod) { delete(p.Labels, v1alpha1.ClassLabel) })), "decided when it is made")
	n.refused(t, "a toleration added later", n.alice.Update(ctx, n.changed(t, "waiting", func(p *core.Pod) {
		p.Spec.Tolerations = append(p.Spec.Tolerations, core.Toleration{Key: v1alpha1.UntrustedTaint, Operator: all})
	})), "must not tolerate")
	n.ephemeral(t)
	n.daemonSet(t, w)
	n.staticPod(t, w)
	n.kubeletCredentials(t, w)
	n.refused(t, "the label by an administrator", n.Client.Patch(ctx, &core.Node{ObjectMeta: objectMeta("", w.Name)}, label(v1alpha1.TrustedLabel, "true")), "only the trust-controller")
	n.refused(t, "a class label by an administrator", n.Client.Patch(ctx, &core.Node{ObjectMeta: objectMeta("", w.Name)}, label(v1alpha1.ClassNodeLabelPrefix+"regulated", "true")), "only the trust-controller")
	n.refused(t, "the taint taken off by an administrator", n.Client.Patch(ctx, &core.Node{ObjectMeta: objectMeta("", w.Name)},
		client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"taints":[]}}`))), v1alpha1.UntrustedTaint)
	n.refused(t, "a NodeTrust by an administrator", n.Client.Status().Patch(ctx, &v1alpha1.NodeTrust{ObjectMeta: objectMeta("", w.Name)},
		client.RawPatch("application/merge-patch+json", []byte(`{"status":{"trusted":true}}`))), "only the trust-controller")
	if left, err := n.on(ctx, w.Name); err != nil || len(left) > 0 {
		t.Errorf("pods with a class on %s after all attempts: got %q, %v, want none", w.Name, left, err)
	}
}

// changed reads a pod and changes it.
func (n *tenant) changed(t *testing.T, name string, change func(*core.Pod)) *core.Pod {
	t.Helper()
	p := &core.Pod{}
	must(t, n.Client.Get(t.Context(), client.ObjectKey{Namespace: n.name, Name: name}, p))
	change(p)
	return p
}

func label(name, value string) client.Patch {
	return client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, name, value))
}

// ephemeral tries to add a container to a pod that runs.
func (n *tenant) ephemeral(t *testing.T) {
	var list core.PodList
	must(t, n.Client.List(t.Context(), &list, client.InNamespace(n.name), client.MatchingLabels{"app": "ledger"}))
	for i := range list.Items {
		p := &list.Items[i]
		p.Spec.EphemeralContainers = []core.EphemeralContainer{{EphemeralContainerCommon: core.EphemeralContainerCommon{
			Name: "debug", Image: n.Busybox, SecurityContext: p.Spec.Containers[0].SecurityContext,
		}}}
		n.refused(t, "an ephemeral container", n.Client.SubResource("ephemeralcontainers").Update(t.Context(), p), "allows no ephemeral")
		return
	}
	t.Error("no pod runs that could be debugged")
}

// daemonSet: the pods of a DaemonSet go to suitable nodes only.
func (n *tenant) daemonSet(t *testing.T, w *Worker) {
	ctx := t.Context()
	d := n.deployment("everywhere", 1)
	set := &apps.DaemonSet{ObjectMeta: d.ObjectMeta, Spec: apps.DaemonSetSpec{Selector: d.Spec.Selector, Template: d.Spec.Template}}
	must(t, n.alice.Create(ctx, set))
	must(t, until(ctx, "DaemonSet", podTime, nil, func(ctx context.Context) error {
		running, err := n.running(ctx, n.name, "everywhere")
		if err == nil && len(running) == 0 {
			err = errors.New("none of its pods runs")
		}
		if err == nil && running[w.Name] != nil {
			t.Errorf("a DaemonSet's pod runs on %s", w.Name)
		}
		return err
	}))
	must(t, n.Client.Delete(ctx, set))
}

// staticPod puts a pod of the class into the kubelet's folder: what the kubelet shows of it is refused.
func (n *tenant) staticPod(t *testing.T, w *Worker) {
	ctx := t.Context()
	file := w.kubeletFile("manifests", "static.yaml")
	text := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: static, namespace: %s, labels: {%s: regulated}}\nspec:\n  terminationGracePeriodSeconds: 1\n"+
		"  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}\n  containers:\n"+
		"    - {name: c, image: %q, imagePullPolicy: Never, command: [sleep, \"1000\"], securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}\n", n.name, v1alpha1.ClassLabel, n.Busybox)
	must(t, os.WriteFile(file, []byte(text), 0o600))
	defer os.Remove(file)
	must(t, until(ctx, "the kubelet is refused", podTime, nil, func(context.Context) error {
		log, err := os.ReadFile(filepath.Join(n.LogFolder(), w.Name+"-kubelet.log"))
		if err == nil && !strings.Contains(string(log), "static pods cannot have a trust class") {
			err = errors.New("its log does not tell")
		}
		return err
	}))
	say("          refused: a static pod with a class")
}

// kubeletCredentials does what somebody with root on the worker can do with the kubelet's own certificate.
func (n *tenant) kubeletCredentials(t *testing.T, w *Worker) {
	ctx := t.Context()
	c, _ := n.kubelet(t, w)
	node := &core.Node{ObjectMeta: objectMeta("", w.Name)}
	n.refused(t, "the label by the kubelet", c.Patch(ctx, node.DeepCopy(), label(v1alpha1.TrustedLabel, "true")), "is not allowed to modify labels")
	n.refused(t, "the taint taken off by the kubelet", c.Patch(ctx, node.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"taints":[]}}`))), "not allowed to modify taints")
	n.refused(t, "our condition by the kubelet", c.Status().Patch(ctx, node.DeepCopy(), client.RawPatch("application/strategic-merge-patch+json",
		[]byte(`{"status":{"conditions":[{"type":"`+v1alpha1.TrustedCondition+`","status":"True"}]}}`))), "by the trust-controller only")
	n.refused(t, "a NodeTrust by the kubelet", c.Status().Patch(ctx, &v1alpha1.NodeTrust{ObjectMeta: objectMeta("", w.Name)},
		client.RawPatch("application/merge-patch+json", []byte(`{"status":{"trusted":true}}`))), "forbidden")
}

// kubelet returns clients with the credentials of a worker's kubelet.
func (s *world) kubelet(t *testing.T, w *Worker) (client.Client, kubernetes.Interface) {
	t.Helper()
	config := &rest.Config{Host: s.Server(), TLSClientConfig: rest.TLSClientConfig{CAData: s.REST.CAData}}
	file, err := w.kubeletCertificate()
	must(t, err)
	pem, err := os.ReadFile(file)
	must(t, err)
	config.CertData, config.KeyData = pem, pem
	c, err := NewClient(config)
	must(t, err)
	set, err := kubernetes.NewForConfig(config)
	must(t, err)
	return c, set
}
