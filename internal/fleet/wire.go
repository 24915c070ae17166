package fleet

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

const (
	answerTime = 30 * time.Second // for one request, a TLS handshake included
	maxAnswer  = 1 << 20          // bytes
)

// wire is one side of a connection to AIAS: HTTP/1.1 over TLS 1.3, one request at a time. net/http would spend two goroutines and two buffers on
// each of thousands of connections, and more CPU than AIAS. It is for one goroutine at a time.
type wire struct {
	address string
	config  *tls.Config
	conn    *tls.Conn // nil: not connected
	used    bool      // an answer came over conn
	resumed bool
}

// newWire makes a connection that is opened when it is needed. cert is nil for a caller without certificate.
func newWire(address string, roots *x509.CertPool, cert *tls.Certificate) *wire {
	host, _, _ := net.SplitHostPort(address) // checked before
	c := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: host, NextProtos: []string{"http/1.1"}}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
		c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	return &wire{address: address, config: c}
}

// open connects, unless the connection stands already.
func (w *wire) open(ctx context.Context) error {
	if w.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", w.address)
	if err != nil {
		return err
	}
	conn := tls.Client(raw, w.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return err
	}
	w.conn, w.used, w.resumed = conn, false, conn.ConnectionState().DidResume
	return nil
}

// close ends the connection; the next request opens another.
func (w *wire) close() {
	if w.conn != nil {
		_ = w.conn.Close()
		w.conn = nil
	}
}

// post sends one request and decodes the JSON answer into out. A refusal is a *protocol.Problem. A kept connection that AIAS closed meanwhile
// is opened again once. r is any reader; what it holds is dropped.
func (w *wire) post(ctx context.Context, r *bufio.Reader, path, mediaType string, body []byte, out any) error {
	for {
		if err := w.open(ctx); err != nil {
			return err
		}
		answered, err := w.exchange(r, path, mediaType, body, out)
		if err == nil || answered {
			return err
		}
		again := w.used && ctx.Err() == nil
		w.close()
		if !again {
			return err
		}
	}
}

// exchange tells whether an answer came at all.
func (w *wire) exchange(r *bufio.Reader, path, mediaType string, body []byte, out any) (answered bool, err error) {
	if err := w.conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return false, err
	}
	request := make([]byte, 0, 256+len(body)) // head and body in one record
	request = append(request, "POST "+path+" HTTP/1.1\r\nHost: "+w.address+"\r\nUser-Agent: touchstone-fleet\r\nContent-Type: "+mediaType+"\r\nContent-Length: "...)
	request = strconv.AppendInt(request, int64(len(body)), 10)
	request = append(append(request, "\r\n\r\n"...), body...)
	if _, err := w.conn.Write(request); err != nil {
		return false, err
	}
	r.Reset(w.conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	w.used = true
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	_ = resp.Body.Close()
	if err != nil || resp.Close {
		w.close()
	}
	if err != nil {
		return true, fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		p := &protocol.Problem{}
		if json.Unmarshal(answer, p) != nil || p.Title == "" {
			p = &protocol.Problem{Title: "AIAS answered " + resp.Status, Detail: string(bytes.TrimSpace(answer[:min(len(answer), 200)]))}
		}
		p.Status = resp.StatusCode
		return true, p
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return true, fmt.Errorf("read the answer: %w", err)
	}
	return true, nil
}

// postJSON is post with a JSON body.
func (w *wire) postJSON(ctx context.Context, r *bufio.Reader, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return w.post(ctx, r, path, "application/json", body, out)
}
