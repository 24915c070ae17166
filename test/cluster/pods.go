package cluster

import (
	"context"
	"fmt"
	"time"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const podTime = 90 * time.Second // until a pod is ready

// PodsReady waits until pods are ready.
func (c *Cluster) PodsReady(ctx context.Context, namespace string, names ...string) error {
	for _, name := range names {
		err := until(ctx, "pod "+name+" ready", podTime, nil, func(ctx context.Context) error {
			var pod core.Pod
			if err := c.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &pod); err != nil {
				return err
			}
			for _, condition := range pod.Status.Conditions {
				if condition.Type == core.PodReady && condition.Status == core.ConditionTrue {
					return nil
				}
			}
			return fmt.Errorf("phase %s, %s %s", pod.Status.Phase, pod.Status.Reason, pod.Status.Message)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
