package main

import (
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Address of the guest in QEMU's user network; the host's loopback answers at 10.0.2.2, which needs no route of its own.
var (
	guestAddress = net.IPv4(10, 0, 2, 15).To4()
	guestMask    = net.IPv4Mask(255, 255, 255, 0)
)

// network brings the loopback and the named interface up, without DHCP: the user network's addresses never change.
func (m *machine) network(name string) {
	if err := configure("lo", net.IPv4(127, 0, 0, 1).To4(), net.IPv4Mask(255, 0, 0, 0)); err != nil {
		m.problem("network: %v", err)
	}
	if err := waitFor("/sys/class/net/"+name, time.Minute); err != nil {
		m.problem("network: %v", err)
		return
	}
	if err := configure(name, guestAddress, guestMask); err != nil {
		m.problem("network: %v", err)
	}
}

// configure gives an interface its address and takes it up.
func configure(name string, addr net.IP, mask net.IPMask) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(s)
	for _, step := range []struct {
		what string
		req  uint
		set  func(*unix.Ifreq) error
	}{
		{"address", unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(addr) }},
		{"mask", unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr(mask) }},
		{"up", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }},
	} {
		r, err := unix.NewIfreq(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := step.set(r); err != nil {
			return fmt.Errorf("%s %s: %w", name, step.what, err)
		}
		if err := unix.IoctlIfreq(s, step.req, r); err != nil {
			return fmt.Errorf("%s %s: %w", name, step.what, err)
		}
	}
	return nil
}

// waitFor waits until path exists: devices appear some time after their driver was loaded.
func waitFor(path string, limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s did not appear within %v", path, limit)
		}
	}
}
