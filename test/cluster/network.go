package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// openNetwork makes the bridge, and the machine's own address on it.
func openNetwork(ctx context.Context) error {
	return steps(ctx,
		"ip netns add "+lanNS,
		"ip -n "+lanNS+" link add br0 type bridge",
		"ip -n "+lanNS+" link set br0 up",
		"ip -n "+lanNS+" link set lo up",
		"ip link add "+prefix+"m netns "+lanNS+" type veth peer name "+prefix+"0",
		"ip -n "+lanNS+" link set "+prefix+"m master br0 up",
		"ip addr add "+machineIP+bits+" dev "+prefix+"0",
		"ip link set "+prefix+"0 up",
	)
}

// attach makes a network namespace with an address on the bridge.
func attach(ctx context.Context, ns, ip string) error {
	port := "v" + ip[strings.LastIndexByte(ip, '.')+1:]
	return steps(ctx,
		"ip netns add "+ns,
		"ip -n "+ns+" link set lo up",
		"ip link add "+port+" netns "+lanNS+" type veth peer name eth0 netns "+ns,
		"ip -n "+lanNS+" link set "+port+" master br0 up",
		"ip -n "+ns+" addr add "+ip+bits+" dev eth0",
		"ip -n "+ns+" link set eth0 up",
		"ip -n "+ns+" route add default via "+machineIP+" dev eth0",
		"nsenter --net=/run/netns/"+ns+" sysctl -qw net.ipv4.ip_forward=1",
	)
}

// namespaces returns the network namespaces that are ours.
func namespaces() ([]string, error) {
	found, err := filepath.Glob("/run/netns/" + prefix + "*")
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return found, err
}

// openServices leads the addresses of Services, seen from the machine, through a worker, whose kube-proxy knows them.
func openServices(ctx context.Context, via string) error {
	return steps(ctx, "ip route replace "+serviceCIDR+" via "+via)
}

// closeNetwork removes every network namespace of ours, with all that is in it.
func closeNetwork(ctx context.Context) error {
	found, err := namespaces()
	for _, ns := range found {
		err = errors.Join(err, run(ctx, "ip", "netns", "del", ns))
	}
	if _, there := os.Stat("/sys/class/net/" + prefix + "0"); there == nil {
		// The kernel takes it away with its peer, a little later.
		_ = run(ctx, "ip", "link", "del", prefix+"0")
	}
	return err
}

// route leads a network through a worker, in every namespace but its own and on the machine itself.
func route(ctx context.Context, cidr, via, except string) error {
	found, err := namespaces()
	if err != nil {
		return err
	}
	all := []string{"ip route replace " + cidr + " via " + via}
	for _, ns := range found {
		if ns != except && ns != lanNS {
			all = append(all, "ip -n "+ns+" route replace "+cidr+" via "+via)
		}
	}
	return steps(ctx, all...)
}

// steps runs commands, each in one line without quotes, until one fails.
func steps(ctx context.Context, commands ...string) error {
	for _, c := range commands {
		words := strings.Fields(c)
		if err := run(ctx, words[0], words[1:]...); err != nil {
			return fmt.Errorf("network: %w", err)
		}
	}
	return nil
}
