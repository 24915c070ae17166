package isecl

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
)

// The one object that isecl knows.
const (
	Namespace = "default"
	Name      = "custom-isecl"
)

// Kind is that of the object.
var Kind = schema.GroupVersionKind{Group: "crd.isecl.intel.com", Version: "v1beta1", Kind: "HostAttributesCrd"}

const (
	pace       = time.Second      // between two writes
	refresh    = 30 * time.Second // between two writes that only renew times: the object holds all nodes
	maxReports = 250              // nodes up to which the object has their signed results: etcd takes 1.5 MiB
	missing    = time.Minute      // until it is looked for again
)

// Host is a node in the object, with isecl's field names. Those about SGX are not written.
type Host struct {
	Updated  string            `json:"updatedTime"`
	Name     string            `json:"hostName"`
	Trusted  bool              `json:"trusted"`
	Report   string            `json:"hvsSignedTrustReport,omitempty"`
	ValidTo  string            `json:"hvsTrustValidTo,omitempty"`
	Tags     map[string]string `json:"assetTags"`
	Features map[string]string `json:"hardwareFeatures"`
}

// Reconciler writes the object.
type Reconciler struct {
	Client client.Client
	Live   client.Reader // the object is not in the cache
	Log    *slog.Logger
	Now    func() time.Time
	Owner  string // for server-side apply
	Wrote  func(resource string)

	wrote time.Time
}

// Reconcile brings the list of hosts up to date with the NodeTrusts. One worker calls it.
func (r *Reconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	var list v1alpha1.NodeTrustList
	if err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, err
	}
	have, err := r.read(ctx)
	switch {
	case meta.IsNoMatchError(err):
		r.Log.Error("isecl: the cluster does not know the type HostAttributesCrd: the chart brings it with controller.iseclCompat, or apply isecl's own", "error", err)
		return ctrl.Result{RequeueAfter: missing}, nil
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("read HostAttributesCrd: %w", err)
	}
	want, news := merge(hosts(list.Items), have, r.Now())
	since := r.Now().Sub(r.wrote)
	switch {
	case news == nothing:
		return ctrl.Result{RequeueAfter: refresh}, nil // somebody else may change it
	case news == words && since < pace:
		return ctrl.Result{RequeueAfter: pace - since}, nil
	case news == times && since < refresh:
		return ctrl.Result{RequeueAfter: refresh - since}, nil
	}
	r.wrote = r.Now()
	r.Wrote("hostattributes")
	if err := r.write(ctx, want); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: refresh}, nil
}

// read returns the hosts of the object; none when there is no object, or what is in it cannot be read.
func (r *Reconciler) read(ctx context.Context) (map[string]Host, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(Kind)
	if err := r.Live.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: Name}, u); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	have := map[string]Host{}
	list, _, _ := unstructured.NestedSlice(u.Object, "spec", "hostList")
	for _, entry := range list {
		m, _ := entry.(map[string]any)
		var h Host
		if runtime.DefaultUnstructuredConverter.FromUnstructured(m, &h) == nil {
			have[h.Name] = h
		}
	}
	return have, nil
}

func (r *Reconciler) write(ctx context.Context, hosts []Host) error {
	list := make([]any, 0, len(hosts))
	for i := range hosts {
		m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&hosts[i])
		if err != nil {
			return err
		}
		list = append(list, m)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"hostList": list}}}
	u.SetGroupVersionKind(Kind)
	u.SetNamespace(Namespace)
	u.SetName(Name)
	if err := r.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership, client.FieldOwner(r.Owner)); err != nil {
		return fmt.Errorf("write HostAttributesCrd: %w", err)
	}
	return nil
}

// hosts are the nodes as the object has them, sorted by name.
func hosts(list []v1alpha1.NodeTrust) []Host {
	out := make([]Host, 0, len(list))
	for i := range list {
		s := &list[i].Status
		h := Host{Name: list[i].Name, Trusted: s.Trusted, Tags: Tags(s.Tags), Features: map[string]string{}}
		if meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionBound) {
			level2 := ""
			for _, l := range s.Levels {
				if l.Level == 2 {
					level2 = l.Status
				}
			}
			h.Features = Features(s.SoftwareTPM, level2)
		}
		if s.ExpiresAt != nil {
			h.ValidTo = s.ExpiresAt.UTC().Format(time.RFC3339)
		}
		if len(list) <= maxReports {
			h.Report = s.Result
		}
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// news is how much of the object has changed.
type news int

const (
	nothing news = iota
	times        // times and signed results only
	words
)

// merge gives each host the time of its last change, and says what has changed.
func merge(want []Host, have map[string]Host, now time.Time) ([]Host, news) {
	n := nothing
	if have == nil || len(want) != len(have) {
		n = words
	}
	for i := range want {
		h, old := &want[i], have[want[i].Name]
		h.Updated = old.Updated
		switch {
		case old.Name == "" || h.Trusted != old.Trusted || !maps.Equal(h.Tags, old.Tags) || !maps.Equal(h.Features, old.Features):
			h.Updated, n = now.UTC().Format(time.RFC3339), words
		case !equality.Semantic.DeepEqual(*h, old):
			h.Updated, n = now.UTC().Format(time.RFC3339), max(n, times)
		}
	}
	return want, n
}
