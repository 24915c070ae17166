// Package operator is the client of AIAS for people and programs that run it: the CLI, the demo and the controller.
//
// A Client is made from an operator bundle (protocol.OperatorBundle), a file that `aias init` writes with mode 0600, or, in a cluster, from the token
// of a service account (Access). It speaks HTTPS with TLS 1.3 and knows AIAS by its root certificate. A refusal by AIAS comes back as a
// *protocol.Problem, to be found with errors.As.
package operator

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// EnvBundle names the environment variable that holds the path of the operator bundle.
const EnvBundle = "TOUCHSTONE_OPERATOR"

const maxAnswer = 128 << 20 // bytes of one answer; whole Evidence is the largest

// Client calls the operator API of one AIAS. It is safe for concurrent use.
type Client struct {
	base    string
	http    *http.Client
	access  *access       // instead of http
	silence time.Duration // for tests; 0 means silence
}

// Open reads the bundle at path, or the one that $TOUCHSTONE_OPERATOR names when path is empty.
func Open(path string) (*Client, error) {
	if path == "" {
		path = os.Getenv(EnvBundle)
	}
	if path == "" {
		return nil, errors.New("no operator bundle: give --operator FILE or set $" + EnvBundle + " (aias writes it as operator.json in its data folder)")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the operator bundle: %w", err)
	}
	var b protocol.OperatorBundle
	if err := json.Unmarshal(data, &b); err != nil {
		return nil, fmt.Errorf("operator bundle %s: %w", path, err)
	}
	return New(b)
}

// New makes a client from a bundle.
func New(b protocol.OperatorBundle) (*Client, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(b.CA)) {
		return nil, errors.New("operator bundle: no CA certificate in it")
	}
	pair, err := tls.X509KeyPair([]byte(b.Certificate), []byte(b.Key))
	if err != nil {
		return nil, fmt.Errorf("operator bundle: %w", err)
	}
	if !strings.HasPrefix(b.Server, "https://") {
		return nil, fmt.Errorf("operator bundle: server %q: want an https:// address", b.Server)
	}
	h := client(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{pair}})
	return &Client{base: strings.TrimSuffix(b.Server, "/"), http: h}, nil
}

// Server returns the address of AIAS.
func (c *Client) Server() string { return c.base }

// Close ends idle connections.
func (c *Client) Close() {
	if c.access == nil {
		c.http.CloseIdleConnections()
		return
	}
	c.access.mu.Lock()
	defer c.access.mu.Unlock()
	c.access.closeIdle()
}

// do sends one request and decodes a JSON answer into out, or returns its bytes when out is a *[]byte. A nil out is not read.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	contentType := "application/json"
	switch v := in.(type) {
	case nil:
	case []byte:
		body, contentType = bytes.NewReader(v), "application/yaml"
	default:
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of AIAS: %w", err)
	}
	if resp.StatusCode >= 300 {
		return problem(resp, data)
	}
	switch v := out.(type) {
	case nil:
		return nil
	case *[]byte:
		*v = data
		return nil
	default:
		if err := json.Unmarshal(data, v); err != nil {
			return fmt.Errorf("read the answer of AIAS: %w", err)
		}
		return nil
	}
}

func problem(resp *http.Response, data []byte) error {
	p := &protocol.Problem{}
	if json.Unmarshal(data, p) != nil || p.Title == "" {
		p = &protocol.Problem{Title: "AIAS answered " + resp.Status, Status: resp.StatusCode, Detail: string(data[:min(len(data), 200)])}
	}
	return p
}
