package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"touchstone.dev/touchstone/internal/admission"
	"touchstone.dev/touchstone/internal/admission/webhook"
	"touchstone.dev/touchstone/internal/cluster"
	"touchstone.dev/touchstone/internal/cluster/imagescans"
	"touchstone.dev/touchstone/internal/operator"
)

// namespaceFile is where a pod finds the namespace it runs in.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// options are the flags; docs/reference/controller.md explains them.
type options struct {
	kubeconfig string
	bundle     string
	keys       string
	access     operator.Access
	level      string
	format     string
	elect      bool
	webhook    string
	schedulers []string
	registry   registry
	cluster    cluster.Options
}

func (o *options) flags(f *pflag.FlagSet) {
	c := &o.cluster
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "`FILE` to reach the API server with; default: as a pod of the cluster")
	f.StringVar(&o.bundle, "operator", "", "`FILE` with a client certificate for AIAS (aias controller add NAME); instead of the next three")
	f.StringVar(&o.access.Server, "aias", "", "`URL` of AIAS (https://aias.touchstone.svc:8443)")
	f.StringVar(&o.access.CAFile, "aias-ca", "/var/run/aias/ca.crt", "`FILE` with the root certificate of AIAS (ConfigMap aias-ca), read again as it changes")
	f.StringVar(&o.keys, "aias-keys", "/var/run/aias/jwks.json", "`FILE` with the keys that AIAS signs results with (ConfigMap aias-ca), read when the controller starts while AIAS is away")
	f.StringVar(&o.access.TokenFile, "aias-token", "/var/run/secrets/aias/token", "`FILE` with a token of the service account for the audience aias, read again as it changes")
	f.BoolVar(&o.elect, "leader-elect", true, "let only one of several replicas act")
	f.StringVar(&c.Namespace, "namespace", "", "namespace of the lease; default: that of the pod")
	f.StringVar(&c.Metrics, "metrics-listen", ":8080", "`HOST:PORT` of /metrics; 0 for none")
	f.StringVar(&c.Health, "health-listen", ":8081", "`HOST:PORT` of /healthz and /readyz; 0 for none")
	f.StringVar(&o.webhook, "webhook-listen", ":9443", "`HOST:PORT` of the admission webhook; 0 for none: pods with a trust class are then refused")
	f.StringSliceVar(&o.schedulers, "schedulers", admission.DefaultSchedulers, "`USERS` that may bind pods, as the admission policy bindings.touchstone.dev lists them: with others in it, pods with a trust class are refused")
	o.registry.flags(f)
	f.BoolVar(&c.AllowMissingUUID, "allow-missing-system-uuid", false, "accept nodes whose machine, agent or kubelet tells no SMBIOS UUID")
	f.BoolVar(&c.Join, "join", true, "approve and deny certificates of kubelets")
	f.DurationVar(&c.JoinWait, "join-wait", 5*time.Minute, "how long a request of a node that has not attested yet stays open")
	f.BoolVar(&c.CarryPolicy, "carry-policy", true, "bring the TrustPolicy named default, and what each TrustClass demands, to AIAS")
	f.BoolVar(&c.CarryTags, "carry-tags", true, "bring AssetTags to AIAS")
	f.BoolVar(&c.ISecL, "isecl-compat", false, "write the labels, annotation and taint of Intel SecL-DC, too")
	f.StringVar(&o.level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.format, "log-format", "json", "json or text")
}

// run runs the controller until ctx ends.
func (o *options) run(ctx context.Context) error {
	log, err := o.logger()
	if err != nil {
		return err
	}
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	client, err := o.aias()
	if err != nil {
		return err
	}
	defer client.Close()
	c := o.cluster
	if c.Config, err = o.api(); err != nil {
		return err
	}
	if c.LeaderElection = o.elect; c.LeaderElection && c.Namespace == "" {
		b, err := os.ReadFile(namespaceFile)
		if err != nil {
			return fmt.Errorf("not in a pod, so --namespace must say where the lease of leader election is: %w", errUsage)
		}
		c.Namespace = strings.TrimSpace(string(b))
	}
	c.Keys = func() ([]byte, error) { return readKeys(o.keys) }
	scans := imagescans.New(client, time.Now)
	c.AIAS, c.Log, c.Registry, c.ImageScans = client, log, metrics.Registry, scans
	m, err := cluster.New(ctx, c)
	if err != nil {
		return err
	}
	if o.webhook != "0" {
		checker, err := o.registry.checker()
		if err != nil {
			return err
		}
		if err := metrics.Registry.Register(checker.Metrics()); err != nil {
			return err
		}
		err = webhook.Setup(ctx, m, webhook.Options{
			Admission: admission.Options{Namespace: c.Namespace, Schedulers: o.schedulers}, Listen: o.webhook, Images: checker, PullSecrets: o.registry.pullSecrets, Log: log,
			Compliance: scans,
		})
		if err != nil {
			return err
		}
	}
	log.Info("trust-controller starts", "aias", client.Server(), "leader_election", c.LeaderElection)
	return m.Start(ctx)
}

// maxKeys bounds the file with keys: AIAS has one or two, of some 200 bytes each.
const maxKeys = 64 << 10

// readKeys reads the keys of AIAS as they were kept.
func readKeys(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("keys of AIAS (--aias-keys): %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeys+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("keys of AIAS (--aias-keys): %w", err)
	case len(b) == 0 || len(b) > maxKeys:
		return nil, fmt.Errorf("keys of AIAS (--aias-keys): %s has %d bytes or more, want 1 to %d", path, len(b), maxKeys)
	}
	return b, nil
}

func (o *options) aias() (*operator.Client, error) {
	switch {
	case o.bundle != "" && o.access.Server != "":
		return nil, fmt.Errorf("--operator and --aias exclude each other: %w", errUsage)
	case o.bundle != "":
		return operator.Open(o.bundle)
	case o.access.Server == "":
		return nil, fmt.Errorf("--aias or --operator must say where AIAS is: %w", errUsage)
	}
	return operator.NewAccess(o.access)
}

func (o *options) api() (*rest.Config, error) {
	if o.kubeconfig != "" {
		return clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	}
	c, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("not in a pod (%w), so --kubeconfig must be given: %w", err, errUsage)
	}
	return c, nil
}

func (o *options) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: %w", o.level, errUsage)
	}
	h := &slog.HandlerOptions{Level: level}
	switch o.format {
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, h)), nil
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, h)), nil
	}
	return nil, fmt.Errorf("--log-format %q: %w", o.format, errUsage)
}
