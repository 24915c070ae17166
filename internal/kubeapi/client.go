package kubeapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	maxFile   = 256 << 10 // bytes of a token or of certificates
	maxAnswer = 1 << 20   // bytes
	// timeout of one request: whoever waits for it has a client that waits, too.
	timeout = 8 * time.Second
)

// folder is where a pod finds what it needs to reach its API server.
const folder = "/var/run/secrets/kubernetes.io/serviceaccount"

// Config says where the API server is and who we are.
type Config struct {
	Server    string // "https://10.96.0.1:443"
	CAFile    string // PEM
	TokenFile string
}

// ErrNotInCluster means that this process is no container of a pod with a service account.
var ErrNotInCluster = errors.New("this is no pod of a cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")

// InCluster returns the Config of a pod.
func InCluster() (Config, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return Config{}, ErrNotInCluster
	}
	return Config{Server: "https://" + net.JoinHostPort(host, port), CAFile: filepath.Join(folder, "ca.crt"), TokenFile: filepath.Join(folder, "token")}, nil
}

// Client asks one API server. It is safe for concurrent use.
type Client struct {
	cfg  Config
	mu   sync.Mutex
	ca   []byte // what http trusts
	http *http.Client
}

// New makes a client. Its files are read when something is asked.
func New(c Config) (*Client, error) {
	if !strings.HasPrefix(c.Server, "https://") {
		return nil, fmt.Errorf("API server %q: want an https:// address", c.Server)
	}
	if c.CAFile == "" || c.TokenFile == "" {
		return nil, errors.New("API server: want the file of its CA and the file of the token to show it")
	}
	c.Server = strings.TrimSuffix(c.Server, "/")
	return &Client{cfg: c}, nil
}

// StatusError is a refusal of the API server.
type StatusError struct {
	Code    int
	Message string
}

// Error says what the API server said.
func (e *StatusError) Error() string {
	return fmt.Sprintf("API server answered %d: %s", e.Code, e.Message)
}

// do sends one request, and decodes the answer into out.
func (c *Client) do(ctx context.Context, method, path, contentType string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.cfg.Server+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	h, err := c.open(req)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "aias")
	resp, err := h.Do(req)
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read the answer of the API server: %w", err)
	}
	if len(answer) > maxAnswer {
		return fmt.Errorf("the answer of the API server has more than %d bytes", maxAnswer)
	}
	if resp.StatusCode/100 != 2 {
		return refusal(resp.StatusCode, answer)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read the answer of the API server: %w", err)
	}
	return nil
}

// refusal reads a Status object (meta/v1).
func refusal(code int, answer []byte) error {
	var s struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(answer, &s) != nil || s.Message == "" {
		s.Message = http.StatusText(code)
	}
	return &StatusError{Code: code, Message: s.Message[:min(len(s.Message), 500)]}
}

// open puts our token into a request, and returns the client to send it with: another one when the CA changed.
func (c *Client) open(req *http.Request) (*http.Client, error) {
	token, err := readBounded(c.cfg.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("own token for the API server: %w", err)
	}
	ca, err := readBounded(c.cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("CA of the API server: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+string(bytes.TrimSpace(token)))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil && bytes.Equal(ca, c.ca) {
		return c.http, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("CA of the API server: %s holds no certificate", c.cfg.CAFile)
	}
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	c.ca, c.http = ca, &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: timeout, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4, MaxConnsPerHost: 16,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a token is for nobody else
	}
	return c.http, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && (len(b) > maxFile || len(bytes.TrimSpace(b)) == 0) {
		err = fmt.Errorf("%s: %d bytes, want 1 to %d", path, len(b), maxFile)
	}
	return b, err
}
