// Package evict removes pods of a TrustClass from nodes that do not meet it: those that met it and fell, and those that never did, however the pod got
// there. It removes pods that nothing isolates any more, too (package exposure finds them).
//
// It asks for evictions, so that PodDisruptionBudgets are respected, and asks again while they refuse. When the class's grace is over it deletes. No
// deadline lives in memory only: grace begins when the node lost the class (NodeTrust), when the pod came, or when a hold of the breaker
// ended (TrustEnforcement), whichever was last.
package evict

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/board"
	"touchstone.dev/touchstone/internal/cluster/class"
)

// NodeIndex is the cache's index of pods by their node.
const NodeIndex = "spec.nodeName"

// defaultGrace is that of a class that says none.
const defaultGrace = 30 * time.Second

// askTime is how long the API server may take for one eviction.
const askTime = 5 * time.Second

// Outcomes, for metrics.
const (
	Evicted = "evicted"
	Refused = "refused"
	Forced  = "forced"
	Stuck   = "stuck"
)

// Reconciler looks at the pods of one node.
type Reconciler struct {
	Client client.Client
	// Core is a client of the core group. Evictions go through it, because the other one waits and repeats by itself when it is told to come again later, and
	// all other pods of the node would wait, too.
	Core   rest.Interface
	Board  *board.Board
	Events events.EventRecorder
	Log    *slog.Logger
	Now    func() time.Time
	// Ensure is called before anything is decided: it loads the board, once.
	Ensure func(context.Context) error
	// Exposed knows the pods that nothing isolates any more.
	Exposed func(namespace string, uid types.UID) (Exposure, bool)
	// Count is told of each outcome.
	Count func(outcome string)

	mu   sync.Mutex
	told map[types.UID]time.Time // pods whose trouble was told
}

// Reconcile looks at the pods of the node of this name.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if err := r.Ensure(ctx); err != nil {
		return ctrl.Result{}, err
	}
	e, ok := r.Board.Get(req.Name)
	if !ok || r.Board.Held(req.Name) {
		return ctrl.Result{}, nil // it rings when that changes
	}
	var pods corev1.PodList
	if err := r.Client.List(ctx, &pods, client.MatchingFields{NodeIndex: req.Name}); err != nil {
		return ctrl.Result{}, err
	}
	var next time.Duration
	var failed error
	for i := range pods.Items {
		again, err := r.pod(ctx, &pods.Items[i], &e)
		if err != nil {
			failed = err
		}
		if again > 0 && (next == 0 || again < next) {
			next = again
		}
	}
	if failed != nil {
		return ctrl.Result{}, failed
	}
	return ctrl.Result{RequeueAfter: next}, nil
}

// leave is why a pod must leave.
type leave struct {
	class  string
	reason string // of events
	why    string
	since  time.Time
	grace  time.Duration
}

// pod looks at one pod, and says when to look at it again.
func (r *Reconciler) pod(ctx context.Context, p *corev1.Pod, e *board.Entry) (time.Duration, error) {
	if over(p) {
		return 0, nil
	}
	namespaceClass, err := r.namespaceClass(ctx, p.Namespace)
	if err != nil {
		return 0, err
	}
	l, err := r.mustLeave(ctx, p, Classes(p, namespaceClass), e)
	if l == nil || err != nil {
		return 0, err
	}
	if mirror(p) {
		r.tellOnce(p.UID, func() {
			r.Count(Stuck)
			r.Events.Eventf(nodeOf(e), nil, corev1.EventTypeWarning, "StaticPodStays", "Evict", "static pod %s/%s of class %s cannot be removed through the API: %s", p.Namespace, p.Name, l.class, l.why)
		})
		return 0, nil
	}
	return r.act(ctx, p, e, l)
}

func (r *Reconciler) namespaceClass(ctx context.Context, name string) (string, error) {
	var ns corev1.Namespace
	err := r.Client.Get(ctx, types.NamespacedName{Name: name}, &ns)
	return ns.Labels[v1alpha1.ClassLabel], client.IgnoreNotFound(err)
}

// mustLeave returns why the pod must leave its node; nil when it may stay. Of several classes the shortest time counts.
func (r *Reconciler) mustLeave(ctx context.Context, p *corev1.Pod, classes []string, e *board.Entry) (*leave, error) {
	var first *leave
	exposure, exposed := r.Exposed(p.Namespace, p.UID)
	for _, name := range classes {
		meets := slices.Contains(e.Classes, name)
		if meets && !(exposed && slices.Contains(exposure.Leave, name)) {
			continue
		}
		var tc v1alpha1.TrustClass
		switch err := r.Client.Get(ctx, types.NamespacedName{Name: name}, &tc); {
		case apierrors.IsNotFound(err):
			// Nobody fell: the class was taken away. New pods are refused; those that run are left to whoever took it.
			r.tellOnce(p.UID, func() {
				r.Events.Eventf(p, nil, corev1.EventTypeWarning, "NoTrustClass", "Evict", "there is no TrustClass %s: nothing is known of what the pod demands", name)
			})
			continue
		case err != nil:
			return nil, err
		}
		if !meets && tc.Spec.Eviction.OnFall == v1alpha1.Stay {
			continue
		}
		l := r.leaveOf(&tc, p, e)
		if meets {
			l = r.timed(&tc, p, &leave{class: name, reason: "IsolationLost", since: exposure.Since, why: fmt.Sprintf("class %s wants the pod isolated: %s", name, exposure.Missing)})
		}
		if first == nil || l.since.Add(l.grace).Before(first.since.Add(first.grace)) {
			first = l
		}
	}
	return first, nil
}

