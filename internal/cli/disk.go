package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/release"
)

func (a *App) diskCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "disk", Aliases: []string{"disks"}, Short: "Keys of encrypted disks (clevis): which workers may open theirs, and when"}
	cmd.AddCommand(a.diskListCmd(), a.diskVolumesCmd(), a.diskBindCmd(), a.diskRotateCmd(), a.diskDestroyCmd(), a.diskEscrowCmd(), a.diskRecoverCmd(),
		a.diskActCmd("revoke NODE", "Refuse every recovery of a worker's disks, at once", protocol.DiskRevoke, 0),
		a.diskActCmd("unrevoke NODE", "Take a revocation back", protocol.DiskUnrevoke, 0),
		a.diskActCmd("approve NODE", "Let one recovery through that the policy refuses", protocol.DiskApprove, 15*time.Minute),
		a.diskActCmd("maintain NODE", "Let all recoveries of a worker through for a while; --for 0s ends it", protocol.DiskMaintain, time.Hour))
	return cmd
}

func (a *App) diskListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the workers with disks: whether they would open now, why not, and which must be bound again",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				all, err := c.Disks(ctx)
				if err != nil {
					return err
				}
				return a.show(all, func(w io.Writer) { a.Style.Disks(w, all, a.Now()) })
			})
		},
	}
}

// bindFlags are the conditions of a policy as flags.
type bindFlags struct {
	mode, warnings string
	levels         []int32
	maxAge         time.Duration
	tags           []string
	softwareTPM    bool
	uses           int
	lease, boot    time.Duration
	anySource      bool
	ignoreLatch    bool
}

// policy is what the flags say. In mode node conditions are only asked when some are given.
func (f *bindFlags) policy(given func(flag string) bool) (protocol.DiskPolicy, error) {
	p := protocol.DiskPolicy{Mode: f.mode, Uses: f.uses, AnySource: f.anySource, IgnoreLatch: f.ignoreLatch}
	for _, d := range []struct {
		flag string
		from time.Duration
		to   *string
	}{{"lease", f.lease, &p.Lease}, {"boot", f.boot, &p.Boot}} {
		if given(d.flag) {
			*d.to = d.from.String()
		}
	}
	c := release.Conditions{Levels: f.levels, Warnings: f.warnings}
	if f.softwareTPM {
		c.SoftwareTPM = release.Allow
	}
	if given("max-age") {
		age := release.Duration(f.maxAge)
		c.MaxResultAge = &age
	}
	for _, word := range f.tags {
		name, value, ok := strings.Cut(word, "=")
		if !ok {
			return p, fmt.Errorf("--tag %q: want NAME=VALUE", word)
		}
		if c.Tags == nil {
			c.Tags = map[string][]string{}
		}
		c.Tags[name] = append(c.Tags[name], value)
	}
	if err := c.Validate(); err != nil {
		return p, err
	}
	for _, flag := range []string{"levels", "warnings", "software-tpm", "max-age", "tag"} {
		if given(flag) {
			var err error
			p.Conditions, err = json.Marshal(c)
			return p, err
		}
	}
	return p, nil
}

