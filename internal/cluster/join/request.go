package join

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// user and group of kubelets (Kubernetes, Node authorization).
const (
	userPrefix = "system:node:"
	group      = "system:nodes"
)

// Request is a well-formed request for a kubelet's client certificate.
type Request struct {
	Node string
	// Key is the SHA-256 of the DER SubjectPublicKeyInfo of the key that signed the request, hexadecimal.
	Key string
	// Credential is the SHA-256 of the DER certificate that the node's own kubelet asked with, hexadecimal; empty when somebody else asks, such as
	// the holder of a bootstrap token. The API server says so, not the request.
	Credential string
}

// credentialID is where the API server says with which credential a request came, and credentialX509 what begins that of a certificate.
const (
	credentialID   = "authentication.kubernetes.io/credential-id"
	credentialX509 = "X509SHA256="
)

// Read reads a request as the signer kubernetes.io/kube-apiserver-client-kubelet defines it, and refuses all else: its signer signs what is approved
// without further questions.
func Read(csr *certificatesv1.CertificateSigningRequest) (*Request, error) {
	block, rest := pem.Decode(csr.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("it is not one PEM certificate request")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("it is not signed by its own key: %w", err)
	}
	node, ok := strings.CutPrefix(r.Subject.CommonName, userPrefix)
	switch {
	case !ok || node == "":
		return nil, fmt.Errorf("its common name is %.80q, want %sNAME", r.Subject.CommonName, userPrefix)
	case len(r.Subject.Organization) != 1 || r.Subject.Organization[0] != group:
		return nil, fmt.Errorf("its organization is %.80q, want %s alone", r.Subject.Organization, group)
	case len(r.DNSNames)+len(r.IPAddresses)+len(r.EmailAddresses)+len(r.URIs) > 0:
		return nil, errors.New("it asks for names besides its subject")
	}
	if err := usages(csr.Spec.Usages); err != nil {
		return nil, err
	}
	if u := csr.Spec.Username; strings.HasPrefix(u, userPrefix) && u != r.Subject.CommonName {
		return nil, fmt.Errorf("%s asks for the certificate of another node", u)
	}
	der, err := x509.MarshalPKIXPublicKey(r.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("its key cannot be read: %w", err)
	}
	sum := sha256.Sum256(der)
	return &Request{Node: node, Key: hex.EncodeToString(sum[:]), Credential: credential(csr)}, nil
}

// credential returns the certificate that a kubelet asked with, as Request.Credential.
func credential(csr *certificatesv1.CertificateSigningRequest) string {
	if !strings.HasPrefix(csr.Spec.Username, userPrefix) || !slices.Contains(csr.Spec.Groups, group) {
		return ""
	}
	if ids := csr.Spec.Extra[credentialID]; len(ids) == 1 {
		if id, ok := strings.CutPrefix(ids[0], credentialX509); ok {
			return strings.ToLower(id)
		}
	}
	return ""
}

// usages are those of a kubelet's client: client auth, and what goes with it.
func usages(list []certificatesv1.KeyUsage) error {
	allowed := []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageClientAuth}
	for _, u := range list {
		if !slices.Contains(allowed, u) {
			return fmt.Errorf("it asks for usage %.40q, which no kubelet's client needs", u)
		}
	}
	if !slices.Contains(list, certificatesv1.UsageClientAuth) || !slices.Contains(list, certificatesv1.UsageDigitalSignature) {
		return errors.New("it does not ask for usages digital signature and client auth")
	}
	return nil
}
