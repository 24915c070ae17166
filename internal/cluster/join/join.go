// Package join approves certificates of kubelets for nodes that attested, and for nobody else.
//
// A request for a client certificate of system:node:NAME is approved when AIAS trusts NAME now and its signed result has the request's key among the
// keys of the node's kubelet: the agent, over a connection that only the node's TPM can open, said that this key lies on that machine. A bootstrap token
// alone joins nothing. A renewal, which a kubelet asks for as itself, has a key that only its memory holds: it is approved when the certificate that
// it shows is the one that the agent found on that machine. Requests for other signers are left alone.
//
// This holds only while nothing else approves: the ClusterRoleBindings that let kube-controller-manager approve by itself (kubeadm makes
// kubeadm:node-autoapprove-bootstrap and kubeadm:node-autoapprove-certificate-rotation) must not be there.
package join

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/cluster/feed"
	"touchstone.dev/touchstone/internal/cluster/verdict"
	"touchstone.dev/touchstone/internal/protocol"
)

// Decisions, for metrics.
const (
	Approved = "approved"
	Denied   = "denied"
)

// Reconciler decides on certificate requests.
type Reconciler struct {
	Client client.Client
	Feed   *feed.Feed
	Log    *slog.Logger
	Now    func() time.Time
	// Ensure is called before anything is decided: it waits a moment for AIAS when the controller has just started.
	Ensure func(context.Context) error
	// Wait is how long a request of a node that AIAS does not know, or of a key that its agent has not reported, is left open.
	Wait time.Duration
	// Count is told of each decision.
	Count func(decision string)
}

// Reconcile decides on one request, or leaves it open for a while.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if err := r.Ensure(ctx); err != nil {
		return ctrl.Result{}, err
	}
	var csr certificatesv1.CertificateSigningRequest
	if err := r.Client.Get(ctx, req.NamespacedName, &csr); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if csr.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName || decided(&csr) {
		return ctrl.Result{}, nil
	}
	asked, err := Read(&csr)
	if err != nil {
		return ctrl.Result{}, r.decide(ctx, &csr, certificatesv1.CertificateDenied, "NoKubeletRequest", "the request is refused: "+err.Error())
	}
	bound, err := r.bound(ctx, asked.Node)
	if err != nil {
		return ctrl.Result{}, err
	}
	said, _ := r.Feed.Get(asked.Node)
	a := Judge(asked, said, bound, r.Now())
	switch {
	case a.Approve:
		return ctrl.Result{}, r.decide(ctx, &csr, certificatesv1.CertificateApproved, a.Code, a.Reason)
	case !a.Wait:
		return ctrl.Result{}, r.decide(ctx, &csr, certificatesv1.CertificateDenied, a.Code, a.Reason)
	}
	// A new result of the node looks at the request at once.
	if left := csr.CreationTimestamp.Add(r.Wait).Sub(r.Now()); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	return ctrl.Result{}, r.decide(ctx, &csr, certificatesv1.CertificateDenied, a.Code, fmt.Sprintf("%s (waited %s)", a.Reason, r.Wait))
}

func decided(csr *certificatesv1.CertificateSigningRequest) bool {
	return slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == certificatesv1.CertificateApproved || c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed
	})
}

// bound is what the node object of the name is bound to; nil when there is none yet.
func (r *Reconciler) bound(ctx context.Context, name string) (*v1alpha1.NodeBinding, error) {
	var n corev1.Node
	if err := r.Client.Get(ctx, types.NamespacedName{Name: name}, &n); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	var nt v1alpha1.NodeTrust
	if err := r.Client.Get(ctx, types.NamespacedName{Name: name}, &nt); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if b := nt.Status.Node; b != nil && b.UID == n.UID {
		return b, nil
	}
	return nil, nil
}

// Answer is what to do with a request.
type Answer struct {
	Approve bool
	Wait    bool // not yet: what is missing may come
	Code    string
	Reason  string
}

