package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/audit/rules"
	"touchstone.dev/touchstone/internal/audit/source"
)

func auditCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "audit", Short: "The kernel's audit on this worker", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	rulesCmd := &cobra.Command{
		Use: "rules", Short: "The audit rules that detections need", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	rulesCmd.AddCommand(rulesInstallCmd(), rulesCheckCmd(), rulesShowCmd())
	cmd.AddCommand(rulesCmd)
	return cmd
}

// errDrift says that not all rules are loaded as meant.
var errDrift = errors.New("the loaded audit rules are not as meant")

// auditAgent adds the flag for the agent's program, and returns what it says.
func auditAgent(cmd *cobra.Command) func() (string, error) {
	var agent string
	cmd.Flags().StringVar(&agent, "agent", "", "`PATH` of the agent's program, which rules watch, and whose own work others leave out; this program when not given")
	return func() (string, error) {
		if agent != "" {
			return agent, nil
		}
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		return filepath.EvalSymlinks(self)
	}
}

func rulesInstallCmd() *cobra.Command {
	c := rules.DefaultControl
	var folder, output string
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Load the audit rules, now and at each boot; rules of others stay",
		Args:  cobra.NoArgs,
	}
	agent := auditAgent(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if c.Backlog < 64 || c.Backlog > 1<<20 || c.Wait < 0 || c.Wait > 60000 {
			return fmt.Errorf("--backlog wants 64 to 1048576, --wait 0 to 60000: %w", errUsage)
		}
		program, err := agent()
		if err != nil {
			return err
		}
		report, err := rules.Install(cmd.Context(), rules.Auditctl, program, folder, c)
		if report != nil {
			if err := drawRules(cmd.OutOrStdout(), report, output); err != nil {
				return err
			}
		}
		if err == nil && len(report.Drift()) > 0 {
			return errDrift
		}
		return err
	}
	f := cmd.Flags()
	f.IntVar(&c.Backlog, "backlog", c.Backlog, "`RECORDS` that may wait for auditd, about a kilobyte of kernel memory each")
	f.IntVar(&c.Wait, "wait", c.Wait, "`TICKS` that a process waits when the backlog is full; 0: its events are lost, and counted")
	f.BoolVar(&c.Immutable, "immutable", false, "lock the rules until the next boot, against root too")
	f.StringVar(&folder, "boot-folder", rules.BootFolder, "`FOLDER` for the rules of the next boot; empty: none are written")
	f.StringVarP(&output, "output", "o", "text", "output `FORMAT`: text or json")
	return cmd
}

func rulesCheckCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Compare the loaded audit rules with those that are meant, and say how audit is",
		Args:  cobra.NoArgs,
	}
	agent := auditAgent(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		program, err := agent()
		if err != nil {
			return err
		}
		report, err := rules.Check(cmd.Context(), rules.Auditctl, program)
		if err != nil {
			return err
		}
		if err := drawRules(cmd.OutOrStdout(), report, output); err != nil {
			return err
		}
		status, err := source.Ask()
		if err != nil {
			return err
		}
		if output != "json" {
			drawAudit(cmd.OutOrStdout(), &status)
		}
		switch {
		case len(report.Drift()) > 0:
			return fmt.Errorf("%w: `trust-agent audit rules install` mends it", errDrift)
		case status.Enabled == 0:
			return errors.New("audit is switched off: `trust-agent audit rules install` switches it on")
		case status.PID == 0:
			return errors.New("no auditd is connected to the kernel: systemctl start auditd")
		}
		return nil
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "output `FORMAT`: text or json")
	return cmd
}

func rulesShowCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "show", Short: "Print the audit rules, with what each is for", Args: cobra.NoArgs}
	agent := auditAgent(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		program, err := agent()
		if err != nil {
			return err
		}
		text, err := rules.Boot(program, rules.DefaultControl)
		if err != nil {
			return err
		}
		_, err = io.WriteString(cmd.OutOrStdout(), text)
		return err
	}
	return cmd
}

// drawRules writes the summary, and each rule that is not loaded as meant.
func drawRules(w io.Writer, report *rules.Report, output string) error {
	switch output {
	case "json":
		type finding struct {
			Rule  string      `json:"rule"`
			Key   string      `json:"key"`
			State rules.State `json:"state"`
			Why   string      `json:"why,omitempty"`
		}
		all := []finding{}
		for _, f := range report.Findings {
			all = append(all, finding{f.Rule.String(), f.Rule.Key, f.State, f.Why})
		}
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(all)
	case "text":
	default:
		return fmt.Errorf("output format %q is not known: %w", output, errUsage)
	}
	fmt.Fprintln(w, report.Summary())
	for _, f := range report.Findings {
		if f.State != rules.StateLoaded {
			fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %-9s %s  (%s)", f.State, f.Rule, f.Why), " "))
		}
	}
	return nil
}

// drawAudit writes what the kernel says of audit.
func drawAudit(w io.Writer, s *source.Status) {
	enabled := map[uint32]string{0: "off", 1: "on", 2: "on, locked until the next boot"}[s.Enabled]
	auditd := "no auditd"
	if s.PID != 0 {
		auditd = fmt.Sprintf("auditd is process %d", s.PID)
	}
	fmt.Fprintf(w, "audit is %s, %s\n", enabled, auditd)
	fmt.Fprintf(w, "  %d records lost since boot, %d of at most %d wait\n", s.Lost, s.Backlog, s.Limit)
	fmt.Fprintf(w, "  digest of the loaded rules: %s\n", hex.EncodeToString(s.RulesDigest))
}
