// Package cri removes images from the store of a container runtime, over CRI (k8s.io/cri-api, runtime.v1), by the layers that they are
// made of: so that what was decrypted on a worker does not outlive the worker's right to it.
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

// Images is the image store of a runtime.
type Images struct {
	conn   *grpc.ClientConn
	client runtime.ImageServiceClient
}

// Open connects to a runtime at "unix:///run/containerd/containerd.sock" or just the path. The runtime need not be there yet.
func Open(address string) (*Images, error) {
	path, _ := strings.CutPrefix(address, "unix:")
	path = "/" + strings.TrimLeft(path, "/")
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("container runtime %s: %w", address, err)
	}
	return &Images{conn: conn, client: runtime.NewImageServiceClient(conn)}, nil
}

// Close ends the connection.
func (i *Images) Close() error { return i.conn.Close() }

// RemoveWith removes every image that has one of the layers, by the digests of the layers unpacked, and returns their names. Images that the runtime
// pins (its pause image) stay. An error says that some may be left.
func (i *Images) RemoveWith(ctx context.Context, layers map[string]bool) (removed []string, err error) {
	list, err := i.client.ListImages(ctx, &runtime.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the images of the container runtime: %w", err)
	}
	if len(list.GetImages()) > maxImages {
		return nil, fmt.Errorf("the container runtime has more than %d images", maxImages)
	}
	var failed []error
	for _, img := range list.GetImages() {
		if img.GetPinned() {
			continue
		}
		has, err := i.has(ctx, img.GetId(), layers)
		if err == nil && has {
			_, err = i.client.RemoveImage(ctx, &runtime.RemoveImageRequest{Image: &runtime.ImageSpec{Image: img.GetId()}})
		}
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("image %s: %w", name(img), err))
		case has:
			removed = append(removed, name(img))
		}
	}
	return removed, errors.Join(failed...)
}

func name(img *runtime.Image) string {
	for _, names := range [][]string{img.GetRepoTags(), img.GetRepoDigests()} {
		if len(names) > 0 {
			return names[0]
		}
	}
	return img.GetId()
}

// has reports whether an image has one of the layers. containerd and CRI-O tell its configuration when they are asked for everything.
func (i *Images) has(ctx context.Context, id string, layers map[string]bool) (bool, error) {
	s, err := i.client.ImageStatus(ctx, &runtime.ImageStatusRequest{Image: &runtime.ImageSpec{Image: id}, Verbose: true})
	if err != nil {
		return false, err
	}
	if s.GetImage() == nil {
		return false, nil // gone meanwhile
	}
	var info struct {
		Spec struct {
			RootFS struct {
				DiffIDs []string `json:"diff_ids"`
			} `json:"rootfs"`
		} `json:"imageSpec"`
	}
	if err := json.Unmarshal([]byte(s.GetInfo()["info"]), &info); err != nil || len(info.Spec.RootFS.DiffIDs) == 0 {
		return false, errors.New("the container runtime does not tell its layers")
	}
	for _, d := range info.Spec.RootFS.DiffIDs {
		if layers[d] {
			return true, nil
		}
	}
	return false, nil
}
