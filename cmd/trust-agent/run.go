package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/agent"
	"touchstone.dev/touchstone/internal/version"
)

// memoryLimit is what the garbage collector aims at, in bytes; a large IMA list that must be sent whole may pass it for a moment.
const memoryLimit = 48 << 20

func runCmd() *cobra.Command {
	var config string
	var flags agent.Config
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Keep this worker attested until told to stop; SIGUSR1 attests at once",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(config, func(c *agent.Config) { merge(c, &flags) })
			if err != nil {
				return err
			}
			debug.SetMemoryLimit(memoryLimit)
			return run(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&config, "config", defaultConfig, "configuration `FILE`")
	// What differs between the pods of a DaemonSet, or is known when they start.
	cmd.Flags().StringVar(&flags.Server, "server", "", "https `URL` of AIAS; overrides the file")
	cmd.Flags().StringVar(&flags.Node, "node", "", "`NAME` of this worker; overrides the file")
	return cmd
}

func run(ctx context.Context, cfg agent.Config) error {
	log := newLogger(cfg)
	a, err := agent.New(cfg, agent.HostAt(cfg.HostRoot), func() (agent.TPM, error) { return agent.OpenTPM(cfg.TPM) }, log)
	if err != nil {
		return err
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	defer signal.Stop(asked)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-asked:
				a.Ask()
			}
		}
	}()
	log.Info("trust-agent starts", "version", version.String(), "server", cfg.Server)
	return a.Run(ctx)
}

func newLogger(cfg agent.Config) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
