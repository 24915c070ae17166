package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Messages of linux/audit.h that the watcher uses.
const (
	auditGet       = 1000
	auditListRules = 1013
	readLogGroup   = 1 // AUDIT_NLGRP_READLOG
)

const headerSize = unix.SizeofNlMsghdr

// message is one netlink message: its type and payload.
type message struct {
	typ  uint16
	data []byte
}

// ask sends a request without payload to the kernel's audit and returns the answers before the acknowledgement or the end.
func ask(typ uint16, timeout time.Duration) ([]message, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		return nil, fmt.Errorf("audit socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return nil, fmt.Errorf("audit socket: %w", err)
	}
	request := make([]byte, headerSize)
	binary.NativeEndian.PutUint32(request[0:], headerSize)
	binary.NativeEndian.PutUint16(request[4:], typ)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	binary.NativeEndian.PutUint32(request[8:], 1)
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	if err := unix.Sendto(fd, request, 0, kernel); err != nil {
		return nil, fmt.Errorf("asking the kernel's audit: %w", err)
	}
	return answers(fd, typ, time.Now().Add(timeout))
}

// maxAnswers bounds a listing; the kernel has far fewer rules.
const maxAnswers = 1 << 16

func answers(fd int, typ uint16, deadline time.Time) ([]message, error) {
	var all []message
	acked := false
	buf := make([]byte, 64<<10)
	for len(all) < maxAnswers && time.Now().Before(deadline) {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the kernel's audit does not answer: %w", err)
		}
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			continue // not the kernel
		}
		for b := buf[:n]; len(b) >= headerSize; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < headerSize || size > len(b) {
				size = len(b)
			}
			m := message{typ: binary.NativeEndian.Uint16(b[4:]), data: b[headerSize:size]}
			b = b[min((size+3)&^3, len(b)):]
			switch m.typ {
			case unix.NLMSG_ERROR:
				if len(m.data) < 4 {
					return nil, errors.New("the kernel's audit answers with a short error")
				}
				if code := int32(binary.NativeEndian.Uint32(m.data)); code != 0 {
					return nil, fmt.Errorf("the kernel's audit refuses: %w", unix.Errno(-code))
				}
				acked = true
			case unix.NLMSG_DONE:
				return all, nil
			case typ:
				m.data = slices.Clone(m.data)
				all = append(all, m)
			}
			// AUDIT_GET has one answer, a listing ends with DONE.
			if typ == auditGet && len(all) > 0 && acked {
				return all, nil
			}
		}
	}
	return nil, errors.New("the kernel's audit does not answer in time")
}
