package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/version"
)

// Client speaks to AIAS. It is safe for concurrent use.
type Client struct {
	base string
	http *http.Client
}

// Refusal is an answer of AIAS that is not the wanted one.
type Refusal struct {
	protocol.Problem
	// RetryAfter is how long AIAS asks to wait; 0 when it did not say.
	RetryAfter time.Duration
}

// Error says what AIAS said.
func (r *Refusal) Error() string { return r.Problem.Error() }

// idleTime is how long an idle connection is kept: a little shorter than AIAS keeps it by default, so that no request is sent into one that is
// being closed.
const idleTime = 8 * time.Second

// newClient makes a client for a server. key is the client certificate, nil before enrolment.
func newClient(server string, trust serverTrust, key *tls.Certificate, timeout time.Duration) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("server %q is not an https URL", server)
	}
	dialer := &net.Dialer{Timeout: min(timeout, 10*time.Second), KeepAlive: 15 * time.Second}
	return &Client{
		base: strings.TrimSuffix(server, "/"),
		http: &http.Client{
			Timeout: timeout,
			Transport: &http.Transport{
				Proxy:                 http.ProxyFromEnvironment,
				DialContext:           dialer.DialContext,
				TLSClientConfig:       trust.config(u.Hostname(), key),
				TLSHandshakeTimeout:   min(timeout, 15*time.Second), // the TPM signs in it
				ResponseHeaderTimeout: timeout,
				MaxIdleConns:          2,
				IdleConnTimeout:       idleTime,
			},
			// AIAS never redirects; a redirect would carry Evidence elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Dial connects an enrolled worker: what the agent does by itself, for tools that want to speak to AIAS as the worker.
func Dial(cfg *Config, id *Identity, t TPM) (*Client, error) {
	trust, err := trustFrom(cfg, id)
	if err != nil {
		return nil, err
	}
	key, err := clientKey(id, t)
	if err != nil {
		return nil, err
	}
	return newClient(cfg.Server, trust, key, time.Duration(cfg.Timeout))
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Enrol begins an enrolment.
func (c *Client) Enrol(ctx context.Context, req *protocol.EnrolRequest) (*protocol.EnrolChallenge, error) {
	out := &protocol.EnrolChallenge{}
	return out, c.json(ctx, http.MethodPost, protocol.PathEnrol, req, out)
}

// Activate ends an enrolment.
func (c *Client) Activate(ctx context.Context, proof *protocol.EnrolProof) (*protocol.Enrolment, error) {
	out := &protocol.Enrolment{}
	return out, c.json(ctx, http.MethodPost, protocol.PathActivate, proof, out)
}

// Challenge asks for a fresh challenge.
func (c *Client) Challenge(ctx context.Context) (*protocol.Challenge, error) {
	out := &protocol.Challenge{}
	return out, c.json(ctx, http.MethodGet, protocol.PathChallenge, nil, out)
}

// Attest sends an encoded Evidence document.
func (c *Client) Attest(ctx context.Context, document []byte) (*protocol.Attestation, error) {
	out := &protocol.Attestation{}
	return out, c.do(ctx, http.MethodPost, protocol.PathAttest, protocol.MediaTypeEvidence, document, out)
}

// Renew gets a new client certificate over the connection that the present one opened.
func (c *Client) Renew(ctx context.Context, req *protocol.RenewRequest) (*protocol.Renewal, error) {
	out := &protocol.Renewal{}
	return out, c.json(ctx, http.MethodPost, protocol.PathRenew, req, out)
}

// News waits at AIAS, for hold at most, and reports whether the worker should attest.
func (c *Client) News(ctx context.Context, tag uint64, hold time.Duration) (bool, error) {
	path := fmt.Sprintf("%s?tag=%d&seconds=%d", protocol.PathNews, tag, int(hold/time.Second))
	out := &protocol.News{}
	err := c.json(ctx, http.MethodGet, path, nil, out)
	return out.Attest, err
}

// ReleaseKey asks for the key of an image, encrypted to the TPM.
func (c *Client) ReleaseKey(ctx context.Context, req *protocol.ReleaseRequest) (*protocol.Release, error) {
	out := &protocol.Release{}
	return out, c.json(ctx, http.MethodPost, protocol.PathImageRelease, req, out)
}

// LostKeys asks which image keys the worker would not get any more.
func (c *Client) LostKeys(ctx context.Context, held []string) ([]protocol.LostKey, error) {
	out := &protocol.LostKeys{}
	err := c.json(ctx, http.MethodPost, protocol.PathImageHeld, &protocol.HeldKeys{Keys: held}, out)
	return out.Lost, err
}

// AuditAt asks up to where AIAS has the audit chain of this worker.
func (c *Client) AuditAt(ctx context.Context) (*protocol.AuditAck, error) {
	out := &protocol.AuditAck{}
	return out, c.json(ctx, http.MethodGet, protocol.PathAudit, nil, out)
}

// SendAudit sends a batch of the audit chain.
func (c *Client) SendAudit(ctx context.Context, batch []byte, lost bool) (*protocol.AuditAck, error) {
	path := protocol.PathAudit
	if lost {
		path += "?lost=1"
	}
	out := &protocol.AuditAck{}
	return out, c.do(ctx, http.MethodPost, path, protocol.MediaTypeAudit, batch, out)
}

// Tailoring asks for the tailoring that the policy wants scans made by.
func (c *Client) Tailoring(ctx context.Context) (*protocol.Tailoring, error) {
	out := &protocol.Tailoring{}
	return out, c.json(ctx, http.MethodGet, protocol.PathTailoring, nil, out)
}

// SendScanDocument hands over a document of a compliance scan that was asked for with documents, compressed.
func (c *Client) SendScanDocument(ctx context.Context, kind string, document []byte) error {
	return c.do(ctx, http.MethodPut, strings.Replace(protocol.PathScanDocument, "{kind}", kind, 1), protocol.MediaTypeScanDocument, document, nil)
}

// SendCompliance hands over a compliance scan.
func (c *Client) SendCompliance(ctx context.Context, req *protocol.ComplianceReport) (*protocol.ComplianceAnswer, error) {
	out := &protocol.ComplianceAnswer{}
	return out, c.json(ctx, http.MethodPost, protocol.PathCompliance, req, out)
}

// ClaimScan asks which image to scan next.
func (c *Client) ClaimScan(ctx context.Context, req *protocol.ScanClaim) (*protocol.ScanLease, error) {
	out := &protocol.ScanLease{}
	return out, c.json(ctx, http.MethodPost, protocol.PathScanClaim, req, out)
}

// SendScan hands over what was found in an image.
func (c *Client) SendScan(ctx context.Context, req *protocol.WorkerScan) (*protocol.ScanTaken, error) {
	out := &protocol.ScanTaken{}
	return out, c.json(ctx, http.MethodPost, protocol.PathScanImage, req, out)
}

func (c *Client) json(ctx context.Context, method, path string, in, out any) error {
	if in == nil {
		return c.do(ctx, method, path, "", nil, out)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	return c.do(ctx, method, path, "application/json", body, out)
}

func (c *Client) do(ctx context.Context, method, path, mediaType string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	req.Header.Set("User-Agent", "trust-agent/"+version.String())
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("reach AIAS: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxEnrolment+1))
	if err != nil {
		return fmt.Errorf("read the answer of AIAS: %w", err)
	}
	if len(answer) > maxEnrolment {
		return fmt.Errorf("the answer of AIAS has more than %d bytes", maxEnrolment)
	}
	if resp.StatusCode/100 != 2 {
		return refusal(resp, answer)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read the answer of AIAS: %w", err)
	}
	return nil
}

// refusal reads an answer that is no success. One that is no problem document (a proxy's page) gets a title of its own.
func refusal(resp *http.Response, body []byte) error {
	r := &Refusal{RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	if err := json.Unmarshal(body, &r.Problem); err != nil || r.Title == "" {
		r.Problem = protocol.Problem{Title: "AIAS answered " + resp.Status}
	}
	r.Status = resp.StatusCode
	return r
}

// maxRetryAfter bounds what a server can make the agent wait.
const maxRetryAfter = 10 * time.Minute

// retryAfter reads the header as a number of seconds; the date form is not used by AIAS.
func retryAfter(header string) time.Duration {
	n, err := strconv.Atoi(header)
	if err != nil || n <= 0 {
		return 0
	}
	return min(time.Duration(min(n, 3600))*time.Second, maxRetryAfter)
}

// freshChallenge returns the challenge that came with a refusal, when the agent can go on with it.
func freshChallenge(err error) *protocol.Challenge {
	var r *Refusal
	if errors.As(err, &r) && r.Status == http.StatusConflict && r.Challenge != nil && len(r.Challenge.Nonce) > 0 {
		return r.Challenge
	}
	return nil
}
