package carry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/class"
	"touchstone.dev/touchstone/internal/protocol"
)

// Outcomes, for metrics.
const (
	ClassTaken   = "class taken"
	ClassRefused = "class refused"
)

// ClassStore is the part of AIAS that gives keys by trust classes, as an operator.Client is.
type ClassStore interface {
	Classes(ctx context.Context) ([]protocol.Class, error)
	SetClass(ctx context.Context, class protocol.Class) (*protocol.Class, error)
	DeleteClass(ctx context.Context, name string) error
}

// Classes carries what TrustClasses demand of a node, so that AIAS gives keys by the same words by which pods are placed.
type Classes struct {
	Client client.Client
	AIAS   ClassStore
	Log    *slog.Logger
	Count  func(outcome string)
}

// Reconcile carries one TrustClass, or takes back one that is gone. Keys keep what it said.
func (r *Classes) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var tc v1alpha1.TrustClass
	err := r.Client.Get(ctx, req.NamespacedName, &tc)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	again := againOnce
	if apierrors.IsNotFound(err) {
		again, err = 0, r.AIAS.DeleteClass(ctx, req.Name)
		var p *protocol.Problem
		if errors.As(err, &p) && p.Status == http.StatusNotFound {
			err = nil
		}
	} else {
		err = r.bring(ctx, &tc)
	}
	switch {
	case err == nil:
	case refusal(err):
		r.Count(ClassRefused)
		r.Log.Error("AIAS refuses a TrustClass: keys are not given by what it says now", "class", req.Name, "err", err)
	default:
		r.Log.Warn("a TrustClass could not be brought to AIAS: trying again", "class", req.Name, "err", err)
		again = againSoon
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// bring gives AIAS a class, unless that is what it has.
func (r *Classes) bring(ctx context.Context, tc *v1alpha1.TrustClass) error {
	want, err := json.Marshal(class.Conditions(&tc.Spec))
	if err != nil {
		return err
	}
	have, err := r.AIAS.Classes(ctx)
	if err != nil {
		return err
	}
	for i := range have {
		if have[i].Name == tc.Name && bytes.Equal(have[i].Conditions, want) {
			return nil
		}
	}
	if _, err := r.AIAS.SetClass(ctx, protocol.Class{Name: tc.Name, Conditions: want}); err != nil {
		return err
	}
	r.Count(ClassTaken)
	r.Log.Info("AIAS gives keys by the TrustClass", "class", tc.Name, "demands", string(want))
	return nil
}
