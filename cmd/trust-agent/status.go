package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/agent"
)

func statusCmd() *cobra.Command {
	var config, output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the last attestation went",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("output format %q is not known: %w", output, errUsage)
			}
			cfg, err := readOrDefault(config)
			if err != nil {
				return err
			}
			s, err := agent.LoadStatus(cfg.StatusFile)
			if err != nil {
				return err
			}
			if output == "json" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(s)
			}
			drawStatus(cmd.OutOrStdout(), s, time.Now())
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", defaultConfig, "configuration `FILE`")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "output `FORMAT`: text or json")
	return cmd
}

func drawStatus(w io.Writer, s *agent.Status, now time.Time) {
	word := "not trusted"
	switch {
	case s.Error != "":
		word = "attestation failed: " + s.Error
	case !s.Expires.IsZero() && !now.Before(s.Expires):
		word = "not trusted: the last verdict ended at " + s.Expires.Local().Format(time.DateTime) + "; does the agent run (systemctl status trust-agent)?"
	case s.Trusted && now.Before(s.Expires):
		word = "trusted until " + s.Expires.Local().Format(time.TimeOnly)
	}
	fmt.Fprintf(w, "%s: %s\n", s.Node, word)
	for _, l := range s.Levels {
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %d %-12s %-8s %s", l.Level, l.Name, l.Status, l.Reason), " "))
	}
	if s.Error != "" {
		fmt.Fprintf(w, "  tried %s (%s), with %s\n", s.At.Local().Format(time.DateTime), s.Trigger, s.Server)
		return
	}
	fmt.Fprintf(w, "  attested %s (%s), %d bytes of Evidence, to %s\n", s.At.Local().Format(time.DateTime), s.Trigger, s.Bytes, s.Server)
}

func checkCmd() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether this machine can be attested, and what is missing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(config, nil)
			if err != nil {
				return err
			}
			bad := 0
			for _, c := range agent.Check(cmd.Context(), &cfg) {
				mark := "ok"
				if c.Err != nil {
					mark, bad = "NO", bad+1
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %-16s %s\n", mark, c.What, c.Text())
			}
			if bad > 0 {
				return errors.New("this machine cannot be attested as it is")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", defaultConfig, "configuration `FILE`")
	return cmd
}
