package source

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/internal/audit/record"
)

// DefaultBuffer is what the multicast socket may hold: some seconds of the most that auditd can write.
const DefaultBuffer = 64 << 20

// listen joins the multicast group. The kernel records it (EVENT_LISTENER).
func listen(buffer int) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		return -1, fmt.Errorf("audit socket: %w", err)
	}
	fail := func(err error) (int, error) {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("audit multicast (needs CAP_AUDIT_READ in the initial user namespace): %w", err)
	}
	// Beyond net.core.rmem_max: needs CAP_NET_ADMIN. Without it the kernel gives what it allows.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer); err != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer); err != nil {
			return fail(err)
		}
	}
	// So that time goes on when no message comes.
	tv := unix.NsecToTimeval((200 * time.Millisecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fail(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: readLogGroup}); err != nil {
		return fail(err)
	}
	return fd, nil
}

// live hands out the events of the multicast group until ctx ends.
func (r *Reader) live(ctx context.Context, fd int) error {
	defer func() { _ = unix.Close(fd) }()
	c := record.NewCoalescer(record.Options{
		Emit:      func(e *record.Event) { r.deliver(ctx, e, fromLive, 0) },
		Malformed: func(line []byte, _ int64) { r.malformed(line) },
		OpenBytes: maxWaiting,
	})
	buf := make([]byte, record.MaxLine+headerSize)
	ticked := time.Now()
	for ctx.Err() == nil {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			r.overrun()
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("audit multicast: %w", err)
		case n >= headerSize && kernels(from):
			r.messages.Add(1)
			c.Message(record.Type(binary.NativeEndian.Uint16(buf[4:])), buf[headerSize:n])
		}
		if now := time.Now(); now.Sub(ticked) > 100*time.Millisecond {
			ticked = now
			c.Tick(now)
		}
	}
	return nil
}

// kernels reports whether a message is the kernel's.
func kernels(from unix.Sockaddr) bool {
	nl, ok := from.(*unix.SockaddrNetlink)
	return ok && nl.Pid == 0
}
