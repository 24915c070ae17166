//go:build cluster

package cluster

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

const maxAge = 60 * time.Second // of results: attestation.maxAge in policySpec

// TestS4 takes parts away. Trust is never granted wrongly, and comes back by itself.
func TestS4(t *testing.T) {
	s := installed(t)
	ctx, w := t.Context(), s.Workers[1]
	t.Run("controllers killed", func(t *testing.T) {
		for _, p := range s.pods(t, "trust-controller") {
			must(t, s.Client.Delete(ctx, p, client.GracePeriodSeconds(0)))
		}
		began := time.Now()
		must(t, w.Execute("/var/tmp/a", []byte("run while no controller is there")))
		_, err := s.Until(ctx, w.Name, "fallen", (*Trust).Fallen)
		must(t, err)
		s.logf("S4 all controllers killed: a fall in that moment is in the cluster %.2f s later", time.Since(began).Seconds())
		s.recovers(t, w)
	})
	t.Run("API servers killed", func(t *testing.T) { s.serversKilled(t, w) })
	t.Run("a control-plane member lost", func(t *testing.T) { s.memberLost(t, w) })
	t.Run("AIAS away for longer than results live", func(t *testing.T) {
		s.scaleAIAS(t, 0)
		began := time.Now()
		for _, w := range s.Workers[:2] {
			err := until(ctx, w.Name+" falls", maxAge+15*time.Second, nil, func(ctx context.Context) error {
				tr, err := s.Trust(ctx, w.Name)
				if err == nil && !tr.Fallen() {
					err = errors.New("it is still trusted")
				}
				return err
			})
			must(t, err)
		}
		s.logf("S4 AIAS away: no worker is trusted any more after %.1f s", time.Since(began).Seconds())
		s.scaleAIAS(t, 1)
		began = time.Now()
		must(t, s.PodsReady(ctx, Namespace, "aias-0"))
		for _, w := range s.Workers[:2] {
			_, err := s.Until(ctx, w.Name, "trusted", (*Trust).Trusted)
			must(t, err)
		}
		s.logf("S4 AIAS back: all workers are trusted again after %.1f s", time.Since(began).Seconds())
	})
	t.Run("clock of AIAS", s.clocks)
	t.Run("node deleted, spoofed and made again", func(t *testing.T) { s.madeAgain(t, w) })
}

func (s *world) serversKilled(t *testing.T, w *Worker) {
	ctx := t.Context()
	for _, m := range s.Members {
		m.Kill(APIServer)
	}
	must(t, w.Execute("/var/tmp/b", []byte("run while there is no API server")))
	time.Sleep(2 * time.Second)
	began := time.Now()
	for _, m := range s.Members {
		must(t, m.Start(APIServer))
	}
	for _, m := range s.Members {
		must(t, m.Ready(ctx))
	}
	ready := time.Since(began)
	_, err := s.Until(ctx, w.Name, "fallen", (*Trust).Fallen)
	must(t, err)
	s.logf("S4 API servers killed: ready %.2f s after their start, the fall meanwhile is in the cluster after %.2f s", ready.Seconds(), time.Since(began).Seconds())
	s.recovers(t, w)
}

// memberLost: the others carry on, also with what the member led, and a fall is in the cluster as ever.
func (s *world) memberLost(t *testing.T, w *Worker) {
	if len(s.Members) < 3 {
		s.logf("S4 a member lost: there is one only (E2E_MEMBERS)")
		return
	}
	ctx, m := t.Context(), s.Members[0]
	m.Stop()
	began := time.Now()
	must(t, w.Execute("/var/tmp/c", []byte("run while a member is away")))
	_, err := s.Until(ctx, w.Name, "fallen", (*Trust).Fallen)
	must(t, err)
	s.logf("S4 a control-plane member lost: a fall in that moment is in the cluster %.2f s later", time.Since(began).Seconds())
	s.recovers(t, w)
	must(t, m.Run(ctx))
}

func (s *world) pods(t *testing.T, app string) (out []client.Object) {
	t.Helper()
	var list core.PodList
	must(t, s.Client.List(t.Context(), &list, client.InNamespace(Namespace), client.MatchingLabels{"app.kubernetes.io/name": app}))
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	if len(out) == 0 {
		t.Fatalf("there are no pods of %s", app)
	}
	return out
}

// recovers boots a fallen worker as approved.
func (s *world) recovers(t *testing.T, w *Worker) {
	t.Helper()
	must(t, w.Boot(t.Context(), captured(t, s.Cluster, "good")))
	_, err := s.Until(t.Context(), w.Name, "trusted", (*Trust).Trusted)
	must(t, err)
}

func (s *world) scaleAIAS(t *testing.T, replicas int32) {
	t.Helper()
	ctx := t.Context()
	set := &apps.StatefulSet{ObjectMeta: objectMeta(Namespace, "aias")}
	must(t, s.Client.Patch(ctx, set, client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas))))
	must(t, until(ctx, "AIAS scaled", podTime, nil, func(ctx context.Context) error {
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(set), set); err != nil {
			return err
		}
		if set.Status.Replicas != replicas {
			return fmt.Errorf("%d pods, want %d", set.Status.Replicas, replicas)
		}
		return nil
	}))
}

// madeAgain: whoever has the kubelet's credentials deletes the Node object and makes it anew, as he would like it.
func (s *world) madeAgain(t *testing.T, w *Worker) {
	ctx := t.Context()
	kubelet, _ := s.kubelet(t, w)
	must(t, w.StopKubelet(ctx))
	must(t, s.Client.Delete(ctx, &core.Node{ObjectMeta: objectMeta("", w.Name)}))
	spoofed := &core.Node{ObjectMeta: meta.ObjectMeta{Name: w.Name, Labels: map[string]string{v1alpha1.TrustedLabel: "true"}}}
	s.refused(t, "a Node made with our label by the kubelet", kubelet.Create(ctx, spoofed), "not allowed to set the following labels")
	spoofed.Labels = map[string]string{v1alpha1.TrustedLabel: "true", v1alpha1.ClassNodeLabelPrefix + "regulated": "true"}
	s.refused(t, "a Node made with our label by an administrator", s.Client.Create(ctx, spoofed), "only the trust-controller")
	watcher, err := s.Set.CoreV1().Nodes().Watch(ctx, meta.ListOptions{FieldSelector: "metadata.name=" + w.Name, ResourceVersion: s.newest(t)})
	must(t, err)
	defer watcher.Stop()
	began := time.Now()
	must(t, w.StartKubelet(ctx))
	for e := range watcher.ResultChan() {
		if e.Type != watch.Added {
			continue
		}
		node := e.Object.(*core.Node)
		tainted := false
		for _, taint := range node.Spec.Taints {
			tainted = tainted || taint.Key == v1alpha1.UntrustedTaint
		}
		if !tainted || node.Labels[v1alpha1.TrustedLabel] == "true" {
			t.Errorf("new Node: got taints %v, labels %v, want it untrusted from its first moment", node.Spec.Taints, node.Labels)
		}
		break
	}
	must(t, s.Joined(ctx, w))
	_, err = s.Until(ctx, w.Name, "trusted", (*Trust).Trusted)
	must(t, err)
	s.logf("S4 node made again: untrusted from its first moment, trusted by a new result after %.2f s", time.Since(began).Seconds())
}

// newest returns a resource version of now.
func (s *world) newest(t *testing.T) string {
	t.Helper()
	var list core.NodeList
	must(t, s.Client.List(t.Context(), &list))
	return list.ResourceVersion
}
