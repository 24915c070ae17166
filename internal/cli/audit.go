package cli

import "github.com/spf13/cobra"

func (a *App) auditCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Audit events of the workers (auditd): what happened, whether all of it is there, and what misuse was found"}
	cmd.AddCommand(a.auditTailCmd(), a.auditSearchCmd(), a.auditVerifyCmd(), a.auditAcceptCmd(), a.detectionsCmd(), a.clearCmd())
	return cmd
}
