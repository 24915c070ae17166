// Package enforcement keeps the TrustEnforcement named "cluster": it takes its settings, and the state that the breaker had before, and writes
// what the breaker decides. The state is in the object's status, so that a new leader goes on where the last one stopped.
package enforcement

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/board"
	"touchstone.dev/touchstone/internal/cluster/breaker"
	"touchstone.dev/touchstone/internal/cluster/feed"
)

const (
	fieldOwner = "trust-controller"
	patience   = 5 * time.Second        // for AIAS at the start, before what NodeTrusts say is looked at alone
	tick       = time.Second            // while a hold lasts
	pace       = 500 * time.Millisecond // between two writes that only count
)

// Reconciler keeps the object.
type Reconciler struct {
	Client client.Client
	Feed   *feed.Feed
	Board  *board.Board
	Events events.EventRecorder
	Log    *slog.Logger
	Now    func() time.Time
	// Entries looks at all nodes.
	Entries func(context.Context) ([]board.Entry, error)

	mu    sync.Mutex
	wrote time.Time
}

// Ensure loads the board, once: the settings, the breaker's state, and all nodes. Until then nothing is decided: the first node that is looked at would
// else be all there are.
func (r *Reconciler) Ensure(ctx context.Context) error {
	if r.Board.Loaded() {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Board.Loaded() {
		return nil
	}
	r.awaitFeed(ctx)
	te, err := r.get(ctx)
	if err != nil {
		return err
	}
	entries, err := r.Entries(ctx)
	if err != nil {
		return err
	}
	state := breaker.State{Held: te.Status.State == v1alpha1.StateHeld, HoldID: te.Status.HoldID}
	if te.Status.Since != nil {
		state.Since = te.Status.Since.Time
	}
	if state.HoldID == "" {
		state.Held = false
	}
	r.Board.Load(entries, rules(te), state)
	r.Log.Info("enforcement begins", "nodes", len(entries), "held", state.Held)
	return nil
}

// awaitFeed gives AIAS a moment: the results of nodes that attested while no controller ran are on their way.
func (r *Reconciler) awaitFeed(ctx context.Context) {
	timeout := time.After(patience)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !r.Feed.Synced() {
		select {
		case <-ctx.Done():
			return
		case <-timeout:
			return
		case <-poll.C:
		}
	}
}

// get returns the object, or an empty one when there is none.
func (r *Reconciler) get(ctx context.Context) (*v1alpha1.TrustEnforcement, error) {
	te := &v1alpha1.TrustEnforcement{}
	err := r.Client.Get(ctx, types.NamespacedName{Name: v1alpha1.EnforcementName}, te)
	return te, client.IgnoreNotFound(err)
}

// rules are the settings of the object; what is left out has its default.
func rules(te *v1alpha1.TrustEnforcement) board.Enforcement {
	e := board.Enforcement{Breaker: breaker.Default(), Stay: te.Spec.OtherPods == v1alpha1.Stay, Confirm: te.Spec.Confirm}
	b := te.Spec.Breaker
	if b.MaxShare > 0 {
		e.Breaker.MaxShare = int(b.MaxShare)
	}
	if b.MinNodes > 0 {
		e.Breaker.MinNodes = int(b.MinNodes)
	}
	if b.Window != nil && b.Window.Duration > 0 {
		e.Breaker.Window = b.Window.Duration
	}
	return e
}

// Reconcile takes the settings and writes the state.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if req.Name != v1alpha1.EnforcementName {
		return ctrl.Result{}, nil // the API server takes no other
	}
	if err := r.Ensure(ctx); err != nil {
		return ctrl.Result{}, err
	}
	te, err := r.get(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	r.Board.SetRules(rules(te))
	if r.Board.Outcome().Held {
		r.Board.Decide() // time passes
	}
	o := r.Board.Outcome()
	again := ctrl.Result{}
	if o.Held {
		again.RequeueAfter = tick
	}
	want := statusOf(&o)
	if same(&want, &te.Status) || te.UID == "" && !o.Held {
		return again, nil
	}
	turned := want.State != te.Status.State && (want.State == v1alpha1.StateHeld || te.Status.State != "") || want.HoldID != te.Status.HoldID
	if wait := pace - r.Now().Sub(r.wrote); !turned && wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	if err := r.write(ctx, te, want); err != nil {
		return ctrl.Result{}, err
	}
	r.wrote = r.Now()
	if turned {
		r.tell(te, &o)
	}
	return again, nil
}

func statusOf(o *breaker.Outcome) v1alpha1.TrustEnforcementStatus {
	s := v1alpha1.TrustEnforcementStatus{State: v1alpha1.StateEnforcing, HoldID: o.HoldID, HeldNodes: int32(len(o.Nodes)), Message: o.Message}
	if o.Held {
		s.State = v1alpha1.StateHeld
	}
	if !o.Since.IsZero() {
		s.Since = &metav1.Time{Time: o.Since}
	}
	return s
}

// same compares what is written; a message that is gone stays until there is another.
func same(a, b *v1alpha1.TrustEnforcementStatus) bool {
	if a.State == b.State && a.Message == "" {
		a.Message = b.Message
	}
	return a.State == b.State && a.HoldID == b.HoldID && a.HeldNodes == b.HeldNodes && a.Message == b.Message && a.Since.Equal(b.Since)
}

// write applies the status. A hold must be kept somewhere: when nobody has made the object, it is made.
func (r *Reconciler) write(ctx context.Context, te *v1alpha1.TrustEnforcement, s v1alpha1.TrustEnforcementStatus) error {
	if te.UID == "" {
		te.Name = v1alpha1.EnforcementName
		if err := r.Client.Create(ctx, te, client.FieldOwner(fieldOwner)); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("TrustEnforcement"))
	u.SetName(v1alpha1.EnforcementName)
	m := map[string]any{"state": s.State, "heldNodes": int64(s.HeldNodes), "message": s.Message, "holdID": s.HoldID}
	if s.Since != nil {
		m["since"] = s.Since.UTC().Format(time.RFC3339)
	}
	u.Object["status"] = m
	return r.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership, client.FieldOwner(fieldOwner))
}

func (r *Reconciler) tell(te *v1alpha1.TrustEnforcement, o *breaker.Outcome) {
	if o.Held {
		r.Log.Error("enforcement is held", "hold", o.HoldID, "nodes", len(o.Nodes), "message", o.Message)
		r.Events.Eventf(te, nil, corev1.EventTypeWarning, "EnforcementHeld", "Hold", "%s", o.Message)
		return
	}
	r.Log.Warn("enforcement goes on", "message", o.Message)
	r.Events.Eventf(te, nil, corev1.EventTypeNormal, "Enforcing", "Enforce", "%s", o.Message)
}
