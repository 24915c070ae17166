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

func (a *App) nodeCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "One worker: let go of its name, or remove it"}
	cmd.AddCommand(a.nodeRebindCmd(), a.nodeDeleteCmd())
	return cmd
}

func (a *App) nodeRebindCmd() *cobra.Command {
	var req protocol.RebindRequest
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "rebind NODE",
		Short: "Let another TPM take the name of a worker: its machine or mainboard was replaced",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ttl < time.Second {
				return usage(cmd, errors.New("--ttl must be a second at least"))
			}
			req.Seconds = int64(ttl / time.Second)
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				if err := c.Rebind(ctx, args[0], req); err != nil {
					return err
				}
				return a.show(map[string]any{"node": args[0], "seconds": req.Seconds}, func(w io.Writer) {
					fmt.Fprintf(w, "for %s another TPM may enrol as %s; it needs a join token, too\n", ttl, render.Clean(args[0]))
				})
			})
		},
	}
	cmd.Flags().StringVar(&req.EKSHA256, "ek", "", "only the TPM whose endorsement key has this `SHA256`")
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "for how long")
	return cmd
}

func (a *App) nodeDeleteCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "delete NODE",
		Short: "Remove a worker: its certificate no longer works, its name and TPM are free again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				if err := c.Delete(ctx, args[0]); err != nil {
					return err
				}
				return a.show(map[string]string{"deleted": args[0]}, func(w io.Writer) { fmt.Fprintf(w, "%s is removed\n", render.Clean(args[0])) })
			})
		},
	}
}
