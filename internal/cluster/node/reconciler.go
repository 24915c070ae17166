// Package node carries verdicts to the node objects of Kubernetes: labels, taints, a condition, and the NodeTrust of each.
//
// A fall is seen on the goroutine of the stream, before any is written: the breaker knows of all falls of a burst when the first one
// is carried out. Placement comes first: one write closes a node, and only when no node waits to be closed is told what happened (Job). Whatever is written is made anew from the board each time, so that a lost write, a spoofed label or a removed taint is put right
// by the next look.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/board"
	"touchstone.dev/touchstone/internal/cluster/feed"
	"touchstone.dev/touchstone/internal/cluster/verdict"
)

// Reconciler keeps node objects as the board has them.
type Reconciler struct {
	Client client.Client // reads from the cache
	Live   client.Reader // reads from the API server
	Feed   *feed.Feed
	Board  *board.Board
	Events events.EventRecorder
	Log    *slog.Logger
	Now    func() time.Time
	// AllowMissingUUID is verdict.Input.AllowMissingUUID.
	AllowMissingUUID bool
	// Keys are those that AIAS signs results with, as they were kept; they count until AIAS is heard.
	Keys func() ([]byte, error)
	// ISecL writes what users of Intel SecL-DC build on, too.
	ISecL bool
	// Ensure is called before anything is decided: it loads the board, once.
	Ensure func(context.Context) error
	// Wrote is told of each write to the API server; Tainted how long it took from an event of AIAS until the node object had it.
	Wrote   func(resource string)
	Tainted func(time.Duration)

	// Later lets a job be done, as soon as none of a higher priority waits; Evict lets a node's pods be looked at.
	Later func(Job, int)
	Evict func(name string)

	started time.Time
	once    sync.Once
	gone    graves
}

// Reconcile does one job.
func (r *Reconciler) Reconcile(ctx context.Context, job Job) (ctrl.Result, error) {
	if err := r.Ensure(ctx); err != nil {
		return ctrl.Result{}, err
	}
	f, err := r.facts(ctx, job.Node)
	if err != nil {
		return ctrl.Result{}, err
	}
	if f.node == nil {
		return ctrl.Result{}, r.forget(ctx, job.Node, f.trust)
	}
	if f.node.DeletionTimestamp != nil {
		return ctrl.Result{}, nil
	}
	if f.trust != nil && f.trust.Status.Node != nil && f.trust.Status.Node.UID != f.node.UID {
		r.gone.bury(job.Node, f.trust.Status.Node, f.now) // its NodeTrust may be collected at any moment
	}
	e := r.look(f)
	have, want := record(f, &e, r.Board.Held(job.Node))
	if job.Step == Tell {
		return ctrl.Result{}, r.tellOf(ctx, f, &e, want)
	}
	shown := have
	if want != nil {
		shown = want
	}
	left, err := r.place(ctx, f, &e, shown, job.Step == Execute)
	if left {
		r.Later(Job{Node: job.Node, Step: Execute}, Leaving)
	} else {
		r.Evict(job.Node) // also when the node object cannot be changed
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("label and taint: %w", err)
	}
	r.Later(Job{Node: job.Node, Step: Tell}, Telling)
	if job.Step == Execute {
		return ctrl.Result{}, nil
	}
	return ctrl.Result{RequeueAfter: r.again(&e), Priority: ptr.To(Looking)}, nil
}

// Observe looks at a node and puts what it sees on the board, without writing anything: it is called for each event of AIAS, at once.
func (r *Reconciler) Observe(ctx context.Context, name string) {
	if !r.Board.Loaded() {
		return
	}
	if f, err := r.facts(ctx, name); err == nil && f.node != nil {
		r.look(f)
	}
}

