package imagescans

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Names are the images of a pod, each once: containers of all kinds and image volumes.
func Names(pod *corev1.Pod) []string {
	var out []string
	for _, c := range pod.Spec.InitContainers {
		out = append(out, c.Image)
	}
	for _, c := range pod.Spec.Containers {
		out = append(out, c.Image)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		out = append(out, c.Image)
	}
	for _, v := range pod.Spec.Volumes {
		if v.Image != nil {
			out = append(out, v.Image.Reference)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
