package images

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"touchstone.dev/touchstone/internal/version"
)

// Times within which a registry must act.
const (
	dialTime   = 3 * time.Second
	shakeTime  = 3 * time.Second
	headerTime = 5 * time.Second
	idleTime   = 60 * time.Second
)

// Limits of an answer in bytes. What a kind of answer may have is less, and is checked where it is read.
const (
	maxHeader = 64 << 10
	maxBody   = 8 << 20
)

// hostsKey is where a context keeps the hosts that somebody answers for.
type hostsKey struct{}

// guard is the way out: every request, redirects and token services included, goes through it.
type guard struct {
	insecure map[string]bool
	// Connections to named hosts and to others are never shared: an address that is good for one is not for the other.
	named, others *http.Transport
}

func newGuard(p *policy) *guard {
	way := func(refuse func(netip.Addr) error) *http.Transport {
		d := &net.Dialer{Timeout: dialTime, Control: func(_, address string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(address) // after names were resolved: a name that leads elsewhere now is seen
			if err != nil {
				return fmt.Errorf("address %q: %w", address, err)
			}
			return refuse(a.Addr().Unmap())
		}}
		return &http.Transport{
			DialContext: d.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: p.roots}, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: shakeTime, ResponseHeaderTimeout: headerTime, MaxResponseHeaderBytes: maxHeader,
			MaxIdleConns: 32, MaxIdleConnsPerHost: 4, IdleConnTimeout: idleTime,
		}
	}
	return &guard{insecure: p.insecure, named: way(neverAsked), others: way(notPublic)}
}

// RoundTrip lets a request out, or does not.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	host, err := canonical(r.URL.Host)
	if err != nil || r.URL.User != nil {
		return nil, errors.New("a registry sends us to an address that is none")
	}
	r = r.Clone(r.Context())
	switch {
	case g.insecure[host] && (r.URL.Scheme == "https" || r.URL.Scheme == "http"):
		r.URL.Scheme = "http"
	case r.URL.Scheme != "https":
		return nil, fmt.Errorf("%s is not asked without TLS: name it in --registry-insecure of the trust-controller if that is wanted", host)
	}
	r.Header.Set("User-Agent", "touchstone/"+version.String())
	out := g.others
	if hosts, _ := r.Context().Value(hostsKey{}).(map[string]bool); hosts[host] {
		out = g.named
	}
	resp, err := out.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxBody), resp.Body}
	}
	return resp, err
}

// within returns a context whose requests may reach hosts at addresses that are not public.
func within(ctx context.Context, hosts map[string]bool) context.Context {
	return context.WithValue(ctx, hostsKey{}, hosts)
}

// services are addresses at which clouds tell machines their secrets, outside of the link-local range.
var services = map[netip.Addr]bool{
	netip.MustParseAddr("fd00:ec2::254"):   true, // Amazon
	netip.MustParseAddr("100.100.100.200"): true, // Alibaba
	netip.MustParseAddr("168.63.129.16"):   true, // Azure
	netip.MustParseAddr("192.0.0.192"):     true, // Oracle
}

// neverAsked refuses addresses at which no registry is.
func neverAsked(a netip.Addr) error {
	if a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast() || services[a] {
		return fmt.Errorf("address %s is not one of a registry", a)
	}
	return nil
}

// inside are ranges that netip does not call private and that are not public either: carriers' NAT, benchmarks, IPv4 within IPv6.
var inside = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"),
}

// notPublic refuses addresses of this machine and of private networks, too.
func notPublic(a netip.Addr) error {
	if err := neverAsked(a); err != nil {
		return err
	}
	no := a.IsLoopback() || a.IsPrivate()
	for _, p := range inside {
		no = no || p.Contains(a)
	}
	if no {
		return fmt.Errorf("address %s is not public, and nobody named the host that has it: name it in --registry of the trust-controller if it is one of yours", a)
	}
	return nil
}