func (a *App) diskBindCmd() *cobra.Command {
	var f bindFlags
	cmd := &cobra.Command{
		Use:   "bind NODE",
		Short: "Make the keys for a worker's disks, say when it may recover, and print the command that binds a disk",
		Long: "Make the keys for a worker's disks, say when it may recover, and print the command that binds a disk. Again for the same worker: change the policy.\n\n" +
			"Mode attested releases only after the worker attested in this boot, to the address that it attested from; mode node while the worker is not\n" +
			"revoked and, when there are conditions, its last verdict meets them. For 15 minutes clevis may try what it binds, also on a worker that is up for long.",
		Example: "  touchstone disk bind worker-1 --tag site=muc\n  touchstone disk bind worker-2 --mode node --levels 1,2,3,4 --max-age 48h",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := f.policy(cmd.Flags().Changed)
			if err != nil {
				return usage(cmd, err)
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				d, err := c.BindDisk(ctx, args[0], p)
				if err != nil {
					return err
				}
				all, err := c.Disks(ctx)
				if err != nil {
					return err
				}
				return a.show(d, func(w io.Writer) { a.Style.DiskBinding(w, d, all) })
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.mode, "mode", "attested", "attested or node")
	flags.Int32SliceVar(&f.levels, "levels", nil, "levels that must hold; default all five (mode node: no conditions at all)")
	flags.StringVar(&f.warnings, "warnings", "", "whether a level with warnings holds: Allow or Deny (default Allow)")
	flags.DurationVar(&f.maxAge, "max-age", 0, "how old the verdict may be (mode node: default 24h; mode attested: until it expires)")
	flags.StringArrayVar(&f.tags, "tag", nil, "asset tag `NAME=VALUE` that the worker must have proven; the same name again: one of the values")
	flags.BoolVar(&f.softwareTPM, "software-tpm", false, "also for a TPM that is a program: for tests")
	flags.IntVar(&f.uses, "uses", 0, "recoveries in one boot (default 8)")
	flags.DurationVar(&f.lease, "lease", 0, "how long after an attestation (default 2m)")
	flags.DurationVar(&f.boot, "boot", 0, "how long after the first attestation of a boot (default 10m)")
	flags.BoolVar(&f.anySource, "any-source", false, "also to another address than the one that attested: behind address translation")
	flags.BoolVar(&f.ignoreLatch, "ignore-latch", false, "also after the trust agent closed the latch of this boot (PCR 15): data disks that open after the root disk")
	return cmd
}

// diskActCmd makes the commands that change a state of the disks of a worker. life is the default of --for, which it has when it is not 0.
func (a *App) diskActCmd(use, short, act string, life time.Duration) *cobra.Command {
	var req protocol.DiskAct
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if life < 0 || life%time.Second != 0 {
				return usage(cmd, errors.New("--for: want whole seconds"))
			}
			req.Seconds = int64(life / time.Second)
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				d, err := c.ActOnDisk(ctx, args[0], act, req)
				if err != nil {
					return err
				}
				return a.show(d, func(w io.Writer) { a.Style.Disks(w, &protocol.DiskList{Nodes: []protocol.Disk{*d}}, a.Now()) })
			})
		},
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, for the record")
	if life > 0 {
		cmd.Flags().DurationVar(&life, "for", life, "for how long")
	}
	if act == protocol.DiskApprove {
		cmd.Flags().StringVar(&req.Source, "source", "", "only to this `ADDRESS`")
	}
	return cmd
}

func (a *App) diskRotateCmd() *cobra.Command {
	var signing, shared bool
	cmd := &cobra.Command{
		Use:   "rotate [NODE]",
		Short: "A new exchange key for a worker's disks; the old one still recovers, until the disks are bound again (clevis luks regen)",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n := len(args)
			for _, set := range []bool{signing, shared} {
				if set {
					n++
				}
			}
			if n != 1 {
				return usage(cmd, errors.New("want one of NODE, --signing and --shared"))
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				var all *protocol.DiskList
				var err error
				switch {
				case signing:
					all, err = c.RotateDiskKeys(ctx, protocol.DiskSigning)
				case shared:
					all, err = c.RotateDiskKeys(ctx, protocol.DiskShared)
				default:
					if _, err = c.ActOnDisk(ctx, args[0], protocol.DiskRotate, protocol.DiskAct{}); err == nil {
						all, err = c.Disks(ctx)
					}
				}
				if err != nil {
					return err
				}
				return a.show(all, func(w io.Writer) { a.Style.Rebinding(w, all) })
			})
		},
	}
	cmd.Flags().BoolVar(&signing, "signing", false, "the key that signs advertisements, instead: who trusts the old one asks for it by its thumbprint")
	cmd.Flags().BoolVar(&shared, "shared", false, "the exchange key that all share, instead")
	return cmd
}

func (a *App) diskDestroyCmd() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "destroy NODE",
		Short: "Destroy the keys of a worker's disks: what only they open is lost for ever",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				return usage(cmd, errors.New("this cannot be taken back: say --yes (`touchstone disk revoke` can be)"))
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				if err := c.DestroyDisk(ctx, args[0]); err != nil {
					return err
				}
				return a.show(map[string]string{"destroyed": args[0]}, func(w io.Writer) {
					fmt.Fprintf(w, "the keys of the disks of %s are destroyed\n", render.Clean(args[0]))
				})
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "really")
	return cmd
}
