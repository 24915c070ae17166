//go:build cluster

package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// TestS3 tries to launch pods of class regulated without what the class demands of a launch.
func TestS3(t *testing.T) {
	s := installed(t)
	ctx, n := t.Context(), s.newTenant(t, "clinic", "regulated")
	mallory := s.as(t, "mallory")
	t.Run("who", func(t *testing.T) {
		s.refused(t, "a user without use", mallory.Create(ctx, n.pod("ward")), "user mallory may not use trust class regulated")
		s.refused(t, "a service account without use", n.alice.Create(ctx, n.pod("ward", func(p *core.Pod) { p.Spec.ServiceAccountName = "default" })),
			"service account clinic/default may not use trust class regulated")
		s.refused(t, "a deployment by a user without use", mallory.Create(ctx, n.deployment("ward", 1)), "user mallory may not use trust class regulated")
	})
	t.Run("network", func(t *testing.T) {
		policy := &networking.NetworkPolicy{ObjectMeta: objectMeta(n.name, "isolated")}
		must(t, s.Client.Delete(ctx, policy))
		var said string
		must(t, until(ctx, "refusal", podTime, nil, func(ctx context.Context) error {
			err := n.alice.Create(ctx, n.pod("ward"))
			if err == nil {
				_ = s.Client.Delete(ctx, n.pod("ward"))
				return errors.New("the pod was accepted")
			}
			said = err.Error()
			return nil
		}))
		_, manifest, ok := strings.Cut(said, "apply this one, or write your own:\n")
		if !ok {
			t.Fatalf("refused with %q, want a manifest to apply", said)
		}
		must(t, yaml.UnmarshalStrict([]byte(manifest), policy))
		must(t, n.alice.Create(ctx, policy))
		began := time.Now()
		must(t, until(ctx, "the pod is accepted", podTime, nil, func(ctx context.Context) error { return n.alice.Create(ctx, n.pod("ward")) }))
		must(t, s.PodsReady(ctx, n.name, "ward"))
		s.logf("S3 refused without a NetworkPolicy; with the one that the refusal printed the pod runs after %.2f s", time.Since(began).Seconds())
		s.refused(t, "the policy taken away while the pod runs", n.alice.Delete(ctx, policy), "pod ward of trust class regulated must stay isolated")
	})
	t.Run("Pod Security", func(t *testing.T) {
		namespace := &core.Namespace{}
		must(t, s.Client.Get(ctx, client.ObjectKey{Name: n.name}, namespace))
		namespace.Labels["pod-security.kubernetes.io/enforce"] = "baseline"
		must(t, s.Client.Update(ctx, namespace))
		must(t, until(ctx, "refusal", podTime, nil, func(ctx context.Context) error { // the API server's own view follows
			err := n.alice.Create(ctx, n.pod("lax"))
			if err == nil {
				_ = s.Client.Delete(ctx, n.pod("lax"))
				return errors.New("the pod was accepted")
			}
			s.refused(t, "a weaker Pod Security level", err, "wants Pod Security restricted or stricter")
			return nil
		}))
	})
}
