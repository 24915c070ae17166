package cri

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels that the kubelet gives its containers.
const (
	labelPod       = "io.kubernetes.pod.name"
	labelNamespace = "io.kubernetes.pod.namespace"
	labelPodUID    = "io.kubernetes.pod.uid"
	labelContainer = "io.kubernetes.container.name"
)

// Container is what the runtime knows of a container of a pod, or of a pod's sandbox (then without name and image).
type Container struct {
	Namespace, Pod, PodUID, Name string
	Image                        string // reference that the pod named
	ImageDigest                  string // "sha256:...": of the manifest where the runtime tells it, else of the configuration
}

// Container finds a container by its whole ID; also a pod's sandbox, which the kubelet's pause process runs in.
func (s *Store) Container(ctx context.Context, id string) (Container, error) {
	list, err := s.containers.ListContainers(ctx, &runtime.ListContainersRequest{Filter: &runtime.ContainerFilter{Id: id}}, grpc.MaxCallRecvMsgSize(1<<20))
	if err != nil {
		return Container{}, fmt.Errorf("ask the container runtime for a container: %w", err)
	}
	if c := list.GetContainers(); len(c) == 1 {
		l := c[0].GetLabels()
		out := Container{Namespace: l[labelNamespace], Pod: l[labelPod], PodUID: l[labelPodUID], Name: l[labelContainer], ImageDigest: digest(c[0].GetImageRef())}
		out.Image = c[0].GetImage().GetUserSpecifiedImage()
		if out.Image == "" {
			out.Image = c[0].GetImage().GetImage()
		}
		return out, nil
	}
	pods, err := s.containers.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{Filter: &runtime.PodSandboxFilter{Id: id}}, grpc.MaxCallRecvMsgSize(1<<20))
	if err != nil {
		return Container{}, fmt.Errorf("ask the container runtime for a pod: %w", err)
	}
	if p := pods.GetItems(); len(p) == 1 {
		m := p[0].GetMetadata()
		return Container{Namespace: m.GetNamespace(), Pod: m.GetName(), PodUID: m.GetUid()}, nil
	}
	return Container{}, fmt.Errorf("the container runtime does not know container %.64s", id)
}

// digest is the digest in a reference: "name@sha256:..." or "sha256:...".
func digest(ref string) string {
	if i := strings.LastIndex(ref, "sha256:"); i >= 0 {
		return ref[i:]
	}
	return ""
}
