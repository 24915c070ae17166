package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/compliance/content"
)

// baseline is what `compliance content` says.
type baseline struct {
	Version  string   `json:"version"`
	SHA256   string   `json:"sha256"`
	Profiles []string `json:"profiles"`
}

func (a *App) complianceContentCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "content",
		Short: "Show the security baseline that comes with this program: version, digest for a policy, profiles; or write it",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if file != "" {
				if err := os.WriteFile(file, content.Baseline(), 0o644); err != nil { //nolint:gosec // it is no secret
					return err
				}
			}
			b := &baseline{Version: content.Version, SHA256: content.Digest(), Profiles: []string{content.Worker, content.Image}}
			return a.show(b, func(w io.Writer) {
				fmt.Fprintf(w, "baseline %s\n", b.Version)
				a.Style.Field(w, 2, "sha256", b.SHA256)
				for _, p := range b.Profiles {
					a.Style.Field(w, 2, "profile", p)
				}
			})
		},
	}
	cmd.Flags().StringVar(&file, "write", "", "write the data stream to `FILE`, to read it or to evaluate it by oscap")
	return cmd
}
