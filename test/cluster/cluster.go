package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"

	"touchstone.dev/touchstone/internal/kubetest"
)

// Config says what the cluster is.
type Config struct {
	Members int // of the control plane; 0 means 1
	Workers int
	// Args are further arguments of programs of the control plane, by name.
	Args map[string][]string
	// Log receives one line for each step; nil is silence.
	Log func(format string, a ...any)
}

// Cluster is a running cluster.
type Cluster struct {
	Members []*Member
	Workers []*Worker
	Client  client.Client
	Set     kubernetes.Interface
	REST    *rest.Config
	Busybox string // BusyboxImage by its digest, when a worker has it

	config   Config
	root     string // of the repository
	dir, pki string
	programs string // folder of the programs of Kubernetes
	lock     *os.File
	start    time.Time

	ca, etcdCA, frontCA *issuer
	front               *kubetest.Process
}

// Open installs and builds what is missing, removes what an earlier run left, and starts the control plane. The workers are off.
func Open(ctx context.Context, config Config) (*Cluster, error) {
	c := &Cluster{config: config, dir: folder(), pki: filepath.Join(folder(), "pki"), start: time.Now()}
	for i := range max(1, config.Members) {
		c.Members = append(c.Members, &Member{c: c, name: fmt.Sprintf("m%d", i+1), ip: MemberIP(i + 1), ns: memberNS(i + 1), processes: map[string]*kubetest.Process{}})
	}
	for i := range config.Workers {
		c.Workers = append(c.Workers, c.newWorker(i+1))
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"packages", installPackages}, {"the machine is ours", c.take}, {"programs of Kubernetes", c.findPrograms},
		{"certificates and images", c.openFiles}, {"network", openNetwork}, {"control plane", c.openControlPlane}, {"first objects", c.openObjects},
	} {
		began := time.Now()
		if err := step.do(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("cluster: %s: %w (logs: %s)", step.name, err, c.LogFolder()), c.Close()) //nolint:contextcheck // ctx may be why
		}
		c.logf("%s: %.1f s", step.name, time.Since(began).Seconds())
	}
	return c, nil
}

func (c *Cluster) logf(format string, a ...any) {
	if c.config.Log != nil {
		c.config.Log("%6.1f s  "+format, append([]any{time.Since(c.start).Seconds()}, a...)...)
	}
}

// Step runs something and logs the time it took.
func (c *Cluster) Step(name string, do func() error) error {
	began := time.Now()
	err := do()
	c.logf("%s: %.2f s", name, time.Since(began).Seconds())
	return err
}

// take waits until no other cluster runs here, and removes what one left behind.
func (c *Cluster) take(ctx context.Context) error {
	lock, err := os.OpenFile(c.dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	c.lock = lock
	for syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		c.logf("another cluster runs on this machine: waiting for its end")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Second):
		}
	}
	removeCgroups(prefix + "*")
	if err := closeNetwork(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	return os.MkdirAll(c.LogFolder(), 0o700)
}

// openFiles writes certificates, kubeconfigs and images.
func (c *Cluster) openFiles(context.Context) error {
	return errors.Join(c.openPKI(), writeImages(filepath.Join(c.dir, "images.tar")))
}

// Server returns the URL of the API server.
func (c *Cluster) Server() string { return "https://" + FrontIP + ":" + apiPort }

// Kubeconfig returns the file with the credentials of an administrator.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "admin.kubeconfig") }

// EKCA returns the folder of the maker of the workers' TPMs (swtpm.Options.EKCA).
func (c *Cluster) EKCA() string { return filepath.Join(c.dir, "tpm-maker") }

// LogFolder returns where all programs write their logs. It is kept until the next run.
func (c *Cluster) LogFolder() string { return filepath.Join(c.dir, "log") }

func (c *Cluster) logFile(name string) string { return filepath.Join(c.LogFolder(), name+".log") }

// openObjects makes clients, and the objects that every cluster has.
func (c *Cluster) openObjects(ctx context.Context) error {
	var err error
	if c.REST, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig()); err != nil {
		return err
	}
	c.REST.QPS, c.REST.Burst = 500, 1000
	if c.Client, err = NewClient(c.REST); err != nil {
		return err
	}
	if c.Set, err = kubernetes.NewForConfig(c.REST); err != nil {
		return err
	}
	for _, o := range []client.Object{
		&core.Secret{
			ObjectMeta: meta.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-" + tokenID}, Type: core.SecretTypeBootstrapToken,
			StringData: map[string]string{"token-id": tokenID, "token-secret": tokenSecret, "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true"},
		},
		// A kubelet may ask for a certificate. That nobody approves it by itself is what joining is about: kubeadm would bind
		// system:certificates.k8s.io:certificatesigningrequests:nodeclient here, and selfnodeclient for renewals.
		&rbac.ClusterRoleBinding{
			ObjectMeta: meta.ObjectMeta{Name: "kubelet-bootstrap"}, RoleRef: rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: "system:node-bootstrapper"},
			Subjects: []rbac.Subject{{APIGroup: rbac.GroupName, Kind: rbac.GroupKind, Name: "system:bootstrappers"}},
		},
	} {
		if err := c.Client.Create(ctx, o); err != nil {
			return err
		}
	}
	return until(ctx, "controller manager", controlTime, nil, func(ctx context.Context) error {
		return c.Client.Get(ctx, client.ObjectKey{Namespace: "default", Name: "default"}, &core.ServiceAccount{})
	})
}

// NewClient makes a client that knows the types of Kubernetes and ours.
func NewClient(config *rest.Config) (client.Client, error) {
	s := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		return nil, err
	}
	return client.New(config, client.Options{Scheme: s})
}

// Kubectl runs kubectl as an administrator and returns what it writes.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	out, err := output(ctx, filepath.Join(c.programs, "kubectl"), append([]string{"--kubeconfig", c.Kubeconfig()}, args...)...)
	return strings.TrimSpace(string(out)), err
}

// Close ends everything. The logs stay until the next run.
func (c *Cluster) Close() error {
	var err error
	for _, w := range c.Workers {
		err = errors.Join(err, w.close())
	}
	c.front.Kill()
	for _, m := range c.Members {
		m.Stop()
	}
	removeCgroups(prefix + "*")
	err = errors.Join(err, closeNetwork(context.Background()))
	if c.lock != nil {
		err = errors.Join(err, c.lock.Close())
	}
	return err
}
