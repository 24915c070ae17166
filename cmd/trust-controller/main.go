// Command trust-controller makes a Kubernetes cluster obey the verdicts of AIAS. See package cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	_ "golang.org/x/crypto/x509roots/fallback" // public roots for registries: the container image has none

	"touchstone.dev/touchstone/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "trust-controller:", err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// errUsage marks wrong usage: exit code 2.
var errUsage = errors.New("see `trust-controller --help`")

func root() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "trust-controller", Short: "Makes a Kubernetes cluster obey the verdicts of AIAS", Version: version.String(),
		SilenceErrors: true, SilenceUsage: true, CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown argument %q: %w", args[0], errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", err, errUsage) })
	o.flags(cmd.Flags())
	return cmd
}
