package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Image is an image that a runtime has.
type Image struct {
	ID      string   // digest of its configuration
	Digests []string // that it was pulled by, "sha256:...": of manifests, or of indexes
	Name    string   // for people
	Used    bool     // a container is there that has not ended
}

// Images returns what the runtime has, those first that are used.
func (s *Store) Images(ctx context.Context) ([]Image, error) {
	list, err := s.images.ListImages(ctx, &runtime.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the images of the container runtime: %w", err)
	}
	containers, err := s.containers.ListContainers(ctx, &runtime.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the containers of the container runtime: %w", err)
	}
	if len(list.GetImages()) > maxImages || len(containers.GetContainers()) > maxContainers {
		return nil, fmt.Errorf("the container runtime has more than %d images, or %d containers", maxImages, maxContainers)
	}
	used := map[string]bool{}
	for _, c := range containers.GetContainers() {
		if c.GetState() != runtime.ContainerState_CONTAINER_EXITED {
			used[c.GetImageRef()], used[c.GetImageId()], used[c.GetImage().GetImage()] = true, true, true
		}
	}
	delete(used, "")
	var out []Image
	for _, img := range list.GetImages() {
		i := Image{ID: digest(img.GetId()), Name: name(img), Used: slices.ContainsFunc(imageNames(img), func(n string) bool { return used[n] })}
		if i.ID == "" {
			i.ID = "sha256:" + img.GetId() // CRI-O says the digits only
		}
		for _, d := range img.GetRepoDigests() {
			if d = digest(d); d != "" && !slices.Contains(i.Digests, d) {
				i.Digests = append(i.Digests, d)
			}
		}
		out = append(out, i)
	}
	slices.SortStableFunc(out, func(a, b Image) int {
		switch {
		case a.Used == b.Used:
			return 0
		case a.Used:
			return -1
		}
		return 1
	})
	return out, nil
}

// Images returns what all runtimes have that serve here.
func (f *Finder) Images(ctx context.Context) ([]Image, error) {
	var out []Image
	failed, asked := []error(nil), false
	for _, socket := range f.sockets {
		if _, err := os.Stat(socket); err != nil {
			continue
		}
		asked = true
		s, err := f.store(socket)
		if err == nil {
			var images []Image
			images, err = s.Images(ctx)
			out = append(out, images...)
		}
		failed = append(failed, err)
	}
	if !asked {
		return nil, errors.New("no container runtime serves here")
	}
	return out, errors.Join(failed...)
}
