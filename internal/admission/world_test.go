package admission

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/kubetest"
)

// The tests try each bypass against a real API server, as the user who would try it. Users are told by impersonation; groups follow from the
// name, as they would from a certificate.
const (
	admin     = "admin"
	alice     = "alice" // may use the classes regulated, lenient, partial and sealed, and do whatever a tenant may
	mallory   = "mallory"
	kubelet   = "system:node:w1"
	scheduler = "system:kube-scheduler"
	replicas  = "system:serviceaccount:kube-system:replicaset-controller"
)

var ctx = context.Background()

var options = Options{}

// world is an API server with the policies in place.
type world struct {
	t      testing.TB
	server *kubetest.Server
	config *rest.Config
	scheme *runtime.Scheme
}

var prepared struct {
	sync.Mutex
	done bool
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := connect(t, kubetest.Start(t))
	prepared.Lock()
	defer prepared.Unlock()
	if !prepared.done {
		w.install()
		prepared.done = true
	}
	return w
}

// connect makes clients of a server without anything of ours in it.
func connect(t testing.TB, server *kubetest.Server) *world {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", server.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Burst = 1000, 1000
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return &world{t: t, server: server, config: config, scheme: scheme}
}

// install brings CRDs, policies, users and the table into a new server.
func (w *world) install() {
	w.t.Helper()
	w.installCRDs()
	w.installObjects(Objects(options))
	w.installUsers()
	w.must(w.as(options.Controller()).Create(ctx, Table(classes())))
	w.waitInForce()
}

func (w *world) installCRDs() {
	w.t.Helper()
	files, err := filepath.Glob("../../api/v1alpha1/crds/*.yaml")
	if err != nil || len(files) == 0 {
		w.t.Fatalf("CRDs: %v, %d files", err, len(files))
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			w.t.Fatal(err)
		}
		crd := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(b, &crd.Object); err != nil {
			w.t.Fatal(err)
		}
		w.must(w.as(admin).Create(ctx, crd))
	}
	w.eventually("CRDs are served", func() error {
		return w.as(admin).List(ctx, &v1alpha1.TrustAdmissionList{})
	})
}

// installObjects creates the objects, without the webhook: that has tests of its own.
func (w *world) installObjects(objects []client.Object) {
	w.t.Helper()
	for _, o := range objects {
		if o.GetObjectKind().GroupVersionKind().Kind != "ValidatingWebhookConfiguration" {
			w.must(w.as(admin).Create(ctx, o))
		}
	}
}

// installUsers gives alice and mallory what tenants have, and the use of some classes to alice.
func (w *world) installUsers() {
	w.t.Helper()
	tenant := &rbacv1.ClusterRole{Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods", "pods/binding", "bindings", "pods/ephemeralcontainers", "pods/resize", "pods/status", "podtemplates",
			"replicationcontrollers", "namespaces", "namespaces/finalize", "nodes", "nodes/status"}, Verbs: []string{"*"}},
		{APIGroups: []string{"apps", "batch"}, Resources: []string{"*"}, Verbs: []string{"*"}},
		{APIGroups: []string{"touchstone.dev"}, Resources: []string{"nodetrusts", "nodetrusts/status", "imagetrusts", "imagetrusts/status", "trustadmissions"}, Verbs: []string{"*"}},
	}}
	tenant.Name = "tenant"
	use := &rbacv1.ClusterRole{Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"touchstone.dev"}, Resources: []string{"trustclasses"}, ResourceNames: []string{"regulated", "lenient", "partial", "sealed"}, Verbs: []string{"use"}},
	}}
	use.Name = "use-some"
	// Who may do everything within a namespace may still use no class: that is asked of the cluster.
	owner := &rbacv1.ClusterRole{Rules: []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}}}
	owner.Name = "owner"
	for _, r := range []*rbacv1.ClusterRole{tenant, use, owner} {
		w.must(w.as(admin).Create(ctx, r))
	}
	bind := func(role string, subjects ...rbacv1.Subject) {
		w.t.Helper()
		b := &rbacv1.ClusterRoleBinding{RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}, Subjects: subjects}
		b.Name = role
		w.must(w.as(admin).Create(ctx, b))
	}
	user := func(name string) rbacv1.Subject {
		return rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: name}
	}
	bind("tenant", user(alice), user(mallory), user(scheduler), user(replicas), user(options.Controller()))
	bind("use-some", user(alice))
}

// classes are the TrustClasses of the tests: of the strictest kind, one that allows much, one that leaves levels 4 and 5 out,
// and one of encrypted images.
func classes() []v1alpha1.TrustClass {
	out := make([]v1alpha1.TrustClass, 6)
	for i, name := range []string{"regulated", "other", "free", "lenient", "partial", "sealed"} {
		out[i].Name = name
	}
	out[3].Spec = v1alpha1.TrustClassSpec{
		PodSecurity: "privileged", EphemeralContainers: v1alpha1.Allow, Eviction: v1alpha1.Eviction{Grace: &metav1.Duration{Duration: 5 * time.Second}},
		Images: v1alpha1.ImageRequirement{Digests: v1alpha1.Any, Registries: []string{"registry.example/team/", "registry.example/tool", "mirror.example"}},
	}
	out[4].Spec.Levels = []int32{1, 2, 3}
	out[5].Spec = v1alpha1.TrustClassSpec{EphemeralContainers: v1alpha1.Allow, Images: v1alpha1.ImageRequirement{Encryption: v1alpha1.Required}}
	return out
}

