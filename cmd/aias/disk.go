package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/nbde"
)

func diskCommand(o *options) *cobra.Command {
	take := &cobra.Command{
		Use: "import-tang DIR", Short: "Take over the keys of a tangd (Debian: /var/lib/tang), so that what is bound to it is recovered here", Args: cobra.ExactArgs(1),
		Long: "Take over the keys of a tangd (Debian: /var/lib/tang), so that what is bound to it is recovered here, under the same URL. Files whose name begins with a dot\n" +
			"are rotated keys: they recover and are not advertised. One file that cannot be used fails the whole. Keys that are here already are left as they are.\n" +
			"A service that runs takes the keys when it reloads (SIGHUP or touchstone reload); it answers for them when disks.open is set.",
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := nbde.ReadFolder(args[0])
			if err != nil {
				return err
			}
			s, err := o.openQuiet(cmd.Context())
			if err != nil {
				return err
			}
			defer s.close()
			n, err := s.authority.ImportDiskKeys(cmd.Context(), keys)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%d keys taken over, %d were here already; a service that runs takes them when it reloads\n", n, len(keys)-n)
			if d := s.config.Disks; !d.Open || d.Listen == "" {
				fmt.Fprintln(out, "to answer for them set disks.listen and disks.open in the configuration, and start the service again")
			}
			return nil
		},
	}
	cmd := &cobra.Command{Use: "disk", Short: "Keys of disks (touchstone disk does more)"}
	cmd.AddCommand(take)
	return cmd
}
