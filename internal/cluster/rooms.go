package cluster

import (
	"context"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/board"
	"touchstone.dev/touchstone/internal/cluster/enforcement"
	"touchstone.dev/touchstone/internal/cluster/evict"
	"touchstone.dev/touchstone/internal/cluster/exposure"
	"touchstone.dev/touchstone/internal/cluster/feed"
	"touchstone.dev/touchstone/internal/cluster/join"
	"touchstone.dev/touchstone/internal/cluster/node"
	"touchstone.dev/touchstone/internal/cluster/pending"
)

// nodeWorkers is how many nodes are written at the same time. They, not a rate, bound what the API server has to do for us: it has its own means to be fair.
const nodeWorkers = 16

// Waits between two tries of what failed. The default goes up to 16 minutes: a node that fell while somebody's webhook refused each change would wait for so long after that.
const (
	firstRetry = 5 * time.Millisecond
	lastRetry  = 5 * time.Second
)

func retries[T comparable]() workqueue.TypedRateLimiter[T] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[T](firstRetry, lastRetry)
}

// settle is in how much time changes that are only counted count as one.
const settle = time.Second

// rooms are the controllers, and what they share.
type rooms struct {
	o       *Options
	m       manager.Manager
	client  client.Client
	feed    *feed.Feed
	board   *board.Board
	metrics *metrics
	proven  map[string]map[string]string // tags by node, as AIAS told last

	nodes       *node.Reconciler
	enforcement *enforcement.Reconciler
	exposure    *exposure.Reconciler
	jobs        jobs
	// bells of: evictions, the enforcement, counts of classes, joins, the policy, tags.
	evict, enforce, count, join, policy, tags bell
}

func newRooms(m manager.Manager, o *Options) (*rooms, error) {
	r := &rooms{o: o, m: m, client: m.GetClient(), board: board.New(o.Now), proven: map[string]map[string]string{}}
	r.feed = feed.New(feed.Options{Source: o.AIAS, Log: o.Log, Now: o.Now, Observe: func(outcome string) { r.metrics.observed(outcome) }})
	var err error
	if r.metrics, err = newMetrics(o.Registry, r.feed, r.board); err != nil {
		return nil, err
	}
	events := m.GetEventRecorder(fieldOwner)
	r.enforcement = &enforcement.Reconciler{Client: r.client, Feed: r.feed, Board: r.board, Events: events, Log: o.Log, Now: o.Now}
	r.nodes = &node.Reconciler{
		Client: r.client, Live: m.GetAPIReader(), Feed: r.feed, Board: r.board, Events: events, Log: o.Log, Now: o.Now, AllowMissingUUID: o.AllowMissingUUID,
		Keys: o.Keys, ISecL: o.ISecL, Ensure: r.enforcement.Ensure, Wrote: r.metrics.wrote, Tainted: r.metrics.took,
		Later: func(j node.Job, priority int) { r.jobs.add(j, 0, priority) }, Evict: func(name string) { r.evict.ring(name, 0) },
	}
	r.enforcement.Entries = r.nodes.Entries
	r.exposure = &exposure.Reconciler{
		Client: r.client, Live: m.GetAPIReader(), Events: events, Now: o.Now, Wrote: r.metrics.wrote,
		OnNode: func(name string) { r.evict.ring(name, 0) }, OnClass: func(name string) { r.count.ring(name, 0) },
	}
	return r, nil
}

// open makes the controllers and connects them.
func (r *rooms) open() error {
	r.feed.OnChange(func(ctx context.Context, name string) {
		r.nodes.Observe(ctx, name) // the breaker sees it before anything is written
		r.jobs.look(name, node.Looking)
	})
	r.feed.OnSync(r.lookAtAll)
	r.board.OnNode(func(name string) {
		if e, ok := r.board.Get(name); ok {
			r.jobs.look(name, node.Priority(&e))
		}
		r.countClasses(name)
	})
	r.feed.OnChange(r.tagsOf)
	r.board.OnOutcome(func() { r.enforce.ring(v1alpha1.EnforcementName, 0) })
	for _, open := range []func() error{
		r.openNodes, r.openEnforcement, r.openEvictions, r.openExposure, r.openPending, r.openCounts, r.openJoins, r.openPolicies, r.openClasses, r.openTags, r.openISecL, r.openImages,
	} {
		if err := open(); err != nil {
			return err
		}
	}
	return r.m.Add(r.feed)
}

// lookAtAll rings for every node: AIAS may have forgotten some.
func (r *rooms) lookAtAll() {
	for _, e := range r.board.All() {
		r.jobs.look(e.Name, node.Looking)
	}
	r.policy.ring(v1alpha1.PolicyName, 0)
	r.tags.ring(allTags, settle)
}

// countClasses rings for the classes that a node has or had.
func (r *rooms) countClasses(name string) {
	e, ok := r.board.Get(name)
	if !ok {
		for _, other := range r.board.All() {
			for _, c := range other.Classes {
				r.count.ring(c, settle)
			}
		}
		return
	}
	for _, c := range e.Classes {
		r.count.ring(c, settle)
	}
	for c := range e.Lost {
		r.count.ring(c, settle)
	}
}

func (r *rooms) build(name string, workers int) *builder.Builder {
	return ctrl.NewControllerManagedBy(r.m).Named(name).WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: retries[reconcile.Request]()})
}

