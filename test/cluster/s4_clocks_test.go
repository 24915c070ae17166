//go:build cluster

package cluster

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// clocks gives AIAS a clock that is off by more than results live, and then the right one again. Whatever breaks first (certificates that are
// not valid yet, results from the future, results that expired before they came), no worker may be trusted.
func (s *world) clocks(t *testing.T) {
	ctx := t.Context()
	set := &apps.StatefulSet{ObjectMeta: objectMeta(Namespace, "aias")}
	must(t, s.Client.Get(ctx, client.ObjectKeyFromObject(set), set))
	right := set.Spec.Template.Spec.Containers[0].Image
	for _, clock := range []struct {
		name string
		off  time.Duration
	}{{"ahead", 10 * time.Minute}, {"behind", -10 * time.Minute}} {
		var image string
		must(t, s.Step("AIAS with a clock that is "+clock.name, func() (err error) {
			image, err = s.ImportSkewed(ctx, s.Workers[0], clock.off)
			return err
		}))
		s.runAIAS(t, image)
		began := time.Now()
		for _, w := range s.Workers[:2] {
			must(t, until(ctx, w.Name+" falls", maxAge+15*time.Second, nil, func(ctx context.Context) error {
				tr, err := s.Trust(ctx, w.Name)
				if err == nil && tr.Trusted() {
					err = errors.New("it is still trusted")
				}
				return err
			}))
		}
		s.logf("S4 clock of AIAS %s: no worker is trusted any more after %.1f s", clock.name, time.Since(began).Seconds())
		s.staysUntrusted(t, 20*time.Second)
		s.runAIAS(t, right)
		began = time.Now()
		must(t, s.PodsReady(ctx, Namespace, "aias-0"))
		for _, w := range s.Workers[:2] {
			_, err := s.Until(ctx, w.Name, "trusted", (*Trust).Trusted)
			must(t, err)
		}
		s.logf("S4 clock of AIAS right again: all workers are trusted after %.1f s", time.Since(began).Seconds())
	}
}

// runAIAS has AIAS run another image.
func (s *world) runAIAS(t *testing.T, image string) {
	t.Helper()
	set := &apps.StatefulSet{ObjectMeta: objectMeta(Namespace, "aias")}
	must(t, s.Client.Patch(t.Context(), set, client.RawPatch("application/json-patch+json",
		fmt.Appendf(nil, `[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":%q}]`, image))))
	must(t, until(t.Context(), "AIAS replaced", installTime, nil, func(ctx context.Context) error {
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(set), set); err != nil {
			return err
		}
		if st := set.Status; st.ObservedGeneration < set.Generation || st.UpdatedReplicas < 1 || st.CurrentRevision != st.UpdateRevision {
			return errors.New("the pod is still the one before")
		}
		return nil
	}))
}

// staysUntrusted looks again and again for a while.
func (s *world) staysUntrusted(t *testing.T, long time.Duration) {
	t.Helper()
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		for _, w := range s.Workers[:2] {
			tr, err := s.Trust(t.Context(), w.Name)
			must(t, err)
			if tr.Trusted() {
				t.Fatalf("%s is trusted by an AIAS whose clock is wrong", w.Name)
			}
		}
	}
}
