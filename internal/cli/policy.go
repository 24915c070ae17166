package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/policy"
)

func (a *App) policyCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "The appraisal policy"}
	cmd.AddCommand(a.policyCheckCmd(), a.policyDefaultCmd(), a.policyShowCmd(), a.policySetCmd(), a.policyRulesCmd())
	return cmd
}

// readPolicy reads a policy file; "-" is standard input.
func (a *App) readPolicy(path string) ([]byte, *policy.Policy, error) {
	data, err := a.readFile(path, policy.MaxSize)
	if err != nil {
		return nil, nil, unreadable(fmt.Errorf("read the policy: %w", err))
	}
	p, err := policy.Parse(data)
	if err != nil {
		return nil, nil, unreadable(fmt.Errorf("%s: %w", path, err))
	}
	return data, p, nil
}

func (a *App) policyCheckCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say whether a policy can be read, and what is wrong with it",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			_, p, err := a.readPolicy(args[0])
			if err != nil {
				return err
			}
			if _, err := a.verifier(args[0], ""); err != nil { // exceptions for rules that do not exist
				return unreadable(err)
			}
			out := map[string]any{"valid": true, "name": p.Metadata.Name, "id": p.ID(), "exceptions": len(p.Spec.Exceptions)}
			return a.show(out, func(w io.Writer) {
				fmt.Fprintf(w, "%s is a valid policy: %s, %d exceptions\n", args[0], p.Metadata.Name, len(p.Spec.Exceptions))
				a.Style.Field(w, 2, "id", p.ID())
			})
		},
	}
}

func (a *App) policyDefaultCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "default",
		Short: "Print the commented default policy, to start from",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if !a.asJSON() {
				_, err := a.Out.Write(policy.Default())
				return err
			}
			p, err := policy.Parse(policy.Default())
			if err != nil {
				return err
			}
			return a.printJSON(p)
		},
	}
}

func (a *App) policyRulesCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "rules",
		Short: "List the rules by name, as exceptions in a policy name them",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			names := appraisal.RuleNames()
			return a.show(names, func(w io.Writer) { fmt.Fprintln(w, strings.Join(names, "\n")) })
		},
	}
}

func (a *App) policyShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Print the policy that AIAS judges by",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				data, err := c.Policy(ctx)
				if err != nil {
					return err
				}
				if !a.asJSON() {
					_, err = a.Out.Write(data)
					return err
				}
				p, err := policy.Parse(data)
				if err != nil {
					return err
				}
				return a.printJSON(p)
			})
		},
	}
}

func (a *App) policySetCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "set FILE",
		Short: "Put a policy in force: AIAS judges every worker again, from kept Evidence",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, _, err := a.readPolicy(args[0])
			if err != nil {
				return err
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				s, err := c.SetPolicy(ctx, data)
				if err != nil {
					return err
				}
				return a.show(s, func(w io.Writer) { a.drawSnapshot(w, "the policy is in force", s) })
			})
		},
	}
}
