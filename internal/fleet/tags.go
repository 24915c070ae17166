package fleet

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm/softtpm"
)

// assetTags are those that each node of a tagged fleet gets.
var assetTags = map[string]string{"country": "de", "site": "fleet"}

// tag gives all nodes asset tags.
func (f *fleet) tag(ctx context.Context) error {
	if !f.Tags {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(f.InFlight)
	for _, n := range f.nodes {
		g.Go(func() error {
			if _, err := f.client.SetTags(ctx, n.name, assetTags); err != nil {
				return fmt.Errorf("give %s asset tags: %w", n.name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// proven counts the nodes whose TPM has proven its tags. A fleet with tags is of no use when one has not.
func (f *fleet) proven(ctx context.Context) error {
	if !f.Tags {
		return nil
	}
	nodes, err := f.client.Nodes(ctx)
	if err != nil {
		return err
	}
	own := make(map[string]bool, len(f.nodes))
	for _, n := range f.nodes {
		own[n.name] = true
	}
	for i := range nodes {
		if own[nodes[i].Name] && nodes[i].TagsProven {
			f.report.Proven++
		}
	}
	f.report.OK = f.report.OK && f.report.Proven == len(f.nodes)
	return nil
}

// certifyTag certifies the NV index of the node, which holds what AIAS gave last; nil when it gave none.
func (n *node) certifyTag() *evidence.NVCertificate {
	t := n.next.AssetTag
	if t == nil || len(t.Record) == 0 {
		return nil
	}
	c := &evidence.NVCertificate{Public: softtpm.NVPublic(assettag.DefaultIndex, assettag.Attributes, len(t.Record))}
	c.Message, c.Signature = n.tpm.CertifyNV(c.Public, t.Record, n.next.Nonce, n.clock)
	return c
}
