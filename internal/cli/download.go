package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

// kinds are the documents that AIAS keeps of a node.
var kinds = []string{operator.Last, operator.LastGood, operator.FirstBad}

func (a *App) downloadCmd() *cobra.Command {
	var which, out string
	cmd := &cobra.Command{
		Use:   "download NODE",
		Short: "Fetch Evidence of a worker that AIAS keeps, to look into it or to judge it again",
		Long: `Fetch Evidence of a worker that AIAS keeps: the last one that was judged, the last good one, or the first bad one after it.
The file is whole, also where the worker sent only what had changed. It says all that the verdict rests on but the challenge.`,
		Example: `  touchstone evidence download worker-1 --which first-bad -o worker-1.evidence
  touchstone appraise worker-1.evidence --policy policy.yaml --references references`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(kinds, which) {
				return usage(cmd, fmt.Errorf("--which %q: want one of %s", which, strings.Join(kinds, ", ")))
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				data, err := c.Evidence(ctx, args[0], which)
				if err != nil {
					return err
				}
				return a.writeDocument(data, out)
			})
		},
	}
	cmd.Flags().StringVar(&which, "which", operator.Last, strings.Join(kinds, ", "))
	cmd.Flags().StringVarP(&out, "out", "o", "-", "where to write the document, `FILE` or - for standard output")
	return cmd
}

func (a *App) reloadCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Let AIAS read its references and policy again, and judge every worker by them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				s, err := c.Reload(ctx)
				if err != nil {
					return err
				}
				return a.show(s, func(w io.Writer) { a.drawSnapshot(w, "references and policy are in force", s) })
			})
		},
	}
}

// drawSnapshot says that AIAS judges by something new.
func (a *App) drawSnapshot(w io.Writer, what string, s *protocol.Snapshot) {
	fmt.Fprintf(w, "%s; workers being judged again: %d\n", what, s.Pending)
	a.Style.Field(w, 2, "id", s.ID)
	for _, m := range s.Warnings {
		a.Style.Field(w, 2, "warning", render.Clean(m))
	}
}
