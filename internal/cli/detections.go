package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/operator"
)

func (a *App) detectionsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "detections [NODE]",
		Short: "Misuse that was found in the audit events of a worker or of all, and still counts",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node := ""
			if len(args) > 0 {
				node = args[0]
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				list, err := c.Detections(ctx, node)
				if err != nil {
					return err
				}
				return a.show(list, func(w io.Writer) { a.Style.Detections(w, list.Detections, a.Now()) })
			})
		},
	}
}

func (a *App) clearCmd() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "clear NODE WHICH",
		Short: "End detections of a worker: one by its ID, those of a rule by its name, or all",
		Long: `End detections of a worker: one by its ID, those of a rule by its name, or all. The worker is judged again at once. Who did it and the reason
go into the ledger. What is found again counts again.`,
		Example: "  touchstone audit clear worker-1 0a1b2c3d4e --reason 'ptrace was ours: ticket 4711'",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usage(cmd, errors.New("say why: --reason"))
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				list, err := c.ClearDetections(ctx, args[0], args[1], reason)
				if err != nil {
					return err
				}
				return a.show(list, func(w io.Writer) {
					for _, d := range list.Detections {
						fmt.Fprintf(w, "%s of %s no longer counts: %s\n", d.ID, render.Clean(d.Node), render.Clean(d.What))
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "what was found out")
	return cmd
}
