package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/agent"
)

const (
	bootWait    = 30 * time.Second // for AIAS, before another pin or a passphrase has its turn
	latchWait   = 10 * time.Second // for AIAS to take note of the latch
	bootBackoff = 3 * time.Second  // between two tries
)

func bootCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "boot",
		Short: "What the initramfs calls before and after the disks are opened",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(bootAttestCmd(), bootLatchCmd())
	return cmd
}

func bootAttestCmd() *cobra.Command {
	var config string
	o := agent.BootOptions{}
	cmd := &cobra.Command{
		Use:   "attest",
		Short: "Attest so that AIAS opens the disks of this machine to clevis; say on the console why it does not",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Console = cmd.OutOrStdout()
			return atBoot(cmd.Context(), config, func(ctx context.Context, a *agent.Agent) error { return a.BootAttest(ctx, o) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", defaultConfig, "configuration `FILE`")
	f.DurationVar(&o.Wait, "wait", bootWait, "how long to wait in all")
	f.DurationVar(&o.Again, "again", 0, "attest again after this time while AIAS refuses; 0: the first verdict is the last")
	return cmd
}

func bootLatchCmd() *cobra.Command {
	var config string
	o := agent.BootOptions{}
	cmd := &cobra.Command{
		Use:   "latch",
		Short: "Say in the TPM (PCR 15) and to AIAS that the disks are open: their keys are given out no more in this boot",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Console = cmd.OutOrStdout()
			return atBoot(cmd.Context(), config, func(ctx context.Context, a *agent.Agent) error { return a.CloseLatch(ctx, o) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", defaultConfig, "configuration `FILE`")
	f.DurationVar(&o.Wait, "wait", latchWait, "how long to wait in all")
	return cmd
}

// atBoot does something with an agent that keeps no state.
func atBoot(ctx context.Context, config string, do func(context.Context, *agent.Agent) error) error {
	cfg, err := load(config, nil)
	if err != nil {
		return err
	}
	// Somebody may be waiting before the machine.
	cfg.Backoff.Max = min(cfg.Backoff.Max, agent.Duration(bootBackoff))
	cfg.Backoff.Initial = min(cfg.Backoff.Initial, cfg.Backoff.Max)
	a, err := agent.New(cfg, agent.HostAt(cfg.HostRoot), func() (agent.TPM, error) { return agent.OpenTPM(cfg.TPM) }, slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("configuration %s: %w", config, err)
	}
	return do(ctx, a)
}
