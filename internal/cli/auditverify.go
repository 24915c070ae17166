package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/proof"
	"touchstone.dev/touchstone/internal/audit/shown"
	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/operator"
)

var errAuditFaults = errors.New("the audit events are not complete")

func (a *App) auditVerifyCmd() *cobra.Command {
	var o ledgerOptions
	cmd := &cobra.Command{
		Use:   "verify NODE",
		Short: "Prove that all audit events of a worker are at AIAS, as its TPM signed, or name what is missing",
		Long: `Prove that all audit events of a worker are at AIAS, or name what is missing. The whole chain is fetched and computed again here, entry by entry, and
compared with the heads that the worker's TPM signed in the Evidence that AIAS keeps (its quote is verified by AIAS; touchstone evidence and touchstone appraise
verify it anew), and with all heads that stand in the ledger, which is verified, too: with --dir and --key by a copy that AIAS cannot change. Exit code 1: something
contradicts that it is complete. Gaps that the worker told of itself are listed and are no contradiction.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.online()
			if err != nil {
				return err
			}
			defer c.Close()
			heads, err := a.ledgerHeads(cmd, &o, args[0])
			if err != nil {
				return err
			}
			p, err := proveAudit(cmd.Context(), c, args[0], heads)
			if err != nil {
				return err
			}
			if err := a.show(p, func(w io.Writer) { drawProof(w, p) }); err != nil {
				return err
			}
			if len(p.Faults) > 0 {
				return errAuditFaults
			}
			return nil
		},
	}
	o.flags(cmd)
	return cmd
}

// ledgerHeads verifies the ledger, and returns the heads in it that are of a node. A head at the same place in many entries is returned once.
func (a *App) ledgerHeads(cmd *cobra.Command, o *ledgerOptions, node string) (heads []proof.Head, err error) {
	seen := map[chain.Position]bool{}
	err = a.readLedger(cmd, o, func(ctx context.Context, r *ledger.Reader, cp *ledger.Checkpoint) error {
		if err := r.Verify(ctx, cp, nil); err != nil {
			return err
		}
		for e, err := range r.Entries(ctx, cp, 0) {
			if err != nil {
				return err
			}
			text := e.Detail[proof.Detail]
			if e.Node != node || text == "" {
				continue
			}
			at, err := proof.ParseText(text)
			if err != nil {
				return fmt.Errorf("entry %d of the ledger: %w", e.Index, err)
			}
			if !seen[at] {
				seen[at] = true
				heads = append(heads, proof.Head{At: at, By: fmt.Sprintf("ledger entry %d has", e.Index), Time: e.Time})
			}
		}
		return nil
	})
	return heads, err
}

// proveAudit fetches and computes the chain.
func proveAudit(ctx context.Context, c *operator.Client, node string, heads []proof.Head) (*proof.Proof, error) {
	report, err := c.Audit(ctx, node)
	if err != nil {
		return nil, err
	}
	newest := signedHead(ctx, c, node, "last", report.StatedAt)
	if newest != nil {
		heads = append(heads, *newest)
	}
	for _, which := range []string{operator.LastGood, operator.FirstBad} {
		if h := signedHead(ctx, c, node, which, time.Time{}); h != nil {
			heads = append(heads, *h)
		}
	}
	p := proof.New(node, report, heads)
	if newest != nil {
		ack := proof.Ack(newest.At)
		p.Signed = &ack
	}
	err = c.AuditEvents(ctx, node, operator.AuditQuery{}, func(at time.Time, b *chain.Batch) error {
		p.Batch(at, b)
		return nil
	})
	p.Finish()
	return p, err
}

// signedHead reads the statement in Evidence that AIAS keeps; nil when there is none.
func signedHead(ctx context.Context, c *operator.Client, node, which string, at time.Time) *proof.Head {
	b, err := c.Evidence(ctx, node, which)
	if err != nil {
		return nil // no such Evidence
	}
	doc, err := evidence.Decode(b)
	if err != nil || len(doc.Statement) == 0 {
		return nil
	}
	s, err := evidence.DecodeStatement(doc.Statement)
	if err != nil || s.Audit == nil {
		return nil
	}
	h := &proof.Head{By: "the worker's TPM signed", Time: at}
	copy(h.At.Chain[:], s.Audit.Chain)
	copy(h.At.Head[:], s.Audit.Head)
	h.At.Seq = s.Audit.Seq
	return h
}

func drawProof(w io.Writer, p *proof.Proof) {
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
	fmt.Fprintf(w, "they go through %d heads that the TPM signed or the ledger has", p.Heads)
	if p.Older > 0 {
		fmt.Fprintf(w, "; %d more are of entries that AIAS removed for their age", p.Older)
	}
	fmt.Fprintln(w)
	for _, g := range p.Gaps {
		fmt.Fprintln(w, "gap: "+shown.Gap(g.Seq, &g.Gap))
	}
	for _, f := range p.Faults {
		fmt.Fprintln(w, "FAULT: "+render.Clean(f))
	}
	if len(p.Faults) == 0 && len(p.Gaps) == 0 {
		fmt.Fprintln(w, "complete")
	}
}
