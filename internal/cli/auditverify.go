package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

// auditProof is what verify found out.
type auditProof struct {
	Node    string             `json:"node"`
	Entries uint64             `json:"entries"`
	Events  uint64             `json:"events"`
	From    protocol.AuditAck  `json:"from"` // what the first entry follows
	At      protocol.AuditAck  `json:"at"`
	Signed  *protocol.AuditAck `json:"signed,omitempty"` // the head in the Evidence that AIAS keeps
	Gaps    []auditGap         `json:"gaps,omitempty"`   // that the worker told of
	Faults  []string           `json:"faults,omitempty"` // what contradicts completeness
}

type auditGap struct {
	Seq uint64 `json:"seq"`
	chain.Gap
}

var errAuditFaults = errors.New("the audit events are not complete")

func (a *App) auditVerifyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "verify NODE",
		Short: "Prove that all audit events of a worker are at AIAS, as its TPM signed, or name what is missing",
		Long: `Prove that all audit events of a worker are at AIAS, or name what is missing. The whole chain is fetched and computed again here, entry by entry, and
compared with the head that the worker's TPM signed in the Evidence that AIAS keeps (its quote is verified by AIAS; touchstone evidence and touchstone appraise
verify it anew). Exit code 1: something contradicts that it is complete. Gaps that the worker told of itself are listed and are no contradiction.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.online()
			if err != nil {
				return err
			}
			defer c.Close()
			p, err := proveAudit(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := a.show(p, p.draw); err != nil {
				return err
			}
			if len(p.Faults) > 0 {
				return errAuditFaults
			}
			return nil
		},
	}
}

// proveAudit fetches and computes the chain.
func proveAudit(ctx context.Context, c *operator.Client, node string) (*auditProof, error) {
	report, err := c.Audit(ctx, node)
	if err != nil {
		return nil, err
	}
	p := &auditProof{Node: node}
	signed := p.signedHead(ctx, c, node)
	var at chain.Position
	err = c.AuditEvents(ctx, node, operator.AuditQuery{}, func(_ time.Time, b *chain.Batch) error {
		at = p.follow(at, b, signed, report)
		return nil
	})
	if err != nil {
		return nil, err
	}
	p.At = position(at)
	if signed != nil && !signed.met {
		if signed.at.Chain == at.Chain && signed.at.Seq > at.Seq {
			p.fault("the TPM signed entry %d; AIAS has %d: %d are missing or on their way", signed.at.Seq, at.Seq, signed.at.Seq-at.Seq)
		} else if p.Entries > 0 {
			p.fault("the head that the TPM signed (entry %d of chain %v) is not in what AIAS has", signed.at.Seq, signed.at.Chain)
		}
	}
	if report.At.Seq > 0 && at.Chain.String() == report.At.Chain && at.Seq < report.At.Seq {
		p.fault("AIAS says that it has %d entries, and gave %d", report.At.Seq, at.Seq)
	}
	for _, f := range report.Findings {
		if f.Accepted.IsZero() {
			p.fault("AIAS found a %s at entry %d (%s): expected %s, observed %s", f.Kind, f.Seq, f.At.Format(time.RFC3339), f.Expected, f.Observed)
		}
	}
	return p, nil
}

// signed is a head that the TPM signed, and whether the chain went through it.
type signedHead struct {
	at  chain.Position
	met bool
}

// signedHead reads the statement in the last Evidence; nil when there is none.
func (p *auditProof) signedHead(ctx context.Context, c *operator.Client, node string) *signedHead {
	b, err := c.Evidence(ctx, node, "last")
	if err != nil {
		return nil // no Evidence yet
	}
	doc, err := evidence.Decode(b)
	if err != nil || len(doc.Statement) == 0 {
		return nil
	}
	s, err := evidence.DecodeStatement(doc.Statement)
	if err != nil || s.Audit == nil {
		return nil
	}
	h := &signedHead{}
	copy(h.at.Chain[:], s.Audit.Chain)
	copy(h.at.Head[:], s.Audit.Head)
	h.at.Seq = s.Audit.Seq
	ack := position(h.at)
	p.Signed = &ack
	return h
}

// follow computes on through a batch.
func (p *auditProof) follow(at chain.Position, b *chain.Batch, signed *signedHead, report *protocol.AuditReport) chain.Position {
	switch {
	case p.Entries == 0:
		p.From = position(b.Before)
		if b.Before.Seq > 0 && (report.Cut == nil || p.From != *report.Cut) {
			p.fault("the first entry is %d: those before it are gone, and no cut of the archive accounts for them", b.Before.Seq+1)
		}
	case b.Before.Chain != at.Chain:
		if b.Before != chain.Start(b.Before.Chain) {
			p.fault("chain %v begins with entry %d", b.Before.Chain, b.Before.Seq+1)
		}
	case b.Before.Seq > at.Seq:
		p.fault("entries %d to %d are missing", at.Seq+1, b.Before.Seq)
	case b.Before != at:
		p.fault("entry %d does not follow the one before it", b.Before.Seq+1)
	}
	at = b.Before
	signed.pass(at)
	for _, raw := range b.Entries {
		at = at.After(raw)
		signed.pass(at)
		p.Entries++
		e, err := chain.Parse(raw)
		if err != nil {
			p.fault("entry %d: %v", at.Seq, err)
			continue
		}
		switch e.Kind {
		case chain.KindEvent:
			p.Events++
		case chain.KindGap:
			g := auditGap{Seq: e.Seq}
			if err := chain.DecodeBody(e.Body, &g.Gap); err != nil {
				p.fault("entry %d: %v", at.Seq, err)
			}
			p.Gaps = append(p.Gaps, g)
		}
	}
	return at
}

func (h *signedHead) pass(at chain.Position) {
	if h != nil && at == h.at {
		h.met = true
	}
}

func (p *auditProof) fault(format string, args ...any) {
	p.Faults = append(p.Faults, fmt.Sprintf(format, args...))
}

func position(p chain.Position) protocol.AuditAck {
	return protocol.AuditAck{Chain: p.Chain.String(), Seq: p.Seq, Head: p.Head.String()}
}

func (p *auditProof) draw(w io.Writer) {
	fmt.Fprintf(w, "%d entries (%d events) of %s follow each other", p.Entries, p.Events, render.Clean(p.Node))
	if p.From.Seq > 0 {
		fmt.Fprintf(w, ", from entry %d on", p.From.Seq+1)
	}
	fmt.Fprintf(w, "\nhead after entry %d of chain %s: %s\n", p.At.Seq, p.At.Chain, p.At.Head)
	if p.Signed != nil {
		fmt.Fprintf(w, "signed by the worker's TPM: entry %d, %s\n", p.Signed.Seq, p.Signed.Head)
	} else {
		fmt.Fprintln(w, "the Evidence that AIAS keeps states no audit chain: nothing here is signed by the worker's TPM")
	}
	for _, g := range p.Gaps {
		fmt.Fprintln(w, "gap: "+render.AuditGap(g.Seq, &g.Gap))
	}
	for _, f := range p.Faults {
		fmt.Fprintln(w, "FAULT: "+render.Clean(f))
	}
	if len(p.Faults) == 0 && len(p.Gaps) == 0 {
		fmt.Fprintln(w, "complete")
	}
}
