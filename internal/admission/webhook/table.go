package webhook

import (
	"context"
	"log/slog"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/admission"
)

// table writes the TrustAdmission: the classes as the policies read them.
type table struct {
	client client.Client
	log    *slog.Logger
}

func (t *table) setup(m manager.Manager) error {
	one := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: v1alpha1.AdmissionName}}}
	})
	// The first look does not wait for a class: without any, the table is there and empty.
	begin := manager.RunnableFunc(func(ctx context.Context) error {
		_, err := t.Reconcile(ctx, reconcile.Request{})
		if err != nil {
			t.log.Warn("admission: the table of classes cannot be written yet", "error", err)
		}
		return nil
	})
	if err := m.Add(begin); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(m).Named("admission-table").
		Watches(&v1alpha1.TrustClass{}, one).Watches(&v1alpha1.TrustAdmission{}, one).
		WithOptions(controller.Options{SkipNameValidation: new(true)}).
		Complete(t)
}

// Reconcile writes the table when it differs.
func (t *table) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	var classes v1alpha1.TrustClassList
	if err := t.client.List(ctx, &classes); err != nil {
		return ctrl.Result{}, err
	}
	want, have := admission.Table(classes.Items), &v1alpha1.TrustAdmission{}
	err := t.client.Get(ctx, client.ObjectKeyFromObject(want), have)
	switch {
	case apierrors.IsNotFound(err):
		err = t.client.Create(ctx, want)
	case err != nil || equality.Semantic.DeepEqual(want.Classes, have.Classes):
		return ctrl.Result{}, err
	default:
		have.Classes = want.Classes
		err = t.client.Update(ctx, have)
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) { // the cache is behind: its event comes
		return ctrl.Result{RequeueAfter: retry}, nil
	}
	if err == nil {
		t.log.Info("admission: the table of classes is written", "classes", len(want.Classes))
	}
	return ctrl.Result{}, err
}
