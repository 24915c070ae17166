//go:build cluster

package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/tpm/device"
)

// TestS2 follows asset tags: from the object of an administrator into the TPM of the worker, from there to the placement of pods, and back.
func TestS2(t *testing.T) {
	s := installed(t)
	ctx := t.Context()
	w1, w2 := s.Workers[0], s.Workers[1]
	class := &v1alpha1.TrustClass{ObjectMeta: objectMeta("", "munich"), Spec: v1alpha1.TrustClassSpec{
		SoftwareTPM: v1alpha1.Allow, Tags: map[string]v1alpha1.TagValues{"site": {"munich"}},
	}}
	must(t, s.Client.Create(ctx, class))
	t.Cleanup(func() { _ = s.Client.Delete(context.Background(), class) })
	t.Cleanup(func() {
		for _, w := range []*Worker{w1, w2} {
			_ = s.Client.Delete(context.Background(), &v1alpha1.AssetTag{ObjectMeta: objectMeta("", w.Name)})
		}
	})
	s.tag(t, w1, "berlin")
	s.tag(t, w2, "munich")
	n := s.newTenant(t, "brewery", "munich")
	must(t, until(ctx, "the deployment is accepted", podTime, nil, func(ctx context.Context) error { return n.alice.Create(ctx, n.deployment("vat", 3)) }))
	must(t, n.allOn(ctx, "vat", w2.Name, 3))
	s.logf("S2 three pods that want site=munich run on %s only", w2.Name)
	t.Run("a changed tag evicts", func(t *testing.T) {
		s.tag(t, w2, "berlin")
		began := time.Now()
		s.leaves(t, w2.Name)
		s.logf("S2 pods left %.2f s after the cluster showed the changed tag", time.Since(began).Seconds())
		s.tag(t, w2, "munich")
		must(t, n.allOn(ctx, "vat", w2.Name, 3))
	})
	t.Run("a revoked tag evicts", func(t *testing.T) {
		began := time.Now()
		must(t, s.Client.Delete(ctx, &v1alpha1.AssetTag{ObjectMeta: objectMeta("", w2.Name)}))
		s.leaves(t, w2.Name)
		s.logf("S2 pods left %.2f s after the tag was revoked", time.Since(began).Seconds())
	})
	t.Run("a copied tag is refused", func(t *testing.T) {
		s.tag(t, w2, "munich")
		must(t, n.allOn(ctx, "vat", w2.Name, 3))
		began := time.Now()
		must(t, copyTag(w2, w1))
		tr, err := s.Until(ctx, w1.Name, "fallen for a copied tag", func(tr *Trust) bool {
			return tr.Fallen() && strings.Contains(tr.Status.Reason, "issued for another worker")
		})
		must(t, err)
		s.logf("S2 %s fell %.2f s after somebody wrote the tag of %s into its TPM: %s", w1.Name, time.Since(began).Seconds(), w2.Name, tr.Status.Reason)
		if tr.Status.Tags["site"] == "munich" {
			t.Errorf("%s shows the copied tag", w1.Name)
		}
		_, err = s.Until(ctx, w1.Name, "trusted with its own tag", func(tr *Trust) bool { return tr.Trusted() && tr.Status.Tags["site"] == "berlin" })
		must(t, err)
	})
}

// tag gives a worker a tag, which stays, and waits until its TPM has proven it.
func (s *world) tag(t *testing.T, w *Worker, site string) {
	t.Helper()
	ctx, began := t.Context(), time.Now()
	tag := &v1alpha1.AssetTag{ObjectMeta: objectMeta("", w.Name)}
	err := s.Client.Get(ctx, client.ObjectKey{Name: w.Name}, tag)
	tag.Spec = v1alpha1.AssetTagSpec{Nodes: []string{w.Name}, Tags: map[string]v1alpha1.TagValue{"site": v1alpha1.TagValue(site)}}
	if err == nil {
		err = s.Client.Update(ctx, tag)
	} else if err = client.IgnoreNotFound(err); err == nil {
		err = s.Client.Create(ctx, tag)
	}
	must(t, err)
	_, err = s.Until(ctx, w.Name, "tagged site="+site, func(tr *Trust) bool { return tr.Trusted() && tr.Status.Tags["site"] == site })
	must(t, err)
	var node core.Node
	must(t, s.Client.Get(ctx, client.ObjectKey{Name: w.Name}, &node))
	if got := node.Labels[v1alpha1.TagLabelPrefix+"site"]; got != site {
		t.Errorf("label of %s: got site %q, want %q", w.Name, got, site)
	}
	s.logf("S2 %s has proven site=%s %.2f s after it was said", w.Name, site, time.Since(began).Seconds())
}

// allOn waits until all pods of an app run on a node.
func (n *tenant) allOn(ctx context.Context, app, node string, count int) error {
	return until(ctx, app+" on "+node, podTime, nil, func(ctx context.Context) error {
		running, err := n.running(ctx, n.name, app)
		if err == nil && (len(running) != 1 || len(running[node]) != count) {
			err = fmt.Errorf("running: %v", running)
		}
		return err
	})
}

// leaves waits until no pod with a class is on a node.
func (s *world) leaves(t *testing.T, node string) {
	t.Helper()
	must(t, until(t.Context(), "pods leave "+node, graceTime+10*time.Second, nil, func(ctx context.Context) error {
		left, err := s.on(ctx, node)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("still there: %q", left)
		}
		return err
	}))
}

// copyTag writes what the TPM of one worker holds as asset tag into that of another, as somebody with root on both could.
func copyTag(from, to *Worker) error {
	source, err := device.Open(from.Address())
	if err != nil {
		return err
	}
	defer source.Close()
	record, err := source.NVRead(assettag.DefaultIndex)
	if err != nil {
		return err
	}
	target, err := device.Open(to.Address())
	if err != nil {
		return err
	}
	return errors.Join(target.NVStore(assettag.DefaultIndex, assettag.Attributes, record, nil), target.Close())
}
