package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

func (a *App) nodesCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "nodes",
		Short: "List the workers with their five levels",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				nodes, err := c.Nodes(ctx)
				if err != nil {
					return err
				}
				return a.show(protocol.NodeList{Nodes: nodes}, func(w io.Writer) { a.Style.Nodes(w, nodes, a.Now()) })
			})
		},
	}
}

func (a *App) whyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "why NODE",
		Short: "Say why a worker is trusted or not: event, expected, observed, cause, remedy",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				report, err := c.Why(ctx, args[0])
				if err != nil {
					return err
				}
				v, err := verdictOf(report)
				if err != nil {
					return err
				}
				return a.show(report, func(w io.Writer) { a.drawReport(w, report, v) })
			})
		},
	}
}

// verdictOf decodes the verdict of a report; nil before the first Evidence.
func verdictOf(r *protocol.Report) (*appraisal.Verdict, error) {
	if len(r.Verdict) == 0 || string(r.Verdict) == "null" {
		return nil, nil
	}
	v := &appraisal.Verdict{}
	if err := json.Unmarshal(r.Verdict, v); err != nil {
		return nil, fmt.Errorf("read the verdict of AIAS: %w", err)
	}
	return v, nil
}

func (a *App) drawReport(w io.Writer, r *protocol.Report, v *appraisal.Verdict) {
	if v == nil {
		fmt.Fprintf(w, "%s has sent no Evidence yet: look at `journalctl -u trust-agent` there\n", render.Clean(r.Node.Name))
	} else {
		// AIAS has the last word: a verdict that was good can have run out.
		v.Trusted = r.Node.Trust == protocol.Trusted
		a.Style.Verdict(w, r.Node.Name, v)
	}
	fmt.Fprintln(w)
	reason := ""
	if v != nil && !v.Trusted {
		if _, f := render.Worst(v); f == nil {
			reason = r.Node.Reason // of AIAS: no finding gives one
		}
	}
	if reason != "" {
		a.Style.Field(w, 2, "reason", render.Clean(reason)+"; the levels above are those of its last Evidence")
	}
	for _, n := range r.Notes {
		if reason == "" || !strings.Contains(n, reason) {
			a.Style.Field(w, 2, "note", render.Clean(n))
		}
	}
	n := &r.Node
	a.Style.Field(w, 2, "attested", render.Age(n.Attested, a.Now()))
	a.Style.Field(w, 2, "tpm", render.Clean(n.EKCert))
	if tags := render.TagLine(n); tags != "" {
		a.Style.Field(w, 2, "tags", render.Clean(tags))
	}
	a.Style.Field(w, 2, "judged by", render.Clean(n.Snapshot))
}

func (a *App) historyCmd() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "history [NODE]",
		Short: "List how verdicts changed, newest first",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node := ""
			if len(args) == 1 {
				node = args[0]
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				changes, err := c.History(ctx, node, limit, 0)
				if err != nil {
					return err
				}
				return a.show(protocol.History{Changes: changes}, func(w io.Writer) { a.Style.History(w, changes) })
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "at most so many changes")
	return cmd
}
