package evict

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/imagescans"
)

// Classes returns the classes of a pod, sorted: that of its namespace's label, that of its own, and those that its node selector has. The selector cannot
// be changed once the pod is there, so a label that is taken off a pod changes nothing.
func Classes(p *corev1.Pod, namespaceClass string) []string {
	set := map[string]bool{namespaceClass: true, p.Labels[v1alpha1.ClassLabel]: true}
	for k := range p.Spec.NodeSelector {
		if name, ok := strings.CutPrefix(k, v1alpha1.ClassNodeLabelPrefix); ok {
			set[name] = true
		}
	}
	delete(set, "")
	return slices.Sorted(maps.Keys(set))
}

// Exposure is a pod that its classes want isolated, and that is not.
type Exposure struct {
	Pod, Node string   // Pod is NAMESPACE/NAME
	Classes   []string // that want it isolated
	Leave     []string // those of them that want it to leave
	Missing   string
	Since     time.Time
}

// Equal tells whether two exposures say the same.
func (e *Exposure) Equal(o *Exposure) bool {
	return e.Pod == o.Pod && e.Node == o.Node && e.Missing == o.Missing && e.Since.Equal(o.Since) && slices.Equal(e.Classes, o.Classes) && slices.Equal(e.Leave, o.Leave)
}

// step is what to do with a pod now.
type step struct {
	act     act
	seconds int64         // grace period of an eviction
	again   time.Duration // when to look again; 0 for not by itself
}

type act int

const (
	wait  act = iota
	evict     // ask for its eviction: disruption budgets may refuse
	force     // delete it, at once
)

// retry is how soon a refused eviction is asked for again.
const retry = time.Second

// plan says what to do with a pod that must leave, since when it must, and how long budgets are respected.
func plan(p *corev1.Pod, since time.Time, grace time.Duration, now time.Time) step {
	left := since.Add(grace).Sub(now)
	switch {
	case left <= 0:
		return step{act: force, again: retry}
	case p.DeletionTimestamp != nil:
		return step{act: wait, again: left}
	}
	seconds := int64(math.Ceil(left.Seconds()))
	if own := p.Spec.TerminationGracePeriodSeconds; own != nil {
		seconds = min(seconds, max(*own, 1))
	}
	return step{act: evict, seconds: seconds, again: min(left, retry)}
}

// started is when a pod came to its node.
func started(p *corev1.Pod) time.Time {
	if p.Status.StartTime != nil {
		return p.Status.StartTime.Time
	}
	return p.CreationTimestamp.Time
}

func mirror(p *corev1.Pod) bool { return p.Annotations[corev1.MirrorPodAnnotationKey] != "" }

func over(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Strip leaves of a pod what packages evict, exposure and imagetrust read; it is the transform of the cache, which holds every pod of the cluster.
func Strip(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	s := &corev1.Pod{TypeMeta: p.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Name: p.Name, Namespace: p.Namespace, UID: p.UID, ResourceVersion: p.ResourceVersion, CreationTimestamp: p.CreationTimestamp, DeletionTimestamp: p.DeletionTimestamp,
	}}
	if len(Classes(p, "")) > 0 {
		s.Labels = p.Labels // by which NetworkPolicies select it
		for _, image := range imagescans.Names(p) {
			s.Spec.Containers = append(s.Spec.Containers, corev1.Container{Image: image})
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == v1alpha1.IsolatedCondition {
			s.Status.Conditions = []corev1.PodCondition{c}
		}
	}
	if m := p.Annotations[corev1.MirrorPodAnnotationKey]; m != "" {
		s.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "true"}
	}
	for k, v := range p.Spec.NodeSelector {
		if strings.HasPrefix(k, v1alpha1.ClassNodeLabelPrefix) {
			if s.Spec.NodeSelector == nil {
				s.Spec.NodeSelector = map[string]string{}
			}
			s.Spec.NodeSelector[k] = v
		}
	}
	s.Spec.NodeName, s.Spec.TerminationGracePeriodSeconds = p.Spec.NodeName, p.Spec.TerminationGracePeriodSeconds
	s.Status.Phase, s.Status.StartTime = p.Status.Phase, p.Status.StartTime
	return s, nil
}
