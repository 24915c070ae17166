package webhook

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"

	arv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/admission"
)

// installed knows whether what enforces classes in the API server is what this controller expects: policies, bindings and the webhook's
// configuration. When something is not, a pod of a class may have passed without what that demands: the webhook then refuses it.
type installed struct {
	client  client.Client
	objects []client.Object

	stale  atomic.Bool // something changed since found was
	mu     sync.Mutex
	looked bool
	found  *problem
}

// problem is what is wrong. It is an error whose text says what to do.
type problem struct {
	reason string // a word for conditions
	text   string
}

func (p *problem) Error() string { return p.text }

// Reasons of problems.
const (
	reasonMissing    = "Missing"
	reasonChanged    = "Changed"
	reasonUnreadable = "Unreadable"
	reasonTable      = "TableBehind"
	reasonKeys       = "KeysUnreadable"
	reasonCompliance = "ComplianceUnreadable"
)

const reinstall = "install the chart of Touchstone again"

// watched are the kinds of objects that are looked at. Roles only allow.
var watched = []client.Object{
	&arv1.ValidatingAdmissionPolicy{}, &arv1.ValidatingAdmissionPolicyBinding{}, &arv1.MutatingAdmissionPolicy{}, &arv1.MutatingAdmissionPolicyBinding{},
	&arv1.ValidatingWebhookConfiguration{},
}

// setup watches the objects.
func (i *installed) setup(ctx context.Context, m manager.Manager) error {
	changed := func(any) { i.stale.Store(true) }
	for _, o := range watched {
		informer, err := m.GetCache().GetInformer(ctx, o)
		if err != nil {
			return fmt.Errorf("watch %T: %w", o, err)
		}
		if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc: changed, UpdateFunc: func(any, any) { changed(nil) }, DeleteFunc: changed,
		}); err != nil {
			return err
		}
	}
	return nil
}

// problem says what is missing or other than expected; nil when all is well.
func (i *installed) problem(ctx context.Context) *problem {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stale.Swap(false) || !i.looked {
		i.found, i.looked = i.find(ctx), true
		if i.found != nil {
			i.stale.Store(true) // look again next time, whatever the reason
		}
	}
	return i.found
}

// find looks at every object.
func (i *installed) find(ctx context.Context) *problem {
	for _, want := range i.objects {
		if specOf(want) == nil {
			continue
		}
		have := reflect.New(reflect.TypeOf(want).Elem()).Interface().(client.Object)
		what := want.GetObjectKind().GroupVersionKind().Kind + " " + want.GetName()
		switch err := i.client.Get(ctx, client.ObjectKeyFromObject(want), have); {
		case apierrors.IsNotFound(err):
			return &problem{reasonMissing, what + " is missing: " + reinstall}
		case err != nil:
			return &problem{reasonUnreadable, fmt.Sprintf("%s cannot be read: %v", what, err)}
		case !equality.Semantic.DeepEqual(specOf(want), specOf(have)):
			return &problem{reasonChanged, what + " is not that of this version of Touchstone with these settings: " + reinstall}
		}
	}
	return nil
}

// specOf is what an object does; nil for one that enforces nothing. The certificates of a webhook are its replicas' own.
func specOf(o client.Object) any {
	switch o := o.(type) {
	case *arv1.ValidatingAdmissionPolicy:
		return o.Spec
	case *arv1.ValidatingAdmissionPolicyBinding:
		return o.Spec
	case *arv1.MutatingAdmissionPolicy:
		return o.Spec
	case *arv1.MutatingAdmissionPolicyBinding:
		return o.Spec
	case *arv1.ValidatingWebhookConfiguration:
		hooks := o.DeepCopy().Webhooks
		for i := range hooks {
			hooks[i].ClientConfig.CABundle = nil
		}
		return hooks
	}
	return nil
}

// tableProblem says whether the policies would hold a pod of a class against other rules than those of the class; nil when they are the same.
func tableProblem(table *v1alpha1.TrustAdmission, class *v1alpha1.TrustClass) *problem {
	rules, known := table.Classes[class.Name]
	switch {
	case !class.DeletionTimestamp.IsZero():
		return &problem{reasonTable, "the TrustClass is being deleted"}
	case !known:
		return &problem{reasonTable, "the TrustAdmission " + v1alpha1.AdmissionName + " does not have the class yet: the trust-controller that leads writes it"}
	case !equality.Semantic.DeepEqual(rules, admission.Rules(&class.Spec)):
		return &problem{reasonTable, "the TrustAdmission " + v1alpha1.AdmissionName + " has other rules than the class: the trust-controller that leads writes it; is one running, and of this version?"}
	}
	return nil
}
