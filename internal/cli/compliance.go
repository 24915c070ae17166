package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

func (a *App) complianceCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "compliance", Short: "Compliance scans of workers (OpenSCAP): results, drift, a scan now"}
	cmd.AddCommand(a.complianceShowCmd(), a.complianceDiffCmd(), a.complianceScanCmd(), a.complianceReportCmd(), a.complianceContentCmd(), a.complianceTailoringCmd())
	return cmd
}

func (a *App) complianceShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "show [NODE]",
		Short: "Show the newest scan of a worker: what fails and how to mend it, waivers, drift; or of all workers, a line each",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				if len(args) == 1 {
					n, err := c.Compliance(ctx, args[0])
					if err != nil {
						return err
					}
					return a.show(n, func(w io.Writer) { a.Style.Compliance(w, n) })
				}
				nodes, err := c.Nodes(ctx)
				if err != nil {
					return err
				}
				all := []protocol.NodeCompliance{}
				for i := range nodes {
					n, err := c.Compliance(ctx, nodes[i].Name)
					if err != nil {
						return err
					}
					all = append(all, *n)
				}
				return a.show(all, func(w io.Writer) { a.Style.Compliances(w, all) })
			})
		},
	}
}

func (a *App) complianceDiffCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "diff NODE",
		Short: "Show what changed between the last two scans of a worker, rule by rule",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				n, err := c.Compliance(ctx, args[0])
				if err != nil {
					return err
				}
				return a.show(n.Drift, func(w io.Writer) { a.Style.Drift(w, n) })
			})
		},
	}
}

func (a *App) complianceScanCmd() *cobra.Command {
	var wait time.Duration
	var documents bool
	cmd := &cobra.Command{
		Use:   "scan NODE",
		Short: "Ask a worker for a scan now; it learns so with its next attestation",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if wait < 0 {
				return usage(cmd, errors.New("--wait must not be negative"))
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				ask, err := c.AskScan(ctx, args[0], documents)
				if err != nil {
					return err
				}
				if wait == 0 {
					return a.show(ask, func(w io.Writer) {
						fmt.Fprintf(w, "%s scans after its next attestation: see touchstone compliance show %s\n", render.Clean(args[0]), render.Clean(args[0]))
					})
				}
				n, err := a.scanned(ctx, c, args[0], wait)
				if err != nil {
					return err
				}
				return a.show(n, func(w io.Writer) { a.Style.Compliance(w, n) })
			})
		},
	}
	cmd.Flags().BoolVar(&documents, "documents", false, "have AIAS keep its ARF and HTML too, for touchstone compliance report")
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait so long for the result, and fail when there is none")
	return cmd
}

// scanned waits until the scan that was asked for has come.
func (a *App) scanned(ctx context.Context, c *operator.Client, node string, wait time.Duration) (*protocol.NodeCompliance, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		n, err := c.Compliance(ctx, node)
		if err != nil || n.Asked.IsZero() {
			return n, err
		}
		select {
		case <-waiting.Done():
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("%s has not sent a scan after %s: is `compliance` in its agent's configuration? see its log", render.Clean(node), wait)
		case <-tick.C:
		}
	}
}
