package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	arv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/admission"
	"touchstone.dev/touchstone/internal/kubetest"
)

var ctx = context.Background()

// world is a real API server with everything installed, and a controller whose webhook it calls.
type world struct {
	client.Client
	t      testing.TB
	config *rest.Config
	scheme *runtime.Scheme
	listen string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := blank(t)
	w.install()
	return w
}

// blank is an API server with nothing of ours in it.
func blank(t testing.TB) *world {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubetest.StartOwn(t).Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Burst = 1000, 1000
	w := &world{t: t, config: config, scheme: runtime.NewScheme(), listen: freeAddress(t)}
	w.must(errors.Join(clientgoscheme.AddToScheme(w.scheme), v1alpha1.AddToScheme(w.scheme)))
	w.Client, err = client.New(config, client.Options{Scheme: w.scheme})
	w.must(err)
	return w
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// install installs CRDs and all objects.
func (w *world) install() {
	w.t.Helper()
	w.types()
	for _, o := range w.objects() {
		w.must(w.Create(ctx, o))
	}
}

// types installs the CRDs.
func (w *world) types() {
	w.t.Helper()
	files, err := filepath.Glob("../../../api/v1alpha1/crds/*.yaml")
	if err != nil || len(files) == 0 {
		w.t.Fatalf("CRDs: %v, %d files", err, len(files))
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		w.must(err)
		crd := &unstructured.Unstructured{}
		w.must(yaml.Unmarshal(b, &crd.Object))
		w.must(w.Create(ctx, crd))
	}
	w.eventually("CRDs are served", func() error { return w.List(ctx, &v1alpha1.TrustClassList{}) })
}

// objects are what is installed. There is no service network here, so the API server finds the webhook by address.
func (w *world) objects() []client.Object {
	all := admission.Objects(admission.Options{})
	for _, o := range all {
		if hooks, ok := o.(*arv1.ValidatingWebhookConfiguration); ok {
			_, port, _ := net.SplitHostPort(w.listen)
			for i := range hooks.Webhooks {
				c := &hooks.Webhooks[i].ClientConfig
				c.URL, c.Service = new("https://localhost:"+port+*c.Service.Path), nil
			}
		}
	}
	return all
}

// run starts a controller as the service account of the chart; the end of the test stops it.
func (w *world) run(o Options) (stop func()) {
	w.t.Helper()
	config := rest.CopyConfig(w.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: admission.Options{}.Controller(), Groups: []string{"system:masters"}}
	m, err := manager.New(config, manager.Options{
		Scheme: w.scheme, Metrics: server.Options{BindAddress: "0"}, Controller: controllerConfig(),
	})
	w.must(err)
	o.Listen, o.names, o.objects, o.Log = w.listen, []string{"localhost"}, w.objects(), slog.New(slog.DiscardHandler)
	w.must(Setup(ctx, m, o))
	running, cancel := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- m.Start(running) }()
	stop = func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				w.t.Errorf("controller: %v", err)
			}
		case <-time.After(20 * time.Second):
			w.t.Error("controller does not end")
		}
	}
	return stop
}

func controllerConfig() config.Controller { return config.Controller{SkipNameValidation: new(true)} }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) eventually(what string, try func() error) {
	w.t.Helper()
	var err error
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	w.t.Fatalf("%s: not within 40 s: %v", what, err)
}

// refusedWith returns nil when err is a refusal with the words in it.
func refusedWith(err error, words string) error {
	if err == nil || !strings.Contains(err.Error(), words) {
		return fmt.Errorf("got %w, want a refusal with %q", err, words)
	}
	return nil
}

func (w *world) class(name string, change func(*v1alpha1.TrustClassSpec)) {
	w.t.Helper()
	c := &v1alpha1.TrustClass{}
	c.Name = name
	c.Spec = v1alpha1.TrustClassSpec{PodSecurity: "privileged", Images: v1alpha1.ImageRequirement{Digests: v1alpha1.Any}}
	if change != nil {
		change(&c.Spec)
	}
	w.must(w.Create(ctx, c))
}

func (w *world) namespace(name string) {
	w.t.Helper()
	ns := &corev1.Namespace{}
	ns.Name = name
	w.must(w.Create(ctx, ns))
	sa := &corev1.ServiceAccount{}
	sa.Namespace, sa.Name = name, "default"
	if err := w.Create(ctx, sa); err != nil && !apierrors.IsAlreadyExists(err) {
		w.t.Fatal(err)
	}
	w.mayUse(name)
}

// mayUse lets the default service account of a namespace use every class.
func (w *world) mayUse(name string) {
	w.t.Helper()
	use := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": map[string]any{"name": "use-" + name},
		"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "touchstone-workload-controllers"},
		"subjects": []any{map[string]any{"kind": "ServiceAccount", "namespace": name, "name": "default"}},
	}}
	w.must(w.Create(ctx, use))
}

func pod(ns, class string, images ...string) *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.GenerateName = ns, "p-"
	if class != "" {
		p.Labels = map[string]string{v1alpha1.ClassLabel: class}
	}
	if len(images) == 0 {
		images = []string{"registry.example/app"}
	}
	for i, image := range images {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprintf("c%d", i), Image: image})
	}
	return p
}