// Judge is the rule. A node object that is there must be bound to the same TPM: its boot and machine are not compared, since a kubelet that has no
// certificate cannot tell of a new boot.
func Judge(asked *Request, said verdict.Said, bound *v1alpha1.NodeBinding, now time.Time) Answer {
	r := said.Result
	switch {
	case said.Removed || r == nil && said.Problem == "":
		return Answer{Wait: true, Code: "NotAttested", Reason: fmt.Sprintf("AIAS has no result for node %s: enrol it and start trust-agent", asked.Node)}
	case r == nil:
		return Answer{Wait: true, Code: "NotAttested", Reason: fmt.Sprintf("the result for node %s is refused: %s", asked.Node, said.Problem)}
	case !now.Before(r.Expires):
		return Answer{Wait: true, Code: "NotAttested", Reason: fmt.Sprintf("the result for node %s ended at %s", asked.Node, r.Expires.UTC().Format(time.RFC3339))}
	case r.Issued.After(now.Add(verdict.Skew)):
		return Answer{Wait: true, Code: "NotAttested", Reason: fmt.Sprintf("the result for node %s was issued in the future: check the clocks of AIAS and of the controller", asked.Node)}
	case !r.Trusted:
		return Answer{Code: "Untrusted", Reason: fmt.Sprintf("AIAS does not trust node %s: %s", asked.Node, said.Reason)}
	case said.Trust != protocol.Trusted:
		return Answer{Wait: true, Code: "NotAttested", Reason: fmt.Sprintf("AIAS does not stand by the last result of node %s: %s", asked.Node, said.Reason)}
	case r.Node != asked.Node:
		return Answer{Code: "OtherNode", Reason: "the result is about another node"}
	case bound != nil && bound.AKName != r.AKName:
		return Answer{Code: "OtherTPM", Reason: fmt.Sprintf("node %s is bound to another TPM: delete the Node object if its machine was replaced", asked.Node)}
	case asked.Credential != "" && slices.Contains(r.Machine.KubeletKeys, asked.Credential):
		return Answer{Approve: true, Code: "Attested", Reason: fmt.Sprintf("node %s is attested (TPM key %.16s...), and renews the certificate that lies on it", asked.Node, r.AKName)}
	case !slices.Contains(r.Machine.KubeletKeys, asked.Key):
		return Answer{Wait: true, Code: "UnknownKey", Reason: fmt.Sprintf("trust-agent on node %s has not reported this key: does the request come from there?", asked.Node)}
	}
	return Answer{Approve: true, Code: "Attested", Reason: fmt.Sprintf("node %s is attested (TPM key %.16s...), and the key lies on it", asked.Node, r.AKName)}
}

// decide writes the decision.
func (r *Reconciler) decide(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, what certificatesv1.RequestConditionType, code, reason string) error {
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: what, Status: corev1.ConditionTrue, Reason: code, Message: reason, LastUpdateTime: metav1.NewTime(r.Now()), LastTransitionTime: metav1.NewTime(r.Now()),
	})
	if err := r.Client.SubResource("approval").Update(ctx, csr); err != nil {
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return client.IgnoreNotFound(err)
		}
		return fmt.Errorf("decide on request %s: %w", csr.Name, err)
	}
	word := Approved
	if what == certificatesv1.CertificateDenied {
		word = Denied
	}
	r.Count(word)
	r.Log.Info("certificate request of a kubelet", "request", csr.Name, "decision", word, "code", code, "reason", reason, "user", csr.Spec.Username)
	return nil
}

// Node returns the node name that a request of our signer is about, to look at it again when AIAS has news; "" for others.
func Node(csr *certificatesv1.CertificateSigningRequest) string {
	if csr.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName || decided(csr) {
		return ""
	}
	asked, err := Read(csr)
	if err != nil {
		return ""
	}
	return asked.Node
}
