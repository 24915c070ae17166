package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// forgotten says that AIAS has no record of this worker any more: its data was lost, or it removed the worker. Where something gives the agent the right to
// enrol (the token of its pod, a join token that is still there), the next session does. AIAS decides on that as on any enrolment: name and TPM stay bound.
type forgotten struct {
	why   string
	cause error
}

// Error says why, and what AIAS said.
func (f *forgotten) Error() string { return f.why + ": " + f.cause.Error() }

// Unwrap is what AIAS said.
func (f *forgotten) Unwrap() error { return f.cause }

// byHand is what a person must do when the agent may not.
func (a *Agent) byHand(node string) string {
	return fmt.Sprintf("run `touchstone token create --node %s` at AIAS, and here what it prints, with --force", node)
}

// judge looks at what ended a session of an enrolled worker, and says what that means.
func (a *Agent) judge(ctx context.Context, id *Identity, err error) error {
	var r *Refusal
	switch {
	case ctx.Err() != nil:
		return err
	case errors.As(err, &r) && r.Status == http.StatusForbidden && r.Type == protocol.ProblemNotEnrolled:
		err = &forgotten{"AIAS does not know this worker", err}
	case brokenTLS(err) && a.otherRoot(ctx, id):
		err = &forgotten{"AIAS has another root certificate than the one that enrolled this worker", err}
	case brokenTLS(err):
		return fmt.Errorf("%w; if AIAS was set up anew, give the agent its new root (caFile or caHash) and %s", err, a.byHand(id.Node))
	default:
		return err
	}
	if a.cfg.TokenFile == "" {
		return fmt.Errorf("%w: no tokenFile gives the right to enrol anew: %s", err, a.byHand(id.Node))
	}
	return err
}

// brokenTLS reports whether one of the two sides did not take the other's certificate. Only a new session reads the root of AIAS anew.
func brokenTLS(err error) bool {
	var server *tls.CertificateVerificationError
	var alert *net.OpError
	return errors.As(err, &server) || errors.As(err, &alert) && alert.Op == "remote error"
}

// otherRoot reports whether the server is AIAS by what the configuration says (caFile, caHash), and is not under the root of the enrolment. What is only
// unknown is no AIAS: nothing is sent to it, the token least of all.
func (a *Agent) otherRoot(ctx context.Context, id *Identity) bool {
	if a.cfg.CAFile == "" && a.cfg.CAHash == "" {
		return false
	}
	trust, err := trustFrom(&a.cfg, nil)
	if err != nil {
		return false
	}
	c, err := newClient(a.cfg.Server, trust, nil, time.Duration(a.cfg.Timeout))
	if err != nil {
		return false
	}
	defer c.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+protocol.PathJWKS, nil)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	old, links := x509.NewCertPool(), x509.NewCertPool()
	if !old.AppendCertsFromPEM([]byte(id.CA)) {
		return false
	}
	chain := resp.TLS.PeerCertificates
	for _, link := range chain[1:] {
		links.AddCert(link)
	}
	var unknown x509.UnknownAuthorityError
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: old, Intermediates: links, CurrentTime: a.now()})
	return errors.As(err, &unknown)
}
