package export

import (
	"context"
	"errors"
	"fmt"
	"time"

	"touchstone.dev/touchstone/internal/audit/archive"
	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/shown"
)

// errTurn ends a turn before everything of a node was sent.
var errTurn = errors.New("the next one")

// batch gathers items of one node.
type batch struct {
	x     *Exporter
	node  string
	items []Item
	size  int
	to    place
	sends int
}

// turn sends what there is of a node, or some of it.
func (x *Exporter) turn(ctx context.Context, node string) error {
	n, err := x.archive.Node(node)
	if err != nil {
		return err
	}
	from := x.cursors.next(node)
	b := &batch{x: x, node: node, to: from}
	err = n.After(ctx, from.id(), from.Seq, func(p *archive.Place, m *archive.Missing) error {
		if m != nil {
			b.gap(m)
			return nil
		}
		return b.add(ctx, p)
	})
	if err == nil {
		err = b.flush(ctx)
	}
	if errors.Is(err, errTurn) {
		x.Wake(node)
		return nil
	}
	return err
}

func (b *batch) add(ctx context.Context, p *archive.Place) error {
	id := p.Batch.Before.Chain
	for _, raw := range p.Batch.Entries {
		e, err := chain.Parse(raw)
		if err != nil {
			return err // the archive parsed it: not reached
		}
		v := shown.New(b.node, &e)
		v.ID = fmt.Sprintf("%s/%v/%d", b.node, id, e.Seq)
		b.items = append(b.items, Item{v, p.Received})
		b.size += len(raw)
		b.to = place{id.String(), e.Seq}
		if len(b.items) < maxItems && b.size < maxSize {
			continue
		}
		if err := b.flush(ctx); err != nil {
			return err
		}
		if b.sends++; b.sends >= turn {
			return errTurn
		}
	}
	return nil
}

// gap tells the destination of entries that it will not get.
func (b *batch) gap(m *archive.Missing) {
	g := chain.Gap{Why: "not-exported", Detail: fmt.Sprintf("entries from %d on of chain %v: %s", m.First, m.Chain, m.Why)}
	b.to = place{}
	if m.Last >= m.First {
		g.Events = m.Last - m.First + 1
		g.Detail = fmt.Sprintf("entries %d to %d of chain %v: %s", m.First, m.Last, m.Chain, m.Why)
		b.to = place{m.Chain.String(), m.Last}
	}
	b.x.missing.Add(max(g.Events, 1))
	b.x.log.Error("audit events cannot be exported: they are gone", "node", b.node, "what", g.Detail)
	body, err := chain.EncodeBody(&g)
	if err != nil {
		body = nil // it is short: not reached
	}
	now := time.Now()
	v := shown.New(b.node, &chain.Entry{Seq: m.First, Time: now.UTC(), Kind: chain.KindGap, Body: body})
	v.ID = fmt.Sprintf("%s/%v/%d-gap", b.node, m.Chain, m.First)
	b.items = append(b.items, Item{v, now})
}

func (b *batch) flush(ctx context.Context) error {
	if len(b.items) == 0 {
		return nil
	}
	if err := b.x.send(ctx, b.node, b.items); err != nil {
		return err
	}
	b.x.cursors.took(b.node, b.to, time.Now())
	b.items, b.size = b.items[:0], 0
	return nil
}

// send hands items over. When the destination refuses them, it finds out which, so that one does not keep all others back.
func (x *Exporter) send(ctx context.Context, node string, items []Item) error {
	err := x.sink.send(ctx, node, items)
	switch {
	case err == nil:
		x.sent.Add(uint64(len(items)))
	case errors.Is(err, errRefused) && len(items) > 1:
		half := len(items) / 2
		if err := x.send(ctx, node, items[:half]); err != nil {
			return err
		}
		return x.send(ctx, node, items[half:])
	case errors.Is(err, errRefused):
		x.refused.Add(1)
		x.log.Error("the destination refuses an audit event: it is left out", "id", items[0].Entry.ID, "err", err)
		return nil
	}
	return err
}
