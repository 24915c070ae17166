// Package cri removes images and their ended containers from the store of a container runtime, over CRI (k8s.io/cri-api, runtime.v1), by the
// layers that they are made of: so that what was decrypted on a worker does not outlive the worker's right to it.
package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits on what a runtime answers.
const (
	maxMessage = 64 << 20 // bytes
	maxImages  = 100_000
)

// Store is what a runtime keeps: images, and containers that hold their layers. Its methods are for one caller at a time.
type Store struct {
	// Stop has containers stopped that run from an image which must go. Without, only those that have ended are removed.
	Stop bool

	conn       *grpc.ClientConn
	images     runtime.ImageServiceClient
	containers runtime.RuntimeServiceClient
	gone       map[string][]string // names of images that were removed, with the layers why
}

// Open connects to a runtime at "unix:///run/containerd/containerd.sock" or just the path. The runtime need not be there yet.
func Open(address string) (*Store, error) {
	path, _ := strings.CutPrefix(address, "unix:")
	path = "/" + strings.TrimLeft(path, "/")
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("container runtime %s: %w", address, err)
	}
	return &Store{conn: conn, images: runtime.NewImageServiceClient(conn), containers: runtime.NewRuntimeServiceClient(conn), gone: map[string][]string{}}, nil
}

// Close ends the connection.
func (s *Store) Close() error { return s.conn.Close() }

// Removed names what was removed.
type Removed struct{ Images, Containers []string }

// RemoveWith removes every image that has one of the layers, by the digests of the layers unpacked, and the containers of such images that have ended: the
// runtime keeps layers for both. Images that the runtime pins (its pause image) stay. An error says that some may be left.
func (s *Store) RemoveWith(ctx context.Context, layers map[string]bool) (out Removed, err error) {
	list, err := s.images.ListImages(ctx, &runtime.ListImagesRequest{})
	if err != nil {
		return out, fmt.Errorf("list the images of the container runtime: %w", err)
	}
	if len(list.GetImages()) > maxImages {
		return out, fmt.Errorf("the container runtime has more than %d images", maxImages)
	}
	var failed []error
	var found []*runtime.Image
	for _, img := range list.GetImages() {
		if img.GetPinned() {
			continue
		}
		has, err := s.has(ctx, img.GetId(), layers)
		if err != nil {
			failed = append(failed, fmt.Errorf("image %s: %w", name(img), err))
		}
		if len(has) > 0 {
			found = append(found, img)
			s.remember(img, has)
		}
	}
	// Containers go first: CRI-O removes no image that has some, and containerd collects layers when an image goes.
	if names := s.names(found, layers); len(names) > 0 {
		out.Containers, err = s.removeContainers(ctx, names)
		failed = append(failed, err)
	}
	for _, img := range found {
		if _, err = s.images.RemoveImage(ctx, &runtime.RemoveImageRequest{Image: &runtime.ImageSpec{Image: img.GetId()}}); err != nil {
			failed = append(failed, fmt.Errorf("image %s: %w", name(img), err))
			continue
		}
		out.Images = append(out.Images, name(img))
	}
	return out, errors.Join(failed...)
}

func name(img *runtime.Image) string {
	for _, names := range [][]string{img.GetRepoTags(), img.GetRepoDigests()} {
		if len(names) > 0 {
			return names[0]
		}
	}
	return img.GetId()
}

// has returns the layers that an image has of those given. containerd and CRI-O tell its configuration when they are asked for everything.
func (s *Store) has(ctx context.Context, id string, layers map[string]bool) (found []string, err error) {
	status, err := s.images.ImageStatus(ctx, &runtime.ImageStatusRequest{Image: &runtime.ImageSpec{Image: id}, Verbose: true})
	if err != nil {
		return nil, err
	}
	if status.GetImage() == nil {
		return nil, nil // gone meanwhile
	}
	var info struct {
		Spec struct {
			RootFS struct {
				DiffIDs []string `json:"diff_ids"`
			} `json:"rootfs"`
		} `json:"imageSpec"`
	}
	if err := json.Unmarshal([]byte(status.GetInfo()["info"]), &info); err != nil || len(info.Spec.RootFS.DiffIDs) == 0 {
		return nil, errors.New("the container runtime does not tell its layers")
	}
	for _, d := range info.Spec.RootFS.DiffIDs {
		if layers[d] {
			found = append(found, d)
		}
	}
	return found, nil
}
