package fleet

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"maps"

	"golang.org/x/sync/errgroup"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/swtpm/machine"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

// Workers are simulated workers of an AIAS that somebody else runs, one for each name: they serve tests of what relies on its results.
type Workers struct {
	address  string
	roots    *x509.CertPool
	inFlight int
	nodes    map[string]*node
}

// NewWorkers makes workers that have not enrolled. The maker certifies their TPMs; facts are added to those of the boot that all of them have
// in common, and tell them apart.
func NewWorkers(address string, roots *x509.CertPool, maker *softtpm.CA, names []string, facts func(name string) map[string][]byte) (*Workers, error) {
	w := &Workers{address: address, roots: roots, inFlight: 16, nodes: map[string]*node{}}
	b, err := readBoot()
	if err != nil {
		return nil, err
	}
	seed := make([]byte, 16)
	_, _ = rand.Read(seed) // never fails
	for _, name := range names {
		own := *b
		own.facts = maps.Clone(b.facts)
		maps.Copy(own.facts, facts(name))
		if own.factsDigest, err = evidence.FactsDigest(own.facts); err != nil {
			return nil, err
		}
		n := newNode(name, seed, &own)
		if n.ek, err = n.tpm.EKCertificate(maker); err != nil {
			return nil, err
		}
		w.nodes[name] = n
	}
	return w, nil
}

// Enrol enrols all workers by a join token.
func (w *Workers) Enrol(ctx context.Context, token string) error {
	return w.each(ctx, w.names(), func(ctx context.Context, n *node, r *bufio.Reader) error {
		first := newWire(w.address, w.roots, nil)
		defer first.close()
		return n.enrol(ctx, first, r, token)
	})
}

// Run has workers run a program for the first time: the next attestation tells of it.
func (w *Workers) Run(names []string, path string, digest []byte) {
	entry, extends := machine.Entry(path, digest)
	for _, name := range names {
		n := w.nodes[name]
		n.extra = append(n.extra, entry...)
		n.pcr = extended(n.pcr, extends)
	}
}

// Attest has workers attest; no names means all. It returns how many of them AIAS trusts.
func (w *Workers) Attest(ctx context.Context, names ...string) (trusted int, err error) {
	if len(names) == 0 {
		names = w.names()
	}
	verdicts := make(chan bool, len(names))
	err = w.each(ctx, names, func(ctx context.Context, n *node, r *bufio.Reader) error {
		defer n.wire.close()
		a, err := n.attest(ctx, r, load{})
		if err != nil {
			return err
		}
		verdicts <- a.Trusted
		return nil
	})
	close(verdicts)
	for v := range verdicts {
		if v {
			trusted++
		}
	}
	return trusted, err
}

func (w *Workers) names() []string {
	out := make([]string, 0, len(w.nodes))
	for name := range w.nodes {
		out = append(out, name)
	}
	return out
}

func (w *Workers) each(ctx context.Context, names []string, work func(ctx context.Context, n *node, r *bufio.Reader) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(w.inFlight)
	for _, name := range names {
		n := w.nodes[name]
		g.Go(func() error {
			if err := work(ctx, n, bufio.NewReaderSize(nil, readBuffer)); err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			return nil
		})
	}
	return g.Wait()
}
