package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/carry"
	"touchstone.dev/touchstone/internal/cluster/evict"
	"touchstone.dev/touchstone/internal/cluster/feed"
	"touchstone.dev/touchstone/internal/cluster/imagetrust"
	"touchstone.dev/touchstone/internal/cluster/node"
)

// fieldOwner is who the controller is for server-side apply.
const fieldOwner = node.FieldOwner

// leaderID names the lease.
const leaderID = "trust-controller.touchstone.dev"

// Times of leader election: another replica takes over within leaseTime after the leader vanished, at once when it stopped in order.
const (
	leaseTime = 15 * time.Second
	renewTime = 10 * time.Second
	retryTime = 2 * time.Second
)

// AIAS is what the controller needs of it, as an operator.Client is.
type AIAS interface {
	feed.Source
	carry.PolicyStore
	carry.TagStore
	carry.ClassStore
}

// Options say how the controller runs.
type Options struct {
	Config *rest.Config
	AIAS   AIAS
	Log    *slog.Logger
	Now    func() time.Time // nil: the clock

	// LeaderElection lets several replicas run, in whose Namespace the lease is; Identity is kept by client-go.
	LeaderElection bool
	Namespace      string
	Metrics        string // HOST:PORT to serve /metrics on; "0" for none
	Health         string // HOST:PORT to serve /healthz and /readyz on; "0" for none
	Registry       prometheus.Registerer

	// Keys are those that AIAS signs results with, as they were kept: what NodeTrusts recorded counts by them while AIAS was not heard since the start. Nil: none
	// are kept, and nothing recorded counts.
	Keys func() ([]byte, error)
	// AllowMissingUUID accepts nodes without SMBIOS UUID.
	AllowMissingUUID bool
	// Join lets the controller decide on certificates of kubelets; JoinWait is how long it waits for what is missing.
	Join     bool
	JoinWait time.Duration
	// CarryPolicy brings TrustPolicy and TrustClasses to AIAS, CarryTags AssetTags.
	CarryPolicy bool
	CarryTags   bool
	// ImageScans judge images for ImageTrusts; nil: none are kept.
	ImageScans imagetrust.Judge
	// ISecL writes what users of Intel SecL-DC build on, too.
	ISecL bool
}

// New makes the controller; whoever has it may add to it (admission does) and starts it.
func New(ctx context.Context, o Options) (manager.Manager, error) {
	if o.Config == nil || o.AIAS == nil || o.Log == nil || o.Registry == nil {
		return nil, errors.New("cluster: Config, AIAS, Log and Registry are needed")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Keys == nil {
		o.Keys = func() ([]byte, error) { return nil, errors.New("no keys of AIAS are kept") }
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	m, err := manager.New(unlimited(o.Config), manager.Options{
		Scheme: scheme, Logger: logr.FromSlogHandler(o.Log.Handler()), Cache: caches(), Metrics: server.Options{BindAddress: o.Metrics},
		Client:                 client.Options{Cache: &client.CacheOptions{Unstructured: false}},
		HealthProbeBindAddress: "0", LeaderElection: o.LeaderElection, LeaderElectionID: leaderID, LeaderElectionNamespace: o.Namespace,
		LeaderElectionReleaseOnCancel: true, LeaseDuration: ptr.To(leaseTime), RenewDeadline: ptr.To(renewTime), RetryPeriod: ptr.To(retryTime),
		GracefulShutdownTimeout: ptr.To(5 * time.Second),
		Controller:              config.Controller{SkipNameValidation: ptr.To(true), EnableWarmup: ptr.To(true)},
	})
	if err != nil {
		return nil, fmt.Errorf("make the controller: %w", err)
	}
	if err := m.GetFieldIndexer().IndexField(ctx, &corev1.Pod{}, evict.NodeIndex, func(p client.Object) []string {
		return []string{p.(*corev1.Pod).Spec.NodeName}
	}); err != nil {
		return nil, err
	}
	if err := m.GetFieldIndexer().IndexField(ctx, &corev1.Pod{}, imagetrust.Index, func(p client.Object) []string { return imagetrust.Keys(p.(*corev1.Pod)) }); err != nil {
		return nil, err
	}
	rooms, err := newRooms(m, &o)
	if err != nil {
		return nil, err
	}
	if err := rooms.open(); err != nil {
		return nil, err
	}
	h := &health{feed: rooms.feed, elected: m.Elected(), now: o.Now}
	if err := h.setup(ctx, m, o.Health); err != nil {
		return nil, err
	}
	return &checked{m, h}, nil
}

// checked is a manager whose checks are ours.
type checked struct {
	manager.Manager
	health *health
}

// AddReadyzCheck adds a check without which the process is not ready.
func (c *checked) AddReadyzCheck(name string, check healthz.Checker) error {
	c.health.add(name, check)
	return nil
}

// unlimited takes client-go's limit away, which makes requests wait here in the order in which they came: a node that fell behind events about others. What is under way
// at the same time is bounded by the workers of each controller, and the API server slows down who asks too much (Priority and Fairness).
func unlimited(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.QPS, c.Burst = -1, 0
	return c
}

// caches keeps of each object what is read: a cluster of 1,000 nodes and 5,000 pods would else cost hundreds of MiB.
func caches() cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Node{}: {Transform: node.Strip},
			&corev1.Pod{}: {Transform: evict.Strip, Field: fields.ParseSelectorOrDie(
				"spec.nodeName!=,status.phase!=" + string(corev1.PodSucceeded) + ",status.phase!=" + string(corev1.PodFailed))},
			&corev1.Namespace{}:                         {Transform: stripNamespace},
			&certificatesv1.CertificateSigningRequest{}: {Field: fields.OneTermEqualSelector("spec.signerName", certificatesv1.KubeAPIServerClientKubeletSignerName)},
		},
	}
}

// stripNamespace leaves of a namespace its name and class, and whether it is on its way out.
func stripNamespace(o any) (any, error) {
	n, ok := o.(*corev1.Namespace)
	if !ok {
		return o, nil
	}
	s := &corev1.Namespace{TypeMeta: n.TypeMeta}
	s.Name, s.UID, s.ResourceVersion, s.DeletionTimestamp = n.Name, n.UID, n.ResourceVersion, n.DeletionTimestamp
	if c := n.Labels[v1alpha1.ClassLabel]; c != "" {
		s.Labels = map[string]string{v1alpha1.ClassLabel: c}
	}
	return s, nil
}
