package cli

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

func (a *App) diskVolumesCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "volumes [NODE]",
		Short: "List what workers say of their volumes: which are encrypted, and what opens them",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				all, err := c.Volumes(ctx)
				if err != nil {
					return err
				}
				if len(args) > 0 {
					all.Nodes = slices.DeleteFunc(all.Nodes, func(n protocol.NodeVolumes) bool { return n.Node != args[0] })
					if len(all.Nodes) == 0 {
						return fmt.Errorf("there is no node %s: see touchstone nodes", render.Clean(args[0]))
					}
				}
				return a.show(all, func(w io.Writer) { a.Style.Volumes(w, all) })
			})
		},
	}
}
