package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/demo"
)

func (a *App) demoCmd() *cobra.Command {
	var fast, keep, noColor bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Three workers with a software TPM each: enrolled, attested, tampered with",
		Long: `Starts AIAS and three workers with a software TPM each on this machine, without Kubernetes, and lets three attacks happen.
It needs swtpm and swtpm_setup (Debian: apt-get install swtpm swtpm-tools). Nothing stays behind, and nothing outside of its own
temporary folder is touched. Exit code 0: every verdict was the one that the story tells.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := demo.Options{Out: a.Out, Style: a.Style, Fast: fast, Keep: keep}
			if noColor {
				o.Style.Color = false
			}
			if a.asJSON() {
				o.Out, o.Fast = io.Discard, true
			}
			out, err := demo.Run(cmd.Context(), o)
			if a.asJSON() && out != nil {
				err = errors.Join(err, a.printJSON(out))
			}
			if cmd.Context().Err() != nil {
				return &exitError{code: ExitNotTrusted, err: errors.New("interrupted; everything was cleared away")}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&fast, "fast", false, "no pauses for reading")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave it running afterwards, to look around")
	cmd.Flags().BoolVar(&noColor, "no-color", false, "no colours, also on a terminal")
	cmd.AddCommand(a.demoExecCmd())
	return cmd
}

func (a *App) demoExecCmd() *cobra.Command {
	var folder string
	cmd := &cobra.Command{
		Use:   "exec NODE PROGRAM",
		Short: "Let a worker of a running demo (--keep) run a program that nobody knows",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if folder == "" {
				return usage(cmd, fmt.Errorf("which demo? give --folder or set $%s: `touchstone demo --keep` prints it", demo.EnvFolder))
			}
			if err := demo.Exec(folder, args[0], args[1]); err != nil {
				return err
			}
			return a.show(map[string]string{"node": args[0], "ran": args[1]}, func(w io.Writer) {
				fmt.Fprintf(w, "%s ran %s; look at `touchstone why %s`\n", args[0], args[1], args[0])
			})
		},
	}
	cmd.Flags().StringVar(&folder, "folder", os.Getenv(demo.EnvFolder), "`FOLDER` of the demo")
	return cmd
}
