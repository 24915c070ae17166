package agent

import (
	"context"
	"path/filepath"

	"touchstone.dev/touchstone/internal/audit/attribution"
	"touchstone.dev/touchstone/internal/cri"
)

// newResolver makes what says where audit events come from. Containers are named by whichever runtime serves CRI on the host.
func newResolver(root string) *attribution.Resolver {
	var sockets []string
	for _, s := range cri.Sockets {
		sockets = append(sockets, filepath.Join(root, s))
	}
	runtimes := cri.NewFinder(sockets...) // lives as long as the agent
	return attribution.New(attribution.Config{
		Proc: filepath.Join(root, "proc"), PodLogs: filepath.Join(root, "var/log/pods"),
		Ask: func(ctx context.Context, id string) (attribution.Container, error) {
			c, err := runtimes.Container(ctx, id)
			return attribution.Container{Namespace: c.Namespace, Pod: c.Pod, PodUID: c.PodUID, Name: c.Name, Image: c.Image, ImageDigest: c.ImageDigest}, err
		},
	})
}