// Entries looks at all nodes, to load the board with.
func (r *Reconciler) Entries(ctx context.Context) ([]board.Entry, error) {
	var nodes corev1.NodeList
	if err := r.Client.List(ctx, &nodes); err != nil {
		return nil, err
	}
	var entries []board.Entry
	for i := range nodes.Items {
		f, err := r.facts(ctx, nodes.Items[i].Name)
		if err != nil {
			return nil, err
		}
		if f.node != nil {
			entries = append(entries, evaluate(f, nil))
		}
	}
	return entries, nil
}

func (r *Reconciler) look(f *facts) board.Entry {
	return r.Board.Set(f.node.Name, func(old *board.Entry) board.Entry { return evaluate(f, old) })
}

// facts reads what is known of a node; its node is nil when there is no such object.
func (r *Reconciler) facts(ctx context.Context, name string) (*facts, error) {
	r.once.Do(func() { r.started = r.Now() })
	f := &facts{now: r.Now(), allow: r.AllowMissingUUID}
	var n corev1.Node
	switch err := r.Client.Get(ctx, types.NamespacedName{Name: name}, &n); {
	case err == nil:
		f.node = &n
	case !apierrors.IsNotFound(err):
		return nil, err
	}
	var nt v1alpha1.NodeTrust
	switch err := r.Client.Get(ctx, types.NamespacedName{Name: name}, &nt); {
	case err == nil:
		f.trust = &nt
	case !apierrors.IsNotFound(err):
		return nil, err
	}
	var classes v1alpha1.TrustClassList
	if err := r.Client.List(ctx, &classes); err != nil {
		return nil, err
	}
	f.classes = classes.Items
	f.gone = r.gone.of(name)
	f.said = r.said(name, f.trust)
	return f, nil
}

// said is what AIAS said last of a node.
func (r *Reconciler) said(name string, nt *v1alpha1.NodeTrust) verdict.Said {
	if said, ok := r.Feed.Get(name); ok {
		return said
	}
	if r.Feed.Synced() {
		return verdict.Said{Removed: true}
	}
	if r.Now().Sub(r.started) > recordedTime {
		return verdict.Said{Reason: "AIAS has not been heard since the controller started: is it running, and may the controller read its results?"}
	}
	return recorded(nt, r.Keys, r.Now())
}

// forget is for a node object that is no more. Its NodeTrust goes with it by its owner reference; that takes a while, and a clock that stands still
// must not keep a verdict on nothing.
func (r *Reconciler) forget(ctx context.Context, name string, nt *v1alpha1.NodeTrust) error {
	r.Board.Remove(name)
	if nt == nil {
		return nil
	}
	r.gone.bury(name, nt.Status.Node, r.Now())
	r.Wrote("nodetrusts")
	return client.IgnoreNotFound(r.Client.Delete(ctx, nt, client.Preconditions{UID: &nt.UID}))
}

// record is what the NodeTrust of a node says, and what it is to say; nil when that is not worth a write.
func record(f *facts, e *board.Entry, held bool) (have, want *v1alpha1.NodeTrustStatus) {
	have = &v1alpha1.NodeTrustStatus{}
	if f.trust != nil {
		have = &f.trust.Status
	}
	s := status(e, held, f.said.Result, have, f.now)
	if owned(f.trust, f.node.UID) && !news(&s, have, f.now) {
		return have, nil
	}
	return have, &s
}

// tellOf writes what tells of a node: its NodeTrust, its condition, an event.
func (r *Reconciler) tellOf(ctx context.Context, f *facts, e *board.Entry, want *v1alpha1.NodeTrustStatus) error {
	if want != nil {
		if err := r.write(ctx, f.node, f.trust, *want); err != nil {
			return fmt.Errorf("write NodeTrust: %w", err)
		}
	}
	return r.carryCondition(ctx, f, e)
}

