// Package pending tells why pods with a trust class wait: the scheduler's own event only says that no node matches a selector. When no node
// meets the class of a pod that could not be scheduled, the pod gets an event that names what each node lacks.
package pending

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/board"
	"touchstone.dev/touchstone/internal/cluster/class"
	"touchstone.dev/touchstone/internal/cluster/evict"
)

const (
	again     = 30 * time.Second // between two looks at a pod that waits
	maxNode   = 4                // nodes that are named with a lack
	maxLacks  = 4                // different lacks that are told
	maxReason = 240              // bytes of one lack; an event's note has 1,024
)

// Reconciler looks at pods that no node has.
type Reconciler struct {
	Pods   client.Reader // of pods without a node: see Strip
	Client client.Client
	Board  *board.Board
	Events events.EventRecorder
	Now    func() time.Time
	Ensure func(context.Context) error

	mu   sync.Mutex
	told map[types.NamespacedName]string // what each pod was told last
}

// Reconcile looks at one pod.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if err := r.Ensure(ctx); err != nil {
		return ctrl.Result{}, err
	}
	var p corev1.Pod
	if err := r.Pods.Get(ctx, req.NamespacedName, &p); err != nil || !unschedulable(&p) {
		r.tell(req.NamespacedName, "")
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	for _, name := range evict.Classes(&p, "") {
		var tc v1alpha1.TrustClass
		if err := r.Client.Get(ctx, types.NamespacedName{Name: name}, &tc); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		if text := Text(&tc, r.Board.All(), r.Now()); r.tell(req.NamespacedName, text) {
			r.Events.Eventf(&p, nil, corev1.EventTypeWarning, "NoTrustedNode", "Schedule", "%s", text)
		}
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// tell notes what a pod is told, and reports whether it is news.
func (r *Reconciler) tell(pod types.NamespacedName, text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if text == "" {
		delete(r.told, pod)
		return false
	}
	if r.told == nil {
		r.told = map[types.NamespacedName]string{}
	}
	news := r.told[pod] != text
	r.told[pod] = text
	return news
}

// unschedulable reports whether the scheduler has tried, and found no node.
func unschedulable(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable
	})
}

// Text says what nodes lack to meet a class; empty when one of them meets it: then the pod waits for something else.
func Text(tc *v1alpha1.TrustClass, nodes []board.Entry, now time.Time) string {
	lacks := map[string][]string{}
	for _, n := range nodes {
		a := class.Meets(&tc.Spec, n.Class, now)
		if a.Meets {
			return ""
		}
		lack := strings.Join(a.Missing, ", ")
		if len(lack) > maxReason {
			lack = strings.ToValidUTF8(lack[:maxReason], "") + "..."
		}
		lacks[lack] = append(lacks[lack], n.Name)
	}
	if len(lacks) == 0 {
		return fmt.Sprintf("no node meets trust class %s: there are no nodes", tc.Name)
	}
	parts := make([]string, 0, len(lacks))
	for _, lack := range byCount(lacks) {
		names := lacks[lack]
		slices.Sort(names)
		text := strings.Join(names[:min(len(names), maxNode)], ", ")
		if more := len(names) - maxNode; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		if parts = append(parts, text+": "+lack); len(parts) == maxLacks && len(lacks) > maxLacks {
			parts = append(parts, fmt.Sprintf("and %d other reasons", len(lacks)-maxLacks))
			break
		}
	}
	return fmt.Sprintf("no node meets trust class %s. %s", tc.Name, strings.Join(parts, "; "))
}

// byCount sorts lacks by the number of nodes that have them, the most frequent first.
func byCount(lacks map[string][]string) []string {
	keys := make([]string, 0, len(lacks))
	for k := range lacks {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if d := len(lacks[b]) - len(lacks[a]); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return keys
}

// Strip leaves of a pod without a node what is read here; it is the transform of their cache.
func Strip(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	s := &corev1.Pod{TypeMeta: p.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Name: p.Name, Namespace: p.Namespace, UID: p.UID, ResourceVersion: p.ResourceVersion, DeletionTimestamp: p.DeletionTimestamp,
	}}
	for k, v := range p.Spec.NodeSelector {
		if strings.HasPrefix(k, v1alpha1.ClassNodeLabelPrefix) {
			if s.Spec.NodeSelector == nil {
				s.Spec.NodeSelector = map[string]string{}
			}
			s.Spec.NodeSelector[k] = v
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			s.Status.Conditions = []corev1.PodCondition{{Type: c.Type, Status: c.Status, Reason: c.Reason}}
		}
	}
	return s, nil
}
