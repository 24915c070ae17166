package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/operator"
)

func (a *App) keysCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "The key-encryption keys, under which all secrets of AIAS are sealed"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List them, and how many secrets each has sealed", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
					l, err := c.Keys(ctx)
					if err != nil {
						return err
					}
					return a.show(l, func(w io.Writer) { a.Style.Keys(w, l) })
				})
			},
		},
		&cobra.Command{
			Use: "rotate", Short: "Make a new one and seal all secrets anew, while AIAS serves", Args: cobra.NoArgs,
			Long: "Make a new key-encryption key, in the place that keys names in the configuration of AIAS, and seal all secrets under it. AIAS destroys the older one\n" +
				"two minutes later. A rotation that was stopped is brought to its end.",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
					r, err := c.RotateKeys(ctx)
					if err != nil {
						return err
					}
					return a.show(r, func(w io.Writer) {
						if r.Resumed {
							fmt.Fprintln(w, "a rotation that was stopped before is at its end now; no new key was made")
						}
						fmt.Fprintf(w, "%d secrets are sealed under %s\n", r.Resealed, r.To)
					})
				})
			},
		})
	return cmd
}
