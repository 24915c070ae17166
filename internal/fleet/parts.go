package fleet

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
)

const (
	readBuffer  = 4 << 10
	tokenNote   = "simulated fleet"
	tokenLife   = time.Hour
	settleNodes = 64 // that attest while the memory of AIAS settles
	redraw      = 100 * time.Millisecond
)

// enrol makes the nodes, enrols them, and has each attest its whole boot. No connection stays open, so that the memory of nodes and that of
// connections can be told apart.
func (f *fleet) enrol(ctx context.Context) error {
	token, err := f.client.CreateToken(ctx, protocol.TokenRequest{Uses: f.Nodes, Seconds: int64(tokenLife / time.Second), Note: tokenNote})
	if err != nil {
		return fmt.Errorf("make a join token: %w", err)
	}
	f.nodes = make([]*node, f.Nodes)
	for i := range f.nodes {
		f.nodes[i] = newNode(fmt.Sprintf("%s%05d", f.prefix(), i), f.seed, f.boot)
		f.nodes[i].keeps = i < f.Connections
		if err := f.certify(ctx, f.nodes[i]); err != nil {
			return err
		}
	}
	join := func(nodes []*node) (s spent, m MemoryPoint, err error) {
		mark := f.mark()
		err = f.each(ctx, "enrol", nodes, func(ctx context.Context, n *node, w *wire, r *bufio.Reader) error {
			if err := n.enrol(ctx, w, r, token.Secret); err != nil {
				return fmt.Errorf("enrol %s: %w", n.name, err)
			}
			return f.first(ctx, n, r)
		})
		s = f.since(mark)
		if err == nil {
			m, err = f.memory(ctx)
		}
		return s, m, err
	}
	few := min(settleNodes, f.Nodes)
	s, m, err := join(f.nodes[:few])
	if err != nil {
		return err
	}
	f.report.Enrolment, f.report.Memory.Few, f.report.Memory.Enrolled = s.costs(few), m, m
	if f.Nodes > few {
		if s, m, err = join(f.nodes[few:]); err != nil {
			return err
		}
		f.report.Enrolment, f.report.Memory.Enrolled = s.costs(f.Nodes-few), m
	}
	return f.client.RevokeToken(ctx, token.ID)
}

// certify gives the TPM of a node a certificate of our laboratory, or makes it known to an AIAS that does not know that laboratory.
func (f *fleet) certify(ctx context.Context, n *node) (err error) {
	if f.maker != nil {
		n.ek, err = n.tpm.EKCertificate(f.maker)
		return err
	}
	area, err := tpm.ParsePublic(n.tpm.EKArea())
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(area.Key)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(der)
	ek := hex.EncodeToString(sum[:])
	f.eks = append(f.eks, ek)
	return f.client.AllowEK(ctx, protocol.EK{SHA256: ek, Note: tokenNote})
}

// first attests the whole boot of a node. The fleet is of no use when that is not trusted.
func (f *fleet) first(ctx context.Context, n *node, r *bufio.Reader) error {
	defer n.wire.close()
	a, err := n.attest(ctx, r, load{})
	if err != nil {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	if !a.Trusted {
		return fmt.Errorf("%s is not trusted: its boot needs policy and references like those of test/boots: %s", n.name, why(a.Levels))
	}
	return nil
}

func why(levels []protocol.LevelInfo) string {
	for _, l := range levels {
		if l.Reason != "" {
			return fmt.Sprintf("level %d (%s) %s: %s", l.Level, l.Name, l.Status, l.Reason)
		}
	}
	return "no reason given"
}

// warm has each node attest once over the connection that it keeps.
func (f *fleet) warm(ctx context.Context) error {
	if !f.Warm {
		return nil
	}
	err := f.each(ctx, "warm up", f.nodes, func(ctx context.Context, n *node, _ *wire, r *bufio.Reader) error {
		_, err := n.attest(ctx, r, load{})
		if !n.keeps {
			n.wire.close()
		}
		return err
	})
	if err != nil {
		return err
	}
	f.report.Memory.Connected, err = f.memory(ctx)
	return err
}

// each does work for every node, InFlight at a time; the first error ends it.
func (f *fleet) each(ctx context.Context, part string, nodes []*node, work func(ctx context.Context, n *node, w *wire, r *bufio.Reader) error) error {
	g, inner := errgroup.WithContext(ctx)
	var next, done atomic.Int64
	for range min(f.InFlight, len(nodes)) {
		g.Go(func() error {
			w, r := newWire(f.address, f.roots, nil), bufio.NewReaderSize(nil, readBuffer)
			defer w.close()
			for i := next.Add(1) - 1; i < int64(len(nodes)) && inner.Err() == nil; i = next.Add(1) - 1 {
				if err := work(inner, nodes[i], w, r); err != nil {
					return err
				}
				done.Add(1)
			}
			return inner.Err()
		})
	}
	stop := f.watch(part, &done, int64(len(nodes)))
	defer stop()
	return g.Wait()
}

// watch draws progress until stop is called.
func (f *fleet) watch(part string, done *atomic.Int64, total int64) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(redraw)
		defer t.Stop()
		for {
			f.progress(part, done.Load(), total)
			select {
			case <-end:
				return
			case <-t.C:
			}
		}
	}()
	return func() { close(end); <-ended }
}

// memory reads the memory of AIAS after garbage collections that came after everything before.
func (f *fleet) memory(ctx context.Context) (m MemoryPoint, err error) {
	var some []*node
	for _, n := range f.nodes[:min(settleNodes, len(f.nodes))] {
		if n.wire != nil {
			some = append(some, n)
		}
	}
	h, err := f.gauge.settle(ctx, func(ctx context.Context) error {
		return f.each(ctx, "settle", some, func(ctx context.Context, n *node, _ *wire, r *bufio.Reader) error {
			open := n.wire.conn != nil
			_, err := n.attest(ctx, r, load{})
			if !open {
				n.wire.close()
			}
			return err
		})
	})
	if err != nil {
		return m, err
	}
	m.Live = h.live
	if f.server != nil {
		m.RSS, err = rssOf(f.server.cmd.Process.Pid)
	}
	return m, err
}
