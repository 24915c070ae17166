package fleet

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

// Bounds on a run: it ends by itself, and leaves the machine usable.
const (
	MaxNodes    = 20_000
	MaxDuration = 10 * time.Minute
	MaxEntries  = 10_000 // new IMA entries of one attestation
	MaxInFlight = 1024
)

// Options say what to run.
type Options struct {
	Nodes       int
	Duration    time.Duration // of the measured part
	Connections int           // nodes that keep their connection open; the others open one for each attestation. Negative: all keep it
	Idle        time.Duration // AIAS closes connections after so long without a request
	InFlight    int           // attestations under way at a time
	Rate        float64       // attestations a second at most; 0: as fast as it goes
	NewEntries  int           // new IMA entries that each attestation brings
	Full        bool          // each attestation brings whole logs
	Tags        bool          // each node has asset tags, and certifies them with each attestation
	Warm        bool          // one round of all nodes before the measured part, so that connections stand
	// Program is the aias to start. With Operator set none is started, and the one of the bundle is used; it must be on loopback.
	Program  string
	Operator *protocol.OperatorBundle
	// Progress is told how far a part of the run is; nil: nobody is. It is called by one goroutine at a time.
	Progress func(part string, done, total int64)
}

// Check says what is wrong with the options; Run checks them, too.
func (o *Options) Check() error {
	switch {
	case o.Nodes < 1 || o.Nodes > MaxNodes:
		return fmt.Errorf("%d nodes: want 1 to %d", o.Nodes, MaxNodes)
	case o.Duration <= 0 || o.Duration > MaxDuration:
		return fmt.Errorf("duration %v: want more than 0, at most %v", o.Duration, MaxDuration)
	case o.Idle < time.Second && o.Operator == nil:
		return fmt.Errorf("connections idle for %v: want at least 1s", o.Idle)
	case o.InFlight < 1 || o.InFlight > MaxInFlight:
		return fmt.Errorf("%d attestations under way at a time: want 1 to %d", o.InFlight, MaxInFlight)
	case o.NewEntries < 0 || o.NewEntries > MaxEntries:
		return fmt.Errorf("%d new entries: want 0 to %d", o.NewEntries, MaxEntries)
	case o.Rate < 0:
		return fmt.Errorf("rate %v: want a number of attestations a second, or 0", o.Rate)
	}
	return checkFiles(o.kept() + 2*o.InFlight)
}

// kept is the number of connections that stay open.
func (o *Options) kept() int {
	if o.Connections < 0 || o.Connections > o.Nodes {
		return o.Nodes
	}
	return o.Connections
}

// fleet is everything of one run.
type fleet struct {
	Options
	boot    *boot
	seed    []byte
	maker   *softtpm.CA
	server  *server // nil: somebody else's
	client  *operator.Client
	gauge   *gauge
	roots   *x509.CertPool
	address string
	nodes   []*node
	eks     []string // allowed at an AIAS that is not ours
	report  Report
}

// Run runs a fleet until its duration is over or ctx ends, and clears away what it made. The error says why there is no report; a fleet that
// was not trusted throughout is in the report (Report.OK).
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	o.Connections = o.kept()
	f := &fleet{Options: o, seed: make([]byte, 16)}
	f.report.Nodes, f.report.Connections, f.report.InFlight, f.report.NewEntries, f.report.Full, f.report.Tags = o.Nodes, o.Connections, o.InFlight, o.NewEntries, o.Full, o.Tags
	_, _ = rand.Read(f.seed) // never fails
	if f.boot, err = readBoot(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.clear(ctx)) }()
	if err := f.connect(ctx); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context) error{f.enrol, f.tag, f.warm, f.steady, f.proven} {
		if err := part(ctx); err != nil {
			return nil, err
		}
	}
	return &f.report, nil
}

// connect starts AIAS, or takes the one of the bundle.
func (f *fleet) connect(ctx context.Context) error {
	bundle := f.Operator
	if bundle == nil {
		maker, err := softtpm.NewCA()
		if err != nil {
			return err
		}
		if f.server, err = startServer(ctx, f.Program, f.Idle, maker); err != nil {
			return err
		}
		f.maker, bundle = maker, f.server.bundle
	}
	var err error
	if f.address, err = loopback(bundle.Server); err != nil {
		return err
	}
	if f.client, err = operator.New(*bundle); err != nil {
		return err
	}
	f.roots = x509.NewCertPool()
	f.roots.AppendCertsFromPEM([]byte(bundle.CA))
	f.gauge = newGauge(bundle.Server, f.roots)
	return nil
}

// loopback returns host and port of a server, which must be on this machine.
func loopback(server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" {
		return "", fmt.Errorf("server %q: want https://ADDRESS:PORT", server)
	}
	ip := net.ParseIP(u.Hostname())
	if ip == nil && u.Hostname() == "localhost" {
		ip = net.IPv4(127, 0, 0, 1)
	}
	if ip == nil || !ip.IsLoopback() {
		return "", fmt.Errorf("server %s is not on this machine: a fleet loads loopback addresses only (127.0.0.1, ::1, localhost)", server)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

const clearTime = 2 * time.Minute

// clear closes what is open. From an AIAS that is not ours it takes the nodes away again, also after an interruption.
func (f *fleet) clear(ctx context.Context) error {
	for _, n := range f.nodes {
		if n.wire != nil {
			n.wire.close()
		}
	}
	if f.gauge != nil {
		f.gauge.close()
	}
	var err error
	if f.Operator != nil && f.client != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearTime)
		defer cancel()
		err = f.withdraw(ctx)
	}
	if f.client != nil {
		f.client.Close()
	}
	if f.server != nil {
		err = errors.Join(err, f.server.stop())
	}
	return err
}

func (f *fleet) withdraw(ctx context.Context) error {
	var err error
	for _, n := range f.nodes {
		if n.wire != nil {
			err = errors.Join(err, f.client.Delete(ctx, n.name))
		}
	}
	for _, ek := range f.eks {
		err = errors.Join(err, f.client.DisallowEK(ctx, ek))
	}
	if err != nil {
		return fmt.Errorf("take the simulated nodes away again (their names begin with %q): %w", f.prefix(), err)
	}
	return nil
}

// prefix begins the names of the nodes: its own for each run.
func (f *fleet) prefix() string { return fmt.Sprintf("fleet-%x-", f.seed[:4]) }

// progress tells how far a part is.
func (f *fleet) progress(part string, done, total int64) {
	if f.Progress != nil {
		f.Progress(part, done, total)
	}
}
