package operator

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// Access is how a program in a cluster reaches AIAS without a certificate of its own: by a token of its service account, made for the audience
// that AIAS asks for. Both files are read again for each request, as the kubelet writes them anew.
type Access struct {
	Server    string // "https://aias.touchstone.svc:8443"
	CAFile    string // PEM: root certificate of AIAS, which AIAS publishes in a ConfigMap
	TokenFile string // projected token of the service account
}

const maxAccessFile = 64 << 10 // bytes of a token, and of the certificates

// access is the state behind an Access.
type access struct {
	files Access
	mu    sync.Mutex
	ca    []byte // what http trusts
	http  *http.Client
}

// NewAccess makes a client that shows a token. The files need not be there yet: a request fails as long as they are not.
func NewAccess(a Access) (*Client, error) {
	if !strings.HasPrefix(a.Server, "https://") {
		return nil, fmt.Errorf("AIAS at %q: want an https:// address", a.Server)
	}
	if a.CAFile == "" || a.TokenFile == "" {
		return nil, errors.New("access to AIAS: want the file of its root certificate and the file of the token")
	}
	return &Client{base: strings.TrimSuffix(a.Server, "/"), access: &access{files: a}}, nil
}

// send sends a request as whoever the client is.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	h := c.http
	if c.access != nil {
		var token string
		var err error
		if h, token, err = c.access.open(); err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := h.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask AIAS: %w", err)
	}
	return resp, nil
}

func (a *access) open() (*http.Client, string, error) {
	token, err := readBounded(a.files.TokenFile)
	if err != nil {
		return nil, "", fmt.Errorf("token for AIAS: %w", err)
	}
	ca, err := readBounded(a.files.CAFile)
	if err != nil {
		return nil, "", fmt.Errorf("root certificate of AIAS: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.http == nil || !bytes.Equal(a.ca, ca) {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(ca) {
			return nil, "", fmt.Errorf("root certificate of AIAS: %s holds no certificate", a.files.CAFile)
		}
		a.closeIdle()
		a.http, a.ca = client(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}), ca
	}
	return a.http, strings.TrimSpace(string(token)), nil
}

func (a *access) closeIdle() {
	if a.http != nil {
		a.http.CloseIdleConnections()
	}
}

// client is an HTTP client for AIAS. It follows no redirects: AIAS sends none, and a token is for nobody else.
func client(c *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: c, TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 4, IdleConnTimeout: 60 * time.Second,
			ResponseHeaderTimeout: 60 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAccessFile+1))
	if err == nil && (len(b) > maxAccessFile || len(bytes.TrimSpace(b)) == 0) {
		err = fmt.Errorf("%s: %d bytes, want 1 to %d", path, len(b), maxAccessFile)
	}
	return b, err
}