func (r *Reconciler) leaveOf(tc *v1alpha1.TrustClass, p *corev1.Pod, e *board.Entry) *leave {
	answer := class.Meets(&tc.Spec, e.Class, r.Now())
	return r.timed(tc, p, &leave{
		class: tc.Name, reason: "TrustLost", since: e.Lost[tc.Name], why: fmt.Sprintf("node %s does not meet class %s: %s", e.Name, tc.Name, strings.Join(answer.Missing, "; ")),
	})
}

// timed completes a leave: the grace of the class, which begins when the pod came, or a hold ended, if that was later.
func (r *Reconciler) timed(tc *v1alpha1.TrustClass, p *corev1.Pod, l *leave) *leave {
	l.grace = defaultGrace
	if len(l.why) > 900 {
		l.why = strings.ToValidUTF8(l.why[:900], "") + "..."
	}
	if g := tc.Spec.Eviction.Grace; g != nil {
		l.grace = max(g.Duration, 0)
	}
	for _, t := range []time.Time{started(p), r.holdEnd()} {
		if t.After(l.since) {
			l.since = t
		}
	}
	return l
}

// holdEnd is when the breaker's last hold ended: what was held until then has its grace from then on.
func (r *Reconciler) holdEnd() time.Time {
	if o := r.Board.Outcome(); !o.Held {
		return o.Since
	}
	return time.Time{}
}

// act carries out one step.
func (r *Reconciler) act(ctx context.Context, p *corev1.Pod, e *board.Entry, l *leave) (time.Duration, error) {
	s := plan(p, l.since, l.grace, r.Now())
	switch s.act {
	case wait:
		return s.again, nil
	case force:
		err := r.Client.Delete(ctx, p, client.GracePeriodSeconds(0), client.Preconditions{UID: &p.UID})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return 0, nil
		}
		if err != nil {
			return 0, fmt.Errorf("delete pod %s/%s: %w", p.Namespace, p.Name, err)
		}
		r.tell(p, e, l, Forced, "deleted, its grace of "+l.grace.String()+" is over")
		return 0, nil
	}
	eviction := &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace},
		DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: &s.seconds, Preconditions: metav1.NewUIDPreconditions(string(p.UID))},
	}
	switch err := r.ask(ctx, eviction); {
	case err == nil:
		r.tell(p, e, l, Evicted, "evicted")
		return max(l.since.Add(l.grace).Sub(r.Now()), time.Millisecond), nil
	case apierrors.IsNotFound(err):
		return 0, nil
	case apierrors.IsConflict(err): // somebody wrote to it in that moment, or another pod has its name now
		return s.again, nil
	case apierrors.IsTooManyRequests(err) || apierrors.IsInternalError(err):
		// A budget refuses it, or several budgets select it, which the eviction API cannot do.
		r.Count(Refused)
		r.tellOnce(p.UID, func() {
			r.Events.Eventf(p, nodeOf(e), corev1.EventTypeWarning, "EvictionRefused", "Evict", "%s; its eviction is refused until now (%s), and forced at %s",
				l.why, err.Error(), l.since.Add(l.grace).UTC().Format(time.RFC3339))
		})
		return s.again, nil
	default:
		return 0, fmt.Errorf("evict pod %s/%s: %w", p.Namespace, p.Name, err)
	}
}

// ask asks for an eviction, once.
func (r *Reconciler) ask(ctx context.Context, e *policyv1.Eviction) error {
	return r.Core.Post().Namespace(e.Namespace).Resource("pods").Name(e.Name).SubResource("eviction").MaxRetries(0).Timeout(askTime).Body(e).Do(ctx).Error()
}

func (r *Reconciler) tell(p *corev1.Pod, e *board.Entry, l *leave, outcome, what string) {
	r.Count(outcome)
	r.Log.Warn("pod leaves its node", "pod", p.Namespace+"/"+p.Name, "node", e.Name, "class", l.class, "how", what, "why", l.why)
	r.Events.Eventf(p, nodeOf(e), corev1.EventTypeWarning, l.reason, "Evict", "%s: %s", what, l.why)
	r.Events.Eventf(nodeOf(e), p, corev1.EventTypeWarning, l.reason, "Evict", "pod %s/%s is %s: %s", p.Namespace, p.Name, what, l.why)
}

// tellOnce says something about a pod once.
func (r *Reconciler) tellOnce(uid types.UID, fn func()) {
	const keep = 10 * time.Minute
	r.mu.Lock()
	now := r.Now()
	if r.told == nil {
		r.told = map[types.UID]time.Time{}
	}
	for k, t := range r.told {
		if now.Sub(t) > keep {
			delete(r.told, k)
		}
	}
	_, done := r.told[uid]
	if !done {
		r.told[uid] = now
	}
	r.mu.Unlock()
	if !done {
		fn()
	}
}

func nodeOf(e *board.Entry) *corev1.Node {
	return &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: e.Name, UID: e.UID}}
}