// waitInForce waits until the API server has compiled all policies, each seen to refuse or change something.
func (w *world) waitInForce() {
	w.t.Helper()
	ns := w.namespace(nil)
	w.eventually("policies are in force", func() error {
		p := pod(ns, func(p *corev1.Pod) { p.Labels = map[string]string{v1alpha1.ClassLabel: "unknown"} })
		if err := w.as(alice).Create(ctx, p); err == nil || !strings.Contains(err.Error(), "no TrustClass") {
			return fmt.Errorf("pod of an unknown class: %w", err)
		}
		n := &corev1.Node{}
		n.Name = "force-" + ns
		if err := w.as(admin).Create(ctx, n, client.DryRunAll); err != nil || effects(n) == "" {
			return fmt.Errorf("node: %w, taints %v", err, n.Spec.Taints)
		}
		t := &v1alpha1.NodeTrust{}
		t.Name = n.Name
		if err := w.as(admin).Create(ctx, t, client.DryRunAll); err == nil {
			return errors.New("NodeTrust by an admin is accepted")
		}
		b := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "w1"}}
		b.Name, b.Namespace = "x", ns
		if err := w.as(admin).Create(ctx, b, client.DryRunAll); err == nil || !strings.Contains(err.Error(), "schedulers") {
			return fmt.Errorf("binding: %w", err)
		}
		return nil
	})
}

// as returns a client that acts as a user.
func (w *world) as(user string) client.Client {
	w.t.Helper()
	config := rest.CopyConfig(w.config)
	if user != admin {
		config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups(user)}
	}
	c, err := client.New(config, client.Options{Scheme: w.scheme})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func groups(user string) []string {
	out := []string{"system:authenticated"}
	switch parts := strings.Split(user, ":"); {
	case strings.HasPrefix(user, "system:node:"):
		out = append(out, "system:nodes")
	case strings.HasPrefix(user, "system:serviceaccount:"):
		out = append(out, "system:serviceaccounts", "system:serviceaccounts:"+parts[2])
	}
	return out
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// refused demands that err is a refusal with these words in it.
func (w *world) refused(what string, err error, words string) {
	w.t.Helper()
	switch {
	case err == nil:
		w.t.Errorf("%s: accepted, want it refused", what)
	case !strings.Contains(err.Error(), words):
		w.t.Errorf("%s: refused with %q, want %q in it", what, err, words)
	}
}

func (w *world) accepted(what string, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Errorf("%s: refused: %v", what, err)
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

var counter struct {
	sync.Mutex
	n int
}

// namespace makes a namespace with a service account "app" that may use regulated and "default" that may not; it enforces Pod Security restricted.
func (w *world) namespace(labels map[string]string) string {
	w.t.Helper()
	counter.Lock()
	counter.n++
	name := fmt.Sprintf("ns-%d", counter.n)
	counter.Unlock()
	ns := &corev1.Namespace{}
	ns.Name, ns.Labels = name, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}
	for k, v := range labels {
		ns.Labels[k] = v
	}
	w.must(w.as(admin).Create(ctx, ns))
	for _, account := range []string{"default", "app"} {
		sa := &corev1.ServiceAccount{}
		sa.Namespace, sa.Name = name, account
		if err := w.as(admin).Create(ctx, sa); err != nil && !apierrors.IsAlreadyExists(err) {
			w.t.Fatal(err)
		}
	}
	b := &rbacv1.ClusterRoleBinding{
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "use-some"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: name, Name: "app"}},
	}
	b.Name = "use-some-" + name
	w.must(w.as(admin).Create(ctx, b))
	r := &rbacv1.RoleBinding{
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "owner"},
		Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: mallory}, {Kind: "ServiceAccount", Namespace: name, Name: "default"}},
	}
	r.Name, r.Namespace = "owner", name
	w.must(w.as(admin).Create(ctx, r))
	w.eventually("namespace "+name, func() error { // caches of authorizer and namespaces
		return w.as(alice).Create(ctx, pod(name, func(p *corev1.Pod) { p.Labels = nil }), client.DryRunAll)
	})
	return name
}

const pinnedImage = "registry.example/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// pod makes a pod of class regulated that meets everything, then changes it.
func pod(ns string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.GenerateName, p.Labels = ns, "p-", map[string]string{v1alpha1.ClassLabel: "regulated"}
	p.Spec = podSpec()
	if change != nil {
		change(p)
	}
	return p
}

func podSpec() corev1.PodSpec {
	return corev1.PodSpec{
		ServiceAccountName: "app",
		SecurityContext:    &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		Containers: []corev1.Container{{
			Name: "app", Image: pinnedImage,
			SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
		}},
	}
}