func (r *rooms) openNodes() error {
	named := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []node.Job {
		return []node.Job{{Node: o.GetName()}}
	})
	all := handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []node.Job {
		var jobs []node.Job
		for _, req := range r.requestsOfNodes(ctx) {
			jobs = append(jobs, node.Job{Node: req.Name})
		}
		return jobs
	})
	return builder.TypedControllerManagedBy[node.Job](r.m).Named("node").WithOptions(controller.TypedOptions[node.Job]{MaxConcurrentReconciles: nodeWorkers, RateLimiter: retries[node.Job]()}).
		Watches(&corev1.Node{}, named).Watches(&v1alpha1.NodeTrust{}, named).Watches(&v1alpha1.TrustClass{}, all).
		WatchesRawSource(r.jobs.source()).Complete(r.nodes)
}

func (r *rooms) requestsOfNodes(ctx context.Context) []reconcile.Request {
	var nodes corev1.NodeList
	if err := r.client.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
		r.o.Log.Error("list nodes", "error", err)
		return nil
	}
	var all []reconcile.Request
	for i := range nodes.Items {
		all = append(all, reconcile.Request{NamespacedName: types.NamespacedName{Name: nodes.Items[i].Name}})
	}
	return all
}

func (r *rooms) openEnforcement() error {
	return r.build("enforcement", 1).For(&v1alpha1.TrustEnforcement{}).WatchesRawSource(r.enforce.source()).Complete(r.enforcement)
}

func (r *rooms) openEvictions() error {
	onNode := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		name := o.(*corev1.Pod).Spec.NodeName
		if name == "" {
			return nil
		}
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: name}}}
	})
	inNamespace := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		var pods corev1.PodList
		if err := r.client.List(ctx, &pods, client.InNamespace(o.GetName()), client.UnsafeDisableDeepCopy); err != nil {
			return nil
		}
		var nodes []reconcile.Request
		for i := range pods.Items {
			req := reconcile.Request{NamespacedName: types.NamespacedName{Name: pods.Items[i].Spec.NodeName}}
			if req.Name != "" && !slices.Contains(nodes, req) {
				nodes = append(nodes, req)
			}
		}
		return nodes
	})
	core, err := coreClient(r.m)
	if err != nil {
		return err
	}
	ofClass := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []reconcile.Request { return r.requestsOfNodes(ctx) })
	return r.build("evict", 4).Watches(&corev1.Pod{}, onNode).Watches(&corev1.Namespace{}, inNamespace).Watches(&v1alpha1.TrustClass{}, ofClass).
		WatchesRawSource(r.evict.source()).
		Complete(&evict.Reconciler{
			Client: r.client, Core: core, Board: r.board, Events: r.m.GetEventRecorder(fieldOwner), Log: r.o.Log, Now: r.o.Now, Ensure: r.enforcement.Ensure, Count: r.metrics.evicted,
			Exposed: r.exposure.Of,
		})
}

// openPending watches the pods that no node has; the other cache holds those that run.
func (r *rooms) openPending() error {
	waiting, err := cache.New(r.m.GetConfig(), cache.Options{
		Scheme: r.m.GetScheme(), Mapper: r.m.GetRESTMapper(), HTTPClient: r.m.GetHTTPClient(),
		ByObject: map[client.Object]cache.ByObject{&corev1.Pod{}: {Transform: pending.Strip, Field: fields.ParseSelectorOrDie("spec.nodeName=,status.phase=" + string(corev1.PodPending))}},
	})
	if err != nil {
		return err
	}
	if err := r.m.Add(waiting); err != nil {
		return err
	}
	classy := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, p *corev1.Pod) []reconcile.Request {
		if len(evict.Classes(p, "")) == 0 {
			return nil
		}
		return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(p)}}
	})
	return r.build("pending", 1).WatchesRawSource(source.Kind(waiting, &corev1.Pod{}, classy)).Complete(&pending.Reconciler{
		Pods: waiting, Client: r.client, Board: r.board, Events: r.m.GetEventRecorder(fieldOwner), Now: r.o.Now, Ensure: r.enforcement.Ensure,
	})
}

// coreClient is a plain client of the core group.
func coreClient(m manager.Manager) (rest.Interface, error) {
	c := rest.CopyConfig(m.GetConfig())
	c.APIPath, c.GroupVersion = "/api", &corev1.SchemeGroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(m.GetScheme()).WithoutConversion()
	return rest.RESTClientForConfigAndClient(c, m.GetHTTPClient())
}

func (r *rooms) openCounts() error {
	return r.build("classes", 1).For(&v1alpha1.TrustClass{}).WatchesRawSource(r.count.source()).
		Complete(&counts{
			client: r.client, board: r.board, exposure: r.exposure, now: r.o.Now, ensure: r.enforcement.Ensure, wrote: r.metrics.wrote,
		})
}

func (r *rooms) openJoins() error {
	if !r.o.Join {
		return nil
	}
	r.feed.OnChange(r.ringJoins)
	return r.build("join", 2).For(&certificatesv1.CertificateSigningRequest{}).WatchesRawSource(r.join.source()).
		Complete(&join.Reconciler{Client: r.client, Feed: r.feed, Log: r.o.Log, Now: r.o.Now, Ensure: r.enforcement.Ensure, Wait: r.o.JoinWait, Count: r.metrics.joined})
}

// ringJoins rings for the open requests of a node that AIAS has news of.
func (r *rooms) ringJoins(ctx context.Context, name string) {
	if !r.board.Loaded() {
		return
	}
	var list certificatesv1.CertificateSigningRequestList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return
	}
	for i := range list.Items {
		if join.Node(&list.Items[i]) == name {
			r.join.ring(list.Items[i].Name, 0)
		}
	}
}
