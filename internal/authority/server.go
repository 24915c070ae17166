package authority

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Time limits of a connection. One that does nothing holds nobody up: each has its own goroutine, and these end it.
const (
	headerTime = 10 * time.Second // TLS handshake, and the head of a request
	readTime   = 30 * time.Second // a whole request; large Evidence gets more (postAttest)
	writeTime  = 90 * time.Second
	drainTime  = 10 * time.Second
	maxHeader  = 16 << 10
)

// Serve answers on l until ctx ends, then lets requests finish. It runs what happens in the background, too, and keeps the ledger.
func (a *Authority) Serve(ctx context.Context, l net.Listener) (err error) {
	room, err := newRoom(a.log, int64(a.cfg.Limits.Connections))
	if err != nil {
		return errors.Join(err, l.Close())
	}
	if err := a.OpenLedger(ctx); err != nil {
		return errors.Join(err, l.Close())
	}
	defer func() { err = errors.Join(err, a.CloseLedger(ctx)) }()
	srv := &http.Server{
		Handler: a.Handler(), ReadHeaderTimeout: headerTime, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: time.Duration(a.cfg.Limits.Idle),
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	// Streams of events never end by themselves: they see this context.
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	srv.BaseContext = func(net.Listener) context.Context { return base }

	var wg sync.WaitGroup
	defer wg.Wait()
	background, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Add(1)
	go func() {
		defer wg.Done()
		a.Run(background)
	}()
	stopDisks, err := a.serveDisks(ctx, room)
	if err != nil {
		return err
	}
	defer stopDisks()
	failed := make(chan error, 1)
	go func() {
		failed <- srv.Serve(tls.NewListener(&bounded{Listener: l, max: int64(a.cfg.Limits.Connections), room: room, log: a.log}, a.TLS()))
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	a.log.Info("shutting down: requests may finish")
	drain, done := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer done()
	a.changes.close()
	err = srv.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	return err
}

// TLS returns the server's TLS configuration. HTTP/1.1 with keep-alive only: a node has one request at a time, and HTTP/2 would cost several times the
// memory for each of them. The chain holds the root, so that an agent that knows only the root's hash can recognise it.
func (a *Authority) TLS() *tls.Config {
	certs := &serverCertificate{authority: a}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: a.ca.pool(), Time: a.now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certs.get() },
	}
}

// serverCertificate is made at start, never stored, and made anew in time.
type serverCertificate struct {
	authority *Authority
	mu        sync.Mutex
	cert      *tls.Certificate
}

func (s *serverCertificate) get() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.authority
	if s.cert != nil && a.now().Add(serverLifetime/3).Before(s.cert.Leaf.NotAfter) {
		return s.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := a.ca.server(a.cfg.ServerNames, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	s.cert = &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.ca.issuing.Raw, a.ca.root.Raw}, PrivateKey: key, Leaf: leaf}
	return s.cert, nil
}

// bounded closes connections above a number at once, instead of letting them wait before those that are open.
type bounded struct {
	net.Listener
	max  int64
	open atomic.Int64
	room *room // for the connections of all listeners
	log  *slog.Logger
}

// Accept returns the next connection that there is room for.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if b.open.Add(1) <= b.max && b.room.enter() {
			return &counted{Conn: c, done: func() { b.open.Add(-1); b.room.leave() }}, nil
		}
		open := b.open.Add(-1)
		_ = c.Close()
		b.log.Warn("connection refused: too many are open", "from", c.RemoteAddr(), "open", open, "limit", b.max)
	}
}

// counted tells when it is closed, once.
type counted struct {
	net.Conn
	once sync.Once
	done func()
}

// Close closes the connection.
func (c *counted) Close() error {
	c.once.Do(c.done)
	return c.Conn.Close()
}
