//go:build cluster

package cluster

import (
	"context"
	"errors"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// setUp has the chart write the configuration of containerd. What keeps a worker from decrypting is in the events of its pod: first that nothing is
// set up, then that containerd runs since before; the chart does not restart it.
func (s *sealed) setUp(ctx context.Context, w *Worker) error {
	pod, err := s.imagesPod(ctx, w, "--install=false")
	if err != nil {
		return err
	}
	event, err := s.event(ctx, Namespace, pod, "Readiness probe failed", "no stream processor accepts")
	if err != nil {
		return err
	}
	s.logf("S6 before: %.200s", event)
	install := map[string]any{"install": true, "binFolder": "/var/lib/touchstone/bin"}
	if _, err = s.Install(ctx, s.Workers[0], policySpec, map[string]any{"agent": map[string]any{"imageProvider": install}}); err != nil {
		return err
	}
	if pod, err = s.imagesPod(ctx, w, "--install=true"); err != nil {
		return err
	}
	if event, err = s.event(ctx, Namespace, pod, "Readiness probe failed", "restart it"); err != nil {
		return err
	}
	s.logf("S6 installed: %.300s", event)
	if err := w.RestartContainerd(ctx); err != nil {
		return err
	}
	return s.PodsReady(ctx, Namespace, pod)
}

// imagesPod waits for the pod on a worker that looks after the configuration of containerd, with an argument.
func (s *sealed) imagesPod(ctx context.Context, w *Worker, argument string) (name string, err error) {
	err = until(ctx, "trust-agent-images "+argument+" on "+w.Name, podTime, nil, func(ctx context.Context) error {
		var list core.PodList
		if err := s.Client.List(ctx, &list, client.InNamespace(Namespace), client.MatchingLabels{"app.kubernetes.io/name": "trust-agent-images"}); err != nil {
			return err
		}
		for i := range list.Items {
			p := &list.Items[i]
			for _, a := range p.Spec.Containers[0].Args {
				if a == argument && p.Spec.NodeName == w.Name && p.DeletionTimestamp == nil {
					name = p.Name
					return nil
				}
			}
		}
		return errors.New("there is none")
	})
	return name, err
}
