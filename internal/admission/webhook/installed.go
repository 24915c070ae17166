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
)

// installed knows whether the policies in the API server are those that this controller expects. When one is not, a pod of a class may have
// passed without what that policy demands: the webhook then refuses it.
type installed struct {
	client  client.Client
	objects []client.Object

	stale  atomic.Bool // something changed since problem was found
	mu     sync.Mutex
	looked bool
	text   string
}

// setup watches the policies and their bindings.
func (i *installed) setup(ctx context.Context, m manager.Manager) error {
	changed := func(any) { i.stale.Store(true) }
	for _, o := range []client.Object{
		&arv1.ValidatingAdmissionPolicy{}, &arv1.ValidatingAdmissionPolicyBinding{}, &arv1.MutatingAdmissionPolicy{}, &arv1.MutatingAdmissionPolicyBinding{},
	} {
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

// problem says which policy is missing or other than expected; empty when all is well.
func (i *installed) problem(ctx context.Context) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stale.Swap(false) || !i.looked {
		i.text, i.looked = i.find(ctx), true
	}
	return i.text
}

func (i *installed) find(ctx context.Context) string {
	for _, want := range i.objects {
		have := reflect.New(reflect.TypeOf(want).Elem()).Interface().(client.Object)
		kind := want.GetObjectKind().GroupVersionKind().Kind
		switch want.(type) {
		case *arv1.ValidatingAdmissionPolicy, *arv1.ValidatingAdmissionPolicyBinding, *arv1.MutatingAdmissionPolicy, *arv1.MutatingAdmissionPolicyBinding:
		default:
			continue // roles only allow; the webhook's configuration led here
		}
		if err := i.client.Get(ctx, client.ObjectKeyFromObject(want), have); err != nil {
			i.stale.Store(true) // look again next time, whatever the reason
			if apierrors.IsNotFound(err) {
				return fmt.Sprintf("%s %s is missing", kind, want.GetName())
			}
			return fmt.Sprintf("%s %s cannot be read: %v", kind, want.GetName(), err)
		}
		if !equal(want, have) {
			return fmt.Sprintf("%s %s is not that of this version of Touchstone", kind, want.GetName())
		}
	}
	return ""
}

// equal compares what a policy does. Who may bind pods is a choice of the installation.
func equal(want, have client.Object) bool {
	switch w := want.(type) {
	case *arv1.ValidatingAdmissionPolicy:
		h := have.(*arv1.ValidatingAdmissionPolicy)
		if w.Name == "bindings.touchstone.dev" {
			return true
		}
		return equality.Semantic.DeepEqual(w.Spec, h.Spec)
	case *arv1.ValidatingAdmissionPolicyBinding:
		return equality.Semantic.DeepEqual(w.Spec, have.(*arv1.ValidatingAdmissionPolicyBinding).Spec)
	case *arv1.MutatingAdmissionPolicy:
		return equality.Semantic.DeepEqual(w.Spec, have.(*arv1.MutatingAdmissionPolicy).Spec)
	case *arv1.MutatingAdmissionPolicyBinding:
		return equality.Semantic.DeepEqual(w.Spec, have.(*arv1.MutatingAdmissionPolicyBinding).Spec)
	}
	return false
}
