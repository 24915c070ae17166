package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// withSealed is a pod of a class of encrypted images, with an image in each place that has one.
func withSealed(ns string, policy corev1.PullPolicy) *corev1.Pod {
	return pod(ns, func(p *corev1.Pod) {
		p.Labels[v1alpha1.ClassLabel] = "sealed"
		c := p.Spec.Containers[0]
		c.ImagePullPolicy = policy
		second, first := c, c
		second.Name, first.Name = "second", "first"
		p.Spec.Containers, p.Spec.InitContainers = []corev1.Container{c, second}, []corev1.Container{first}
		p.Spec.Volumes = []corev1.Volume{
			{Name: "empty", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "image", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: pinnedImage, PullPolicy: policy}}},
		}
	})
}

// TestPulls: where a class wants encrypted images each container pulls at each start, whatever the pod says; elsewhere as the pod says.
func TestPulls(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(nil)
	var last *corev1.Pod
	for _, policy := range []corev1.PullPolicy{"", corev1.PullIfNotPresent, corev1.PullNever, corev1.PullAlways} {
		p := withSealed(ns, policy)
		w.must(w.as(alice).Create(ctx, p))
		got := []corev1.PullPolicy{p.Spec.Containers[0].ImagePullPolicy, p.Spec.Containers[1].ImagePullPolicy, p.Spec.InitContainers[0].ImagePullPolicy, p.Spec.Volumes[1].Image.PullPolicy}
		for i, g := range got {
			if g != corev1.PullAlways {
				t.Errorf("pull policy %q of the pod: image %d gets %q, want Always", policy, i, g)
			}
		}
		last = p
	}
	plain := pod(ns, func(p *corev1.Pod) { p.Spec.Containers[0].ImagePullPolicy = corev1.PullNever })
	w.must(w.as(alice).Create(ctx, plain))
	if got := plain.Spec.Containers[0].ImagePullPolicy; got != corev1.PullNever {
		t.Errorf("pull policy of a pod of another class: %q, want it as it was", got)
	}
	last.Spec.EphemeralContainers = []corev1.EphemeralContainer{debugger(pinnedImage)}
	w.refused("ephemeral container", w.as(alice).SubResource("ephemeralcontainers").Update(ctx, last.DeepCopy()), "imagePullPolicy must be Always, so that the right to the image")
	last.Spec.EphemeralContainers[0].ImagePullPolicy = corev1.PullAlways
	w.accepted("ephemeral container that pulls", w.as(alice).SubResource("ephemeralcontainers").Update(ctx, last))
}
