package webhook

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// enforced writes the condition Enforced of TrustClasses.
type enforced struct {
	client    client.Client
	installed *installed
}

// enforcedOwner is who the condition belongs to in server-side apply: the rest of the status has another writer.
const enforcedOwner = "trust-controller-admission"

func (e *enforced) setup(m manager.Manager) error {
	all := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []reconcile.Request {
		var classes v1alpha1.TrustClassList
		if err := e.client.List(ctx, &classes, client.UnsafeDisableDeepCopy); err != nil {
			return nil
		}
		var requests []reconcile.Request
		for i := range classes.Items {
			requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: classes.Items[i].Name}})
		}
		return requests
	})
	b := ctrl.NewControllerManagedBy(m).Named("admission-enforced").For(&v1alpha1.TrustClass{}).Watches(&v1alpha1.TrustAdmission{}, all)
	for _, o := range watched {
		b = b.Watches(o, all)
	}
	return b.WithOptions(controller.Options{SkipNameValidation: new(true)}).Complete(e)
}

// Reconcile looks at one class.
func (e *enforced) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	tc, table := &v1alpha1.TrustClass{}, &v1alpha1.TrustAdmission{}
	if err := e.client.Get(ctx, req.NamespacedName, tc); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if err := e.client.Get(ctx, types.NamespacedName{Name: v1alpha1.AdmissionName}, table); err != nil && !apierrors.IsNotFound(err) {
		return ctrl.Result{}, err
	}
	p := e.installed.find(ctx)
	if p == nil {
		p = tableProblem(table, tc)
	}
	if p == nil {
		p = imagesProblem(tc)
	}
	want := condition(tc, p, time.Now())
	if have := meta.FindStatusCondition(tc.Status.Conditions, want.Type); have != nil && *have == want {
		return ctrl.Result{}, nil
	}
	return ctrl.Result{}, client.IgnoreNotFound(e.write(ctx, tc.Name, want))
}

// condition is what a problem makes of the class's condition.
func condition(tc *v1alpha1.TrustClass, p *problem, now time.Time) metav1.Condition {
	c := metav1.Condition{
		Type: v1alpha1.ConditionEnforced, Status: metav1.ConditionTrue, Reason: "InPlace", Message: "policies, bindings, webhook and table are those of this version",
		ObservedGeneration: tc.Generation, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	}
	if p != nil {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, p.reason, p.text
	}
	if have := meta.FindStatusCondition(tc.Status.Conditions, c.Type); have != nil && have.Status == c.Status {
		c.LastTransitionTime = have.LastTransitionTime
	}
	return c
}

func (e *enforced) write(ctx context.Context, class string, c metav1.Condition) error {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&c)
	if err != nil {
		return err
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": []any{fields}}}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("TrustClass"))
	u.SetName(class)
	return e.client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership, client.FieldOwner(enforcedOwner))
}
