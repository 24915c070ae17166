// Command trust-agent runs on every worker: it enrols the worker with AIAS and keeps it attested.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "trust-agent:", err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// errUsage marks wrong usage: exit code 2.
var errUsage = errors.New("see `trust-agent --help`")

// defaultConfig is where the package puts the configuration.
const defaultConfig = "/etc/trust-agent.yaml"

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "trust-agent",
		Short:             "Proves to AIAS, with the TPM, how this worker booted and what it runs",
		Version:           version.String(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q: %w", args[0], errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", err, errUsage) })
	cmd.AddCommand(enrolCmd(), runCmd(), statusCmd(), checkCmd(), imageProviderCmd(), bootCmd(), initramfsCmd(), complianceCmd(), auditCmd())
	return cmd
}
