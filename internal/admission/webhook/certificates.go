package webhook

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"slices"
	"sync"
	"time"

	arv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"touchstone.dev/touchstone/internal/admission"
)

// Times of certificates.
const (
	validity  = 48 * time.Hour
	renewal   = 24 * time.Hour  // age at which the next one is made
	settle    = 5 * time.Second // until every API server has seen a new bundle
	look      = time.Minute     // how often the bundle is looked at, besides its changes
	maxBundle = 32              // certificates: replicas that come and go must not make it grow for ever
)

const issuer = "Touchstone webhook"

// certificates keeps this replica's certificate in the bundle of the webhook's configuration, and renews it.
type certificates struct {
	client client.Client
	live   client.Reader
	names  []string
	log    *slog.Logger

	mu        sync.Mutex
	current   *tls.Certificate
	next      *tls.Certificate // in the bundle since nextSince, not served yet
	nextSince time.Time
	published bool // the bundle has current
}

func serverNames(o admission.Options) []string {
	service := o.ServiceName()
	return []string{service + ".svc", service + ".svc.cluster.local"}
}

// serve is the certificate for a connection.
func (c *certificates) serve(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil {
		return nil, errors.New("no certificate yet")
	}
	return c.current, nil
}

func (c *certificates) ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.published {
		return errors.New("the certificate of this replica is not in the ValidatingWebhookConfiguration " + admission.WebhookName)
	}
	return nil
}

func (c *certificates) setup(m manager.Manager) error {
	first, err := newCertificate(c.names, time.Now())
	if err != nil {
		return err
	}
	c.current = first
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetName() == admission.WebhookName })
	return ctrl.NewControllerManagedBy(m).Named("webhook-certificates").
		For(&arv1.ValidatingWebhookConfiguration{}, builder.WithPredicates(ours)).
		WithOptions(controller.Options{NeedLeaderElection: new(false), SkipNameValidation: new(true)}).
		Complete(c)
}

// Reconcile brings the bundle up to date, and takes the next certificate into use when it has been there for long enough.
func (c *certificates) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if err := c.renew(now); err != nil {
		return ctrl.Result{}, err
	}
	config := &arv1.ValidatingWebhookConfiguration{}
	if err := c.client.Get(ctx, types.NamespacedName{Name: admission.WebhookName}, config); err != nil {
		c.published = false
		return ctrl.Result{RequeueAfter: settle}, client.IgnoreNotFound(err)
	}
	changed := false
	for i := range config.Webhooks {
		b := c.bundle(config.Webhooks[i].ClientConfig.CABundle, now)
		if !bytes.Equal(b, config.Webhooks[i].ClientConfig.CABundle) {
			config.Webhooks[i].ClientConfig.CABundle, changed = b, true
		}
	}
	if changed {
		if err := c.client.Update(ctx, config); apierrors.IsConflict(err) {
			return ctrl.Result{RequeueAfter: 50 * time.Millisecond}, nil
		} else if err != nil {
			return ctrl.Result{}, err
		}
		c.log.Info("webhook: the certificate of this replica is in the configuration", "until", c.current.Leaf.NotAfter)
	}
	c.published = true
	if c.next != nil {
		return ctrl.Result{RequeueAfter: settle}, nil
	}
	return ctrl.Result{RequeueAfter: look}, nil
}

// renew makes the next certificate when it is time, and takes it into use when all know it.
func (c *certificates) renew(now time.Time) (err error) {
	switch {
	case c.next != nil && now.Sub(c.nextSince) >= settle:
		c.current, c.next = c.next, nil
	case c.next == nil && now.Sub(c.current.Leaf.NotBefore) >= renewal:
		c.next, err = newCertificate(c.names, now)
		c.nextSince = now
	}
	return err
}

// bundle returns the old bundle without what has expired or cannot be read, with our certificates.
func (c *certificates) bundle(old []byte, now time.Time) []byte {
	var keep []*x509.Certificate
	for rest := old; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err == nil && now.Before(cert.NotAfter) && cert.Subject.CommonName == issuer {
			keep = append(keep, cert)
		}
	}
	for _, own := range []*tls.Certificate{c.current, c.next} {
		if own != nil && !slices.ContainsFunc(keep, own.Leaf.Equal) {
			keep = append(keep, own.Leaf)
		}
	}
	slices.SortStableFunc(keep, func(a, b *x509.Certificate) int { return a.NotBefore.Compare(b.NotBefore) })
	keep = keep[max(0, len(keep)-maxBundle):]
	var b bytes.Buffer
	for _, cert := range keep {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}) // into memory: no error
	}
	return b.Bytes()
}

// newCertificate makes a certificate that signs itself: in the bundle it is trusted for these names and nothing else.
func newCertificate(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: issuer}, DNSNames: names, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(validity),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
