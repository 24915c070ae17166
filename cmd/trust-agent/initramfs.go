package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/agent"
	"touchstone.dev/touchstone/internal/initramfs"
)

func initramfsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "initramfs",
		Short: "Attest before encrypted disks are opened",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var config, root string
	cmd.PersistentFlags().StringVar(&config, "config", defaultConfig, "configuration `FILE`")
	cmd.PersistentFlags().StringVar(&root, "root", "/", "root `FOLDER` of the system")
	cmd.AddCommand(initramfsInstallCmd(&root), initramfsCheckCmd(&config, &root), initramfsStageCmd(&config))
	return cmd
}

func initramfsInstallCmd(root *string) *cobra.Command {
	var update bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the hooks that put the agent into the initramfs, of initramfs-tools or dracut",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if update && *root != "/" {
				return fmt.Errorf("--update makes the initramfs of this machine, not of %s: %w", *root, errUsage)
			}
			t, err := initramfs.Find(*root)
			if err != nil {
				return err
			}
			changed, err := t.Install(*root)
			for _, f := range changed {
				fmt.Fprintln(cmd.OutOrStdout(), "wrote", f)
			}
			if err != nil {
				return err
			}
			if update {
				err = t.Run(cmd.Context(), cmd.OutOrStdout())
			} else {
				fmt.Fprintln(cmd.OutOrStdout(), "make the initramfs anew:", t.Rebuild())
			}
			fmt.Fprintln(cmd.OutOrStdout(), "a new initramfs has a new SHA-256: import it at AIAS before the next boot (touchstone reference import files)")
			return err
		},
	}
	cmd.Flags().BoolVar(&update, "update", false, "make the initramfs anew at once")
	return cmd
}

func initramfsCheckCmd(config, root *string) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say what keeps the disks from being opened by attestation; exit code 1 when something does",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(*config, nil)
			if err != nil {
				return err
			}
			bad := 0
			for _, c := range initramfs.Check(*root, &cfg, time.Now()) {
				mark := "ok"
				if c.Err != nil {
					mark, bad = "NO", bad+1
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %-16s %s\n", mark, c.What, c.Text())
			}
			if bad > 0 {
				return errors.New("the disks of this machine do not open by attestation as it is")
			}
			return nil
		},
	}
}

// stageWait bounds what an update of the kernel waits for AIAS.
const stageWait = 30 * time.Second

// initramfsStageCmd is for the hooks: they call it while an initramfs is being made.
func initramfsStageCmd(config *string) *cobra.Command {
	return &cobra.Command{
		Use:    "stage FOLDER",
		Short:  "Write configuration and enrolment into an initramfs that is being made",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := load(*config, nil)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), stageWait)
			defer cancel()
			return initramfs.Stage(ctx, args[0], cfg, agent.BootIdentity, cmd.ErrOrStderr())
		},
	}
}
