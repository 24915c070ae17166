// Package webhook is what of admission runs in the trust-controller: the table of classes that the policies in the API server read, and the webhook
// that decides what expressions cannot see: whether a NetworkPolicy isolates the pod, whether its images are signed and encrypted, and whether
// the policies themselves are in place.
//
// All replicas serve the webhook; the leader writes the table. Each replica makes its own certificate, whose key never leaves the process, and adds
// it to the CA bundle of the webhook's configuration. Whatever cannot be decided is refused.
package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	runtimeadmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"touchstone.dev/touchstone/internal/admission"
)

// Options say how the webhook is served.
type Options struct {
	// Admission is what the policies were installed with. When they are not what follows from it, pods with a class are refused.
	Admission admission.Options
	// Listen is HOST:PORT of the webhook.
	Listen string
	// Images decides on signatures and encryption. Nil: classes that ask for one are refused.
	Images Images
	// PullSecrets: registries are asked with the secrets that the pods pull with.
	PullSecrets bool
	// Compliance knows scans of images. Nil: classes that ask for one are refused.
	Compliance Compliance
	Log        *slog.Logger

	names   []string        // more names of the server, for tests
	objects []client.Object // what is installed, for tests where the API server finds the webhook by address
}

// Setup adds the webhook and the writer of the table to the controller m, before it starts.
func Setup(ctx context.Context, m manager.Manager, o Options) error {
	host, port, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return fmt.Errorf("address of the webhook: %w", err)
	}
	number, err := strconv.Atoi(port)
	if err != nil || number < 1 || number > 65535 {
		return fmt.Errorf("address of the webhook: port %q", port)
	}
	if err := o.Admission.Validate(); err != nil {
		return err
	}
	c := &certificates{client: m.GetClient(), live: m.GetAPIReader(), names: append(serverNames(o.Admission), o.names...), log: o.Log}
	i := &installed{client: m.GetClient(), objects: admission.Objects(o.Admission)}
	if o.objects != nil {
		i.objects = o.objects
	}
	server := webhook.NewServer(webhook.Options{Host: host, Port: number, TLSOpts: []func(*tls.Config){func(t *tls.Config) {
		t.MinVersion, t.GetCertificate = tls.VersionTLS12, c.serve
	}}})
	p := &pods{client: m.GetClient(), live: m.GetAPIReader(), installed: i, images: o.Images, pullSecrets: o.PullSecrets, compliance: o.Compliance, log: o.Log}
	decoder := runtimeadmission.NewDecoder(m.GetScheme())
	for path, handler := range map[string]runtimeadmission.Handler{
		admission.PodPath:           &podHandler{pods: p, decoder: decoder},
		admission.UnlabelledPath:    unlabelled{},
		admission.NetworkPolicyPath: &policyHandler{live: m.GetAPIReader(), decoder: decoder},
	} {
		server.Register(path, &runtimeadmission.Webhook{Handler: handler})
	}
	return errors.Join(m.Add(server), c.setup(m), i.setup(ctx, m), (&table{client: m.GetClient(), log: o.Log}).setup(m),
		(&enforced{client: m.GetClient(), installed: i}).setup(m),
		m.AddReadyzCheck("webhook", func(r *http.Request) error {
			if err := c.ready(); err != nil {
				return err
			}
			return server.StartedChecker()(r)
		}))
}
