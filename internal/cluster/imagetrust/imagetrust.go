// Package imagetrust keeps an ImageTrust for each image that pods on nodes use whose classes ask for scans: what AIAS's newest scans say of it, and which classes
// would take it now. Those of other pods have none: nobody asked, and a cluster has thousands. It is for people and alarms; admission does not read it.
//
// AIAS tells of no new scan by itself, so each image is asked about once in a while, and when a class that takes it will take it no longer.
package imagetrust

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/evict"
	"touchstone.dev/touchstone/internal/cluster/imagescans"
)

// Index is the cache's index of pods by the ImageTrusts of their images.
const Index = "images"

// Bounds.
const (
	maxObjects = 5000
	maxNames   = 8 // names of one digest that are judged: waivers may be for one
	maxClasses = 64
	maxScans   = 16
	maxText    = 900
)

const (
	look  = time.Minute // between two questions about an image
	retry = 15 * time.Second
)

// Keys are the names of the ImageTrusts of a pod's images, by its classes' own label and selector; none of a pod without a class.
func Keys(p *corev1.Pod) []string {
	if len(evict.Classes(p, "")) == 0 {
		return nil
	}
	var keys []string
	for _, image := range imagescans.Names(p) {
		if _, digest, err := imagescans.Split(image); err == nil {
			keys = append(keys, v1alpha1.ImageTrustName(digest))
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Judge says what a gate says of an image, as imagescans.Scans does.
type Judge interface {
	Judge(ctx context.Context, g *imagescans.Gate, image string) (*imagescans.Verdict, error)
}

// Reconciler keeps the ImageTrusts.
type Reconciler struct {
	Client client.Client // reads from the cache
	Scans  Judge
	Events events.EventRecorder
	Log    *slog.Logger
	Now    func() time.Time
	Owner  string // of server-side apply
	// Wrote is told of each write to the API server.
	Wrote func(resource string)
}

// Reconcile looks at one image.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	have := &v1alpha1.ImageTrust{}
	err := r.Client.Get(ctx, req.NamespacedName, have)
	there := err == nil
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	var classes v1alpha1.TrustClassList
	if err := r.Client.List(ctx, &classes, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, err
	}
	asking := map[string]*v1alpha1.ComplianceRequirement{}
	for i := range classes.Items {
		if want := classes.Items[i].Spec.Images.Compliance; want != nil {
			asking[classes.Items[i].Name] = want
		}
	}
	u, err := r.usage(ctx, req.Name, asking)
	if err != nil {
		return ctrl.Result{}, err
	}
	if u.pods == 0 {
		if !there {
			return ctrl.Result{}, nil
		}
		r.Wrote("imagetrusts")
		return ctrl.Result{}, client.IgnoreNotFound(r.Client.Delete(ctx, have))
	}
	if !there {
		if full, err := r.full(ctx); full || err != nil {
			return ctrl.Result{RequeueAfter: look}, err
		}
	}
	want, again := r.judge(ctx, u, asking, &have.Status)
	if there && equality.Semantic.DeepEqual(want, have.Status) {
		return ctrl.Result{RequeueAfter: again}, nil
	}
	if err := r.write(ctx, req.Name, there, &want); err != nil {
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // deleted meanwhile: its event comes
			return ctrl.Result{RequeueAfter: time.Second}, nil
		}
		return ctrl.Result{}, err
	}
	r.tell(have, &want)
	return ctrl.Result{RequeueAfter: again}, nil
}

// full tells whether there are as many as may be.
func (r *Reconciler) full(ctx context.Context) (bool, error) {
	var all v1alpha1.ImageTrustList
	if err := r.Client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return false, err
	}
	if len(all.Items) < maxObjects {
		return false, nil
	}
	r.Log.Warn("more images are in use than ImageTrusts are kept of", "most", maxObjects)
	return true, nil
}

// usage is who uses an image.
type usage struct {
	pods  int32
	names []string        // of the image, sorted
	by    map[string]bool // classes of those pods that ask for scans
}

func (r *Reconciler) usage(ctx context.Context, key string, asking map[string]*v1alpha1.ComplianceRequirement) (*usage, error) {
	var pods corev1.PodList
	if err := r.Client.List(ctx, &pods, client.MatchingFields{Index: key}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	u := &usage{by: map[string]bool{}}
	names := map[string]bool{}
	for i := range pods.Items {
		p, asked := &pods.Items[i], false
		for _, class := range evict.Classes(p, "") {
			if asking[class] != nil {
				u.by[class], asked = true, true
			}
		}
		if !asked {
			continue
		}
		u.pods++
		for _, image := range imagescans.Names(p) {
			if _, digest, err := imagescans.Split(image); err == nil && v1alpha1.ImageTrustName(digest) == key {
				names[image] = true
			}
		}
	}
	u.names = slices.Sorted(maps.Keys(names))
	u.names = u.names[:min(len(u.names), maxNames)]
	return u, nil
}

// write applies an ImageTrust: first the object, when there is none, then its status.
func (r *Reconciler) write(ctx context.Context, name string, there bool, s *v1alpha1.ImageTrustStatus) error {
	blank := func() *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: map[string]any{}}
		u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ImageTrust"))
		u.SetName(name)
		return u
	}
	if !there {
		r.Wrote("imagetrusts")
		if err := r.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(blank()), client.ForceOwnership, client.FieldOwner(r.Owner)); err != nil {
			return err
		}
	}
	u := blank()
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(s)
	if err != nil {
		return err
	}
	u.Object["status"] = m
	r.Wrote("imagetrusts/status")
	return r.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership, client.FieldOwner(r.Owner))
}

// tell says when an image that pods use is refused from now on, and when that is over.
func (r *Reconciler) tell(have *v1alpha1.ImageTrust, s *v1alpha1.ImageTrustStatus) {
	now, before := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionAccepted), meta.FindStatusCondition(have.Status.Conditions, v1alpha1.ConditionAccepted)
	if now == nil || before == nil || now.Status == before.Status || have.UID == "" {
		return
	}
	switch now.Status {
	case metav1.ConditionFalse:
		r.Events.Eventf(have, nil, corev1.EventTypeWarning, "ImageRefused", "Judge", "%s: %s", s.Image, now.Message)
	case metav1.ConditionTrue:
		r.Events.Eventf(have, nil, corev1.EventTypeNormal, "ImageAccepted", "Judge", "%s", s.Image)
	case metav1.ConditionUnknown:
	}
}

// bounded cuts a text where it is too long for a status.
func bounded(s string) string {
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return s
}