// place patches labels and taints, in one write: its taints are one list, so that server-side apply would own others', too. NoExecute is added only when execute
// is true, or no other node fell; else left says that this is to be done. When someone else was faster the object is read again, from the API server.
func (r *Reconciler) place(ctx context.Context, f *facts, e *board.Entry, shown *v1alpha1.NodeTrustStatus, execute bool) (left bool, err error) {
	n, stay, held := f.node, r.Board.Rules().Stay, r.Board.Held(f.node.Name)
	for try := 0; ; try++ {
		w := wanted(e, held, stay)
		if r.ISecL {
			w.isecl(e, shown.ExpiresAt, shown.Result, held, stay)
		} else {
			w.noISecL(n)
		}
		if !execute && r.burst() {
			left = w.withhold(n)
		}
		patch := w.patch(n, r.Now())
		if patch == nil {
			return left, nil
		}
		err := r.Client.Patch(ctx, &corev1.Node{ObjectMeta: n.ObjectMeta}, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldOwner))
		r.Wrote("nodes")
		if err == nil {
			if !execute && !f.said.Received.IsZero() && e.Since.Add(time.Minute).After(r.Now()) {
				r.Tainted(r.Now().Sub(f.said.Received))
			}
			return left, nil
		}
		if !apierrors.IsConflict(err) || try == 5 {
			return false, err
		}
		fresh := &corev1.Node{}
		if err := r.Live.Get(ctx, types.NamespacedName{Name: n.Name}, fresh); err != nil {
			return false, err
		}
		if fresh.UID != n.UID {
			return false, err // another object: its own event comes
		}
		n = fresh
	}
}

// burst says whether more nodes fell at once than may always fall: then the breaker may still have to see some.
func (r *Reconciler) burst() bool {
	return r.Board.Outcome().Fallen > r.Board.Rules().Breaker.MinNodes
}

// carryCondition sets the node's condition, and tells of a change in an event.
func (r *Reconciler) carryCondition(ctx context.Context, f *facts, e *board.Entry) error {
	patch := conditionPatch(f.node, e, f.now)
	if patch == nil {
		return nil
	}
	r.Wrote("nodes/status")
	n := &corev1.Node{ObjectMeta: f.node.ObjectMeta}
	if err := r.Client.Status().Patch(ctx, n, client.RawPatch(types.StrategicMergePatchType, patch), client.FieldOwner(FieldOwner)); apierrors.IsNotFound(err) {
		return nil // the node went meanwhile: its own event comes
	} else if err != nil {
		return fmt.Errorf("set the condition: %w", err)
	}
	r.tell(f, e)
	return nil
}

// tell says in an event and in the log that trust came or went.
func (r *Reconciler) tell(f *facts, e *board.Entry) {
	for _, c := range f.node.Status.Conditions {
		if c.Type == v1alpha1.TrustedCondition && (c.Status == corev1.ConditionTrue) == e.Verdict.Trusted {
			return // only its words changed
		}
	}
	n := &corev1.Node{TypeMeta: f.node.TypeMeta, ObjectMeta: f.node.ObjectMeta}
	if e.Verdict.Trusted {
		r.Log.Info("node is trusted", "node", e.Name, "classes", e.Classes)
		r.Events.Eventf(n, nil, corev1.EventTypeNormal, "Trusted", "Attest", "AIAS trusts the node; it meets %d trust classes", len(e.Classes))
		return
	}
	r.Log.Warn("node is not trusted", "node", e.Name, "code", e.Verdict.Code, "reason", e.Verdict.Reason)
	r.Events.Eventf(n, nil, corev1.EventTypeWarning, "Untrusted", "Attest", "%s", e.Verdict.Reason)
}

// again is when a node must be looked at though nothing happens.
func (r *Reconciler) again(e *board.Entry) time.Duration {
	var next time.Time
	for _, t := range []time.Time{e.Until, r.recordedEnd()} {
		if t.After(r.Now()) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if next.IsZero() {
		return 0
	}
	return max(next.Sub(r.Now()), time.Millisecond)
}

// recordedEnd is when what NodeTrusts say stops to count; zero when AIAS has been heard.
func (r *Reconciler) recordedEnd() time.Time {
	if r.Feed.Synced() {
		return time.Time{}
	}
	return r.started.Add(recordedTime + time.Second)
}
