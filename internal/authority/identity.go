package authority

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"touchstone.dev/touchstone/internal/protocol"
)

// role is what a client certificate of AIAS is for.
type role string

const (
	uriScheme        = "touchstone"
	roleNode         = role("node")
	roleBoot         = role("boot") // a node in its initramfs: attests, and nothing else
	roleOperator     = role("operator")
	roleRelyingParty = role("relying-party") // reads results
	roleController   = role("controller")    // reads results, and carries policy and tags from a cluster to AIAS
)

// identity is who speaks: from the verified client certificate or from a token that the cluster vouches for, never from what the request says.
type identity struct {
	role  role
	name  string
	key   [32]byte // SHA-256 of the SubjectPublicKeyInfo; of a certificate only
	token string   // that was shown instead of a certificate
}

// identify says who speaks. A token counts where Relying Parties may ask, and only for who shows no certificate.
func (a *Authority) identify(r *http.Request, for_ audience) (identity, error) {
	id := certified(r.TLS)
	if id.role != "" || a.cluster == nil || for_ != readers && for_ != controllers {
		return id, nil
	}
	token, ok := bearer(r)
	if !ok {
		return id, nil
	}
	return a.cluster.party(r.Context(), token)
}

// bearer returns the token of a request (RFC 6750, 2.1).
func bearer(r *http.Request) (string, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}

// certified reads the client certificate of a connection. Without one the identity is empty.
func certified(cs *tls.ConnectionState) identity {
	if cs == nil || len(cs.VerifiedChains) == 0 || len(cs.PeerCertificates) == 0 {
		return identity{}
	}
	cert := cs.PeerCertificates[0]
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != uriScheme {
		return identity{}
	}
	r, name, ok := strings.Cut(cert.URIs[0].Opaque, ":")
	if !ok {
		return identity{}
	}
	return identity{role: role(r), name: name, key: sha256.Sum256(cert.RawSubjectPublicKeyInfo)}
}

// nodeOf returns the enrolled node that the certificate belongs to. A certificate from before a new enrolment, or of a deleted node, is refused.
func (a *Authority) nodeOf(id identity) (*node, error) {
	if id.role != roleNode {
		if id.role == roleBoot {
			return nil, refuse(http.StatusForbidden, "boot-certificate", "the certificate of an initramfs is good for attesting only", "", "use the certificate of the enrolment")
		}
		return nil, refuse(http.StatusForbidden, "not-a-node", "the client certificate of a node is needed",
			"", "enrol first; operators use the operator API")
	}
	n := a.node(id.name)
	if n == nil {
		return nil, refuse(http.StatusForbidden, "not-enrolled", "this node is not enrolled",
			fmt.Sprintf("node %q was removed or never enrolled here", id.name), "enrol the node again with a join token")
	}
	n.mu.RLock()
	same := n.tlsKey == id.key
	n.mu.RUnlock()
	if !same {
		return nil, refuse(http.StatusForbidden, "old-certificate", "the client certificate is not the one of this enrolment",
			fmt.Sprintf("node %q has enrolled again with another key", id.name), "use the newest certificate, or enrol again")
	}
	return n, nil
}

// attesterOf is nodeOf for what a node does in its initramfs as well.
func (a *Authority) attesterOf(id identity) (*node, error) {
	if id.role == roleBoot {
		id.role = roleNode
	}
	return a.nodeOf(id)
}

// nodeName is a DNS-1123 subdomain, as Kubernetes names nodes.
var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$`)

const maxName = 253

func checkNodeName(s string) error {
	if len(s) > maxName || !nodeName.MatchString(s) {
		return errors.New("want a DNS-1123 subdomain: lower case letters, digits, '-' and '.', at most 253 characters")
	}
	return nil
}

// problemPrefix begins the type of every Problem.
const problemPrefix = "urn:touchstone:problem:"

// refuse makes the answer to a request that is not granted.
func refuse(status int, kind, title, detail, remedy string) *protocol.Problem {
	return &protocol.Problem{Type: problemPrefix + kind, Title: title, Status: status, Detail: detail, Remedy: remedy}
}
