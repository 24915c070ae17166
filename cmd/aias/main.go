// Command aias is the Attestation Integrity Assurance Service: CA, verifier, and keeper of verdicts. See package authority.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "aias:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "aias", Short: "Attestation Integrity Assurance Service", Version: version.String(),
		SilenceUsage: true, SilenceErrors: true,
	}
	f := cmd.PersistentFlags()
	f.StringVar(&o.config, "config", "", "configuration `FILE` (see deploy/aias.yaml)")
	f.StringVar(&o.data, "data", "", "data `DIR`; overrides the file")
	f.StringVar(&o.listen, "listen", "", "`HOST:PORT` to listen on; overrides the file")
	f.StringVar(&o.address, "address", "", "`HOST:PORT` that agents and operators use; overrides the file")
	f.StringVar(&o.softwareTPMs, "software-tpm-roots", "", "`DIR` of the CA of software TPMs, for demos and tests only; overrides the file")
	cmd.AddCommand(initCommand(&o), serveCommand(&o), tokenCommand(&o), diskCommand(&o), keysCommand(&o), backupCommand(&o), restoreCommand(&o))
	for _, role := range clientRoles {
		cmd.AddCommand(clientCommand(&o, role))
	}
	return cmd
}
