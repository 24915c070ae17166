package cluster

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/kubetest"
)

// world is a real API server, an AIAS, and controllers that run.
type world struct {
	client.Client
	t      testing.TB
	aias   *testAIAS
	config *rest.Config
	log    *slog.Logger
}

// newWorld gives the test the shared API server, cleared of what other tests left.
func newWorld(t testing.TB) *world {
	t.Helper()
	return worldOn(t, kubetest.Start(t))
}

func worldOn(t testing.TB, s *kubetest.Server) *world {
	t.Helper()
	w := &world{t: t, log: slog.New(slog.DiscardHandler), aias: newAIAS(t, time.Now)}
	if os.Getenv("CLUSTER_TEST_LOG") != "" {
		w.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	var err error
	if w.config, err = clientcmd.BuildConfigFromFlags("", s.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	w.config.QPS, w.config.Burst = -1, 0
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	if w.Client, err = client.New(w.config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	w.install()
	w.clear()
	t.Cleanup(w.clear)
	return w
}

// install installs our types and waits until the API server serves them.
func (w *world) install() {
	w.t.Helper()
	files, err := filepath.Glob("../../api/v1alpha1/crds/*.yaml")
	if err != nil || len(files) == 0 {
		w.t.Fatalf("no manifests: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			w.t.Fatal(err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(text, crd); err != nil {
			w.t.Fatalf("%s: %v", file, err)
		}
		if err := w.Create(context.Background(), crd); err != nil && !apierrors.IsAlreadyExists(err) {
			w.t.Fatalf("%s: %v", file, err)
		}
		w.eventually("CRD "+crd.Name+" is served", func() bool {
			list := &metav1.PartialObjectMetadataList{}
			list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(crd.Spec.Names.Kind + "List"))
			return w.List(context.Background(), list) == nil
		})
	}
}

// clear deletes what tests make and no controller collects here.
func (w *world) clear() {
	w.t.Helper()
	ctx := context.Background()
	for _, o := range []client.Object{&v1alpha1.TrustClass{}, &v1alpha1.TrustEnforcement{}, &v1alpha1.TrustPolicy{}, &v1alpha1.NodeTrust{}, &v1alpha1.ImageTrust{}, &corev1.Node{}} {
		if err := w.DeleteAllOf(ctx, o); err != nil {
			w.t.Fatalf("clear %T: %v", o, err)
		}
	}
	var tags v1alpha1.AssetTagList
	if err := w.List(ctx, &tags); err != nil {
		w.t.Fatal(err)
	}
	for i := range tags.Items { // no controller lets them go any more
		at := &tags.Items[i]
		if err := w.Patch(ctx, at, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))); client.IgnoreNotFound(err) != nil {
			w.t.Fatal(err)
		}
		if err := w.Delete(ctx, at); client.IgnoreNotFound(err) != nil {
			w.t.Fatal(err)
		}
	}
	var pods corev1.PodList
	if err := w.List(ctx, &pods); err != nil {
		w.t.Fatal(err)
	}
	for i := range pods.Items {
		if err := w.Delete(ctx, &pods.Items[i], client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
			w.t.Fatal(err)
		}
	}
}

// run starts a controller; it returns how to stop it, which the end of the test does, too.
func (w *world) run(change ...func(*Options)) (stop func()) {
	w.t.Helper()
	o := Options{Config: w.config, AIAS: w.aias, Log: w.log, Metrics: "0", Health: "0", Registry: prometheus.NewRegistry(), Join: true, JoinWait: 2 * time.Second, CarryPolicy: true, CarryTags: true,
		Keys: w.aias.published}
	for _, f := range change {
		f(&o)
	}
	ctrl.SetLogger(logr.FromSlogHandler(w.log.Handler()))
	m, err := New(context.Background(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Start(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil && o.LeaderElection == false {
				w.t.Errorf("controller: %v", err)
			}
		case <-time.After(20 * time.Second):
			w.t.Error("the controller does not end")
		}
	}
	w.t.Cleanup(stop)
	return stop
}

// node makes a node object, as its kubelet registers it, with others' taints.
func (w *world) node(name string, change ...func(*corev1.Node)) *corev1.Node {
	w.t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.NodeInfo.SystemUUID, n.Status.NodeInfo.BootID = strings.ToUpper("uuid-"+name), "boot-"+name
	for _, f := range change {
		f(n)
	}
	status := n.Status
	if err := w.Create(context.Background(), n); err != nil {
		w.t.Fatal(err)
	}
	w.report(n, func(n *corev1.Node) { n.Status.NodeInfo = status.NodeInfo })
	return n
}

// report changes the status of a node, as its kubelet does: without regard to what others wrote meanwhile.
func (w *world) report(n *corev1.Node, change func(*corev1.Node)) {
	w.t.Helper()
	before := n.DeepCopy()
	change(n)
	if err := w.Status().Patch(context.Background(), n, client.MergeFrom(before)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(name string) *corev1.Node {
	w.t.Helper()
	n := &corev1.Node{}
	if err := w.Get(context.Background(), types.NamespacedName{Name: name}, n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) trust(name string) *v1alpha1.NodeTrust {
	w.t.Helper()
	nt := &v1alpha1.NodeTrust{}
	if err := w.Get(context.Background(), types.NamespacedName{Name: name}, nt); client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
	return nt
}

// taints is the taints of a node in one line, ours in short.
func taints(n *corev1.Node) string {
	var s []string
	for _, t := range n.Spec.Taints {
		if t.Key == corev1.TaintNodeNotReady {
			continue // the API server's own, of each node that is new
		}
		s = append(s, strings.TrimPrefix(t.Key, "touchstone.dev/")+":"+string(t.Effect))
	}
	return strings.Join(s, " ")
}

const both = "untrusted:NoSchedule untrusted:NoExecute"

// patience is how long something may take that is not yet what it should be: no measure of speed.
const patience = 2 * time.Minute

// eventually waits for something to become true, and returns how long that took.
func (w *world) eventually(what string, is func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !is() {
		if time.Since(start) > patience {
			w.t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(start)
}

// edit changes an object as it stands; the controller may write to it at the same time.
func (w *world) edit(o client.Object, change func(), options ...client.UpdateOption) {
	w.t.Helper()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := w.Get(context.Background(), client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		change()
		return w.Update(context.Background(), o, options...)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// isTrusted waits until the node object shows trust, or that there is none: label, taint, condition and NodeTrust say the same.
func (w *world) isTrusted(name string, want bool) {
	w.t.Helper()
	w.eventually(name+" is trusted: "+map[bool]string{true: "yes", false: "no"}[want], func() bool {
		n := w.get(name)
		tainted := strings.Contains(taints(n), "untrusted:NoSchedule")
		condition := ""
		for _, c := range n.Status.Conditions {
			if c.Type == v1alpha1.TrustedCondition {
				condition = string(c.Status)
			}
		}
		label := map[bool]string{true: "true", false: "false"}[want]
		return n.Labels[v1alpha1.TrustedLabel] == label && tainted == !want && strings.EqualFold(condition, label) && w.trust(name).Status.Trusted == want && len(w.trust(name).Status.Conditions) > 0
	})
}

// never checks that something stays untrue for a while.
func (w *world) never(what string, during time.Duration, is func() bool) {
	w.t.Helper()
	for start := time.Now(); time.Since(start) < during; time.Sleep(10 * time.Millisecond) {
		if is() {
			w.t.Fatalf("happened: %s", what)
		}
	}
}
