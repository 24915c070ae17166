// Package exposure finds pods of trust classes that NetworkPolicies isolate no longer, by whatever means: a policy that went or came past admission,
// labels that changed, a pod and a policy that were made in the same moment. It says so on the pod, by an event and a condition, and tells package evict
// which pods must leave for it.
//
// The cache only raises the suspicion, since policies and pods come into it in any order: the API server is asked before a pod is called exposed.
// Since when it is stands in the condition, so that a restart of the controller does not prolong its grace.
package exposure

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/admission/isolation"
	"touchstone.dev/touchstone/internal/cluster/evict"
)

// Reconciler looks at the pods of one namespace.
type Reconciler struct {
	Client client.Client // reads from the cache
	Live   client.Reader // reads from the API server
	Events events.EventRecorder
	Now    func() time.Time
	// Wrote is told of each write to the API server.
	Wrote func(resource string)
	// OnNode and OnClass are told of nodes and classes whose exposed pods changed.
	OnNode, OnClass func(name string)

	loading sync.Mutex
	loaded  bool
	mu      sync.RWMutex
	open    map[string]map[types.UID]evict.Exposure // by namespace
}

// Reconcile looks at the namespace of this name.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	found, err := r.find(ctx, req.Name)
	if err == nil {
		r.take(req.Name, found)
	}
	return ctrl.Result{}, err
}

// Ensure looks at all namespaces, once: before that nobody can say that all pods are isolated.
func (r *Reconciler) Ensure(ctx context.Context) error {
	r.loading.Lock()
	defer r.loading.Unlock()
	if r.loaded {
		return nil
	}
	namespaces, err := r.Namespaces(ctx)
	if err != nil {
		return err
	}
	for _, namespace := range namespaces {
		if _, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: types.NamespacedName{Name: namespace}}); err != nil {
			return err
		}
	}
	r.loaded = true
	return nil
}

// Namespaces are those that have pods on nodes.
func (r *Reconciler) Namespaces(ctx context.Context) ([]string, error) {
	var pods corev1.PodList
	if err := r.Client.List(ctx, &pods, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	var names []string
	seen := map[string]bool{}
	for i := range pods.Items {
		if name := pods.Items[i].Namespace; !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names, nil
}

// Of returns the exposure of a pod.
func (r *Reconciler) Of(namespace string, uid types.UID) (evict.Exposure, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.open[namespace][uid]
	return e, ok
}

// OfClass returns the exposed pods of a class as NAMESPACE/NAME (WHY), sorted.
func (r *Reconciler) OfClass(class string) []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []string
	for _, pods := range r.open {
		for _, e := range pods {
			if slices.Contains(e.Classes, class) {
				out = append(out, e.Pod+" ("+e.Missing+")")
			}
		}
	}
	slices.Sort(out)
	return out
}

// take replaces what is known of a namespace, and tells of what changed.
func (r *Reconciler) take(namespace string, found map[types.UID]evict.Exposure) {
	r.mu.Lock()
	old := r.open[namespace]
	if r.open == nil {
		r.open = map[string]map[types.UID]evict.Exposure{}
	}
	if r.open[namespace] = found; len(found) == 0 {
		delete(r.open, namespace)
	}
	r.mu.Unlock()
	nodes, classes := map[string]bool{}, map[string]bool{}
	note := func(these, others map[types.UID]evict.Exposure) {
		for uid, e := range these {
			if o, ok := others[uid]; ok && e.Equal(&o) {
				continue
			}
			nodes[e.Node] = true
			for _, c := range e.Classes {
				classes[c] = true
			}
		}
	}
	note(found, old)
	note(old, found)
	for name := range nodes {
		r.OnNode(name)
	}
	for name := range classes {
		r.OnClass(name)
	}
}

// demand is what classes of a pod want of its isolation.
type demand struct{ classes, leave []string }

// find returns the exposed pods of a namespace, and marks pods where that changed.
func (r *Reconciler) find(ctx context.Context, namespace string) (map[types.UID]evict.Exposure, error) {
	var ns corev1.Namespace
	if err := r.Client.Get(ctx, types.NamespacedName{Name: namespace}, &ns); err != nil || !ns.DeletionTimestamp.IsZero() {
		return nil, client.IgnoreNotFound(err)
	}
	var pods corev1.PodList
	var cached netv1.NetworkPolicyList
	if err := r.Client.List(ctx, &pods, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	if err := r.Client.List(ctx, &cached, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	var live *netv1.NetworkPolicyList
	found := map[types.UID]evict.Exposure{}
	for i := range pods.Items {
		p := &pods.Items[i]
		d, err := r.demandOf(ctx, p, ns.Labels[v1alpha1.ClassLabel])
		if err != nil {
			return nil, err
		}
		if !marked(p) && (len(d.classes) == 0 || isolation.Missing(p.Labels, cached.Items) == "") {
			continue
		}
		if live == nil {
			live = &netv1.NetworkPolicyList{}
			if err := r.Live.List(ctx, live, client.InNamespace(namespace)); err != nil {
				return nil, err
			}
		}
		e, err := r.look(ctx, p, d, live.Items)
		if err != nil {
			return nil, err
		}
		if e != nil {
			found[p.UID] = *e
		}
	}
	return found, nil
}

// look asks the API server of one pod. It returns nil when the pod is not exposed, or is gone. One that was found exposed and is on its way out still is: its
// kubelet may never let it go.
func (r *Reconciler) look(ctx context.Context, cached *corev1.Pod, d demand, policies []netv1.NetworkPolicy) (*evict.Exposure, error) {
	p := &corev1.Pod{}
	err := r.Live.Get(ctx, client.ObjectKeyFromObject(cached), p)
	if apierrors.IsNotFound(err) || err == nil && (p.UID != cached.UID || !p.DeletionTimestamp.IsZero() && !marked(p)) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	missing := ""
	if len(d.classes) > 0 {
		missing = isolation.Missing(p.Labels, policies)
	}
	since, err := r.mark(ctx, p, d, missing)
	if err != nil || missing == "" {
		return nil, err
	}
	return &evict.Exposure{Pod: p.Namespace + "/" + p.Name, Node: p.Spec.NodeName, Classes: d.classes, Leave: d.leave, Missing: missing, Since: since}, nil
}

// demandOf finds the classes of a pod that want isolation, and those of them that want the pod to leave without it. A class that is gone demands nothing of pods that run.
func (r *Reconciler) demandOf(ctx context.Context, p *corev1.Pod, namespaceClass string) (d demand, err error) {
	for _, name := range evict.Classes(p, namespaceClass) {
		var tc v1alpha1.TrustClass
		if err := r.Client.Get(ctx, types.NamespacedName{Name: name}, &tc); apierrors.IsNotFound(err) {
			continue
		} else if err != nil {
			return demand{}, err
		}
		if tc.Spec.Network.Isolation == v1alpha1.None {
			continue
		}
		d.classes = append(d.classes, name)
		if tc.Spec.Network.OnLoss != v1alpha1.Report {
			d.leave = append(d.leave, name)
		}
	}
	return d, nil
}

func (d *demand) String() string { return strings.Join(d.classes, ", ") }
