package cri

import (
	"context"
	"errors"
	"fmt"
	"slices"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	maxContainers = 100_000
	stopTime      = 10 // seconds that a container has to end by itself
)

// removeContainers removes the containers of images that are named by any of their names, so that the runtime lets go of the layers unpacked. One that runs
// stays, unless the store was told to stop those.
func (s *Store) removeContainers(ctx context.Context, names map[string]bool) (removed []string, err error) {
	list, err := s.containers.ListContainers(ctx, &runtime.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the containers of the container runtime: %w", err)
	}
	if len(list.GetContainers()) > maxContainers {
		return nil, fmt.Errorf("the container runtime has more than %d containers", maxContainers)
	}
	var failed []error
	for _, c := range list.GetContainers() {
		if !names[c.GetImageRef()] && !names[c.GetImageId()] && !names[c.GetImage().GetImage()] {
			continue
		}
		if c.GetState() != runtime.ContainerState_CONTAINER_EXITED {
			if !s.Stop {
				continue // the controller evicts its pod
			}
			if _, err := s.containers.StopContainer(ctx, &runtime.StopContainerRequest{ContainerId: c.GetId(), Timeout: stopTime}); err != nil {
				failed = append(failed, fmt.Errorf("stop container %s: %w", c.GetMetadata().GetName(), err))
				continue
			}
		}
		if _, err := s.containers.RemoveContainer(ctx, &runtime.RemoveContainerRequest{ContainerId: c.GetId()}); err != nil {
			failed = append(failed, fmt.Errorf("container %s: %w", c.GetMetadata().GetName(), err))
			continue
		}
		removed = append(removed, c.GetMetadata().GetName())
	}
	return removed, errors.Join(failed...)
}

// remember keeps the names of an image that was removed, by the layers that it had of those that must go: its containers that run now are removed when they
// have ended.
func (s *Store) remember(img *runtime.Image, layers []string) {
	if len(s.gone) >= maxImages {
		clear(s.gone)
	}
	for _, n := range imageNames(img) {
		s.gone[n] = layers
	}
}

// names returns all names of the images whose containers must go: those found now, and those removed before with layers that still must go.
func (s *Store) names(found []*runtime.Image, layers map[string]bool) map[string]bool {
	out := map[string]bool{}
	for _, img := range found {
		for _, n := range imageNames(img) {
			out[n] = true
		}
	}
	for n, has := range s.gone {
		if slices.ContainsFunc(has, func(l string) bool { return layers[l] }) {
			out[n] = true
		} else {
			delete(s.gone, n) // it may be here again
		}
	}
	return out
}

func imageNames(img *runtime.Image) []string {
	return slices.Concat([]string{img.GetId()}, img.GetRepoTags(), img.GetRepoDigests())
}
