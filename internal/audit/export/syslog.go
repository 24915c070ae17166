package export

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/internal/audit/shown"
)

// Times of a syslog connection. settled is how long one must live after the other end's TCP has everything.
const (
	dialTime  = 10 * time.Second
	writeTime = 30 * time.Second
	settled   = 2 * time.Second
)

var errClosed = errors.New("the receiver closed the connection")

// syslogSink is a connection to a receiver of syslog, when there is one.
type syslogSink struct {
	cfg  Syslog
	conn net.Conn
	tcp  *net.TCPConn // beneath TLS
	gone *atomic.Pointer[error]
}

func (s *syslogSink) settle() time.Duration { return settled }

// broken tells once that the connection ended.
func (s *syslogSink) broken() error {
	if s.conn == nil {
		return nil
	}
	if err := s.gone.Load(); err != nil {
		s.close()
		return *err
	}
	return nil
}

func (s *syslogSink) close() {
	if s.conn != nil {
		_ = s.conn.Close() // what is not sure is sent again
		s.conn = nil
	}
}

func (s *syslogSink) dial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	c, err := s.cfg.config()
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.cfg.Address)
	if err != nil {
		return err
	}
	s.tcp, s.conn = conn.(*net.TCPConn), conn //nolint:forcetypeassert // of network tcp
	if c != nil {
		c.ServerName, _, _ = net.SplitHostPort(s.cfg.Address)
		t := tls.Client(conn, c)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			s.conn = nil
			return err
		}
		s.conn = t
	}
	s.gone = new(atomic.Pointer[error])
	go func(conn net.Conn, gone *atomic.Pointer[error]) { // a receiver says nothing: what ends this is the end
		_, err := io.Copy(io.Discard, conn)
		if err == nil {
			err = errClosed
		}
		gone.Store(&err)
	}(s.conn, s.gone)
	return nil
}

// send writes the items and waits until the other end's TCP has them.
func (s *syslogSink) send(ctx context.Context, _ string, items []Item) error {
	if err := s.broken(); err != nil {
		return err
	}
	if s.conn == nil {
		if err := s.dial(ctx); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	for i := range items {
		line := shown.Syslog(items[i].Entry)
		b.WriteString(strconv.Itoa(len(line))) // octet counting: RFC 6587, 3.4.1
		b.WriteByte(' ')
		b.WriteString(line)
	}
	end := time.Now().Add(writeTime)
	err := s.conn.SetWriteDeadline(end)
	if err == nil {
		_, err = s.conn.Write(b.Bytes())
	}
	if err == nil {
		err = s.drained(ctx, end)
	}
	if err != nil {
		s.close()
	}
	return err
}

// drained waits until nothing is unacknowledged on the connection.
func (s *syslogSink) drained(ctx context.Context, end time.Time) error {
	raw, err := s.tcp.SyscallConn()
	if err != nil {
		return err
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		left := 0
		var failed error
		err := raw.Control(func(fd uintptr) { left, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }) //nolint:gosec // a descriptor
		if err = errors.Join(err, failed); err != nil || left == 0 {
			return err
		}
		if gone := s.gone.Load(); gone != nil {
			return *gone
		}
		if time.Now().After(end) {
			return fmt.Errorf("the receiver did not take %d bytes within %v", left, writeTime)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}
