package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/policy"
)

func (a *App) complianceTailoringCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "tailoring POLICY",
		Short: "Write the XCCDF tailoring that AIAS makes of a policy (file), to try it by oscap or trust-agent compliance scan",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := a.readFile(args[0], maxConditions)
			if err != nil {
				return unreadable(err)
			}
			p, err := policy.Parse(b)
			if err != nil {
				return unreadable(err)
			}
			t := p.Spec.Runtime.Compliance.Tailored()
			if t == nil {
				return unreadable(errors.New("the policy has no runtime.compliance.tailoring"))
			}
			fmt.Fprintf(a.Err, "scan by profile %s; SHA-256 %s\n", t.ID(), t.Digest())
			_, err = a.Out.Write(t.Document())
			return err
		},
	}
}
