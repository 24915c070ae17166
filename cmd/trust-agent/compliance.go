package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/compliance/content"
	"touchstone.dev/touchstone/internal/compliance/oscap"
	"touchstone.dev/touchstone/internal/compliance/verdict"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

func complianceCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "compliance", Short: "Scan this machine with OpenSCAP", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(complianceScanCmd())
	return cmd
}

// complianceScanCmd scans here and sends nothing: to try content and profile before they are in the configuration.
func complianceScanCmd() *cobra.Command {
	var config, output, tailoring string
	var s oscap.Scan
	cmd := &cobra.Command{
		Use:   "scan",
		Short: "Scan as the agent would, and show what comes of it; nothing is sent",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("output format %q is not known: %w", output, errUsage)
			}
			cfg, err := readOrDefault(config)
			if err != nil {
				return err
			}
			c := cfg.Compliance
			if s.Content != "" && s.Content != c.Content { // what is configured is for other content
				c.Profile, c.Tailoring = "", ""
			}
			for _, f := range []struct{ flag, configured *string }{{&s.Content, &c.Content}, {&s.Profile, &c.Profile}, {&tailoring, &c.Tailoring}} {
				if *f.flag == "" {
					*f.flag = *f.configured
				}
			}
			if s.Content == "" && s.Profile == "" {
				s.Content = content.Name
			}
			s.Profile = content.ProfileOr(s.Profile, s.Content, content.Worker)
			if s.Content == "" || s.Profile == "" {
				return fmt.Errorf("neither the configuration nor --content and --profile say what to scan by: %w", errUsage)
			}
			if tailoring != "" {
				if s.Tailoring, err = os.ReadFile(tailoring); err != nil {
					return err
				}
			}
			r := &oscap.Runner{HostRoot: cfg.HostRoot}
			if output == "text" {
				r.Progress = func(rule string, o xccdf.Outcome, _ int) { fmt.Fprintf(cmd.ErrOrStderr(), "%-14s %s\n", o, rule) }
			}
			out, err := r.Scan(cmd.Context(), s)
			if err != nil {
				return err
			}
			words := map[string]verdict.Words{}
			for i := range out.Catalogue.Rules {
				x := &out.Catalogue.Rules[i]
				words[x.ID] = verdict.Words{Title: x.Title, Fix: x.Fix}
			}
			scan := verdict.NewScan(out.Result, words)
			scan.Content, scan.Tailoring = out.Content, out.Tailoring
			if output == "json" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				err = e.Encode(scan)
			} else {
				drawScan(cmd.OutOrStdout(), scan)
			}
			if err == nil && scan.Passed < len(scan.Rules) {
				err = errNotCompliant
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", defaultConfig, "configuration `FILE`")
	f.StringVar(&s.Content, "content", "", "SCAP source data stream `FILE`, or baseline: that of the product (default: that of the configuration, or the baseline)")
	f.StringVar(&s.Profile, "profile", "", "`ID` of the profile (default: that of the configuration; of the baseline, that for workers)")
	f.StringVar(&tailoring, "tailoring", "", "XCCDF tailoring `FILE` (default: that of the configuration)")
	f.StringVar(&s.ARF, "arf", "", "write the whole results (ARF) to `FILE`")
	f.StringVar(&s.HTML, "report", "", "write a report (HTML) to `FILE`")
	f.StringVarP(&output, "output", "o", "text", "output `FORMAT`: text or json")
	return cmd
}

var errNotCompliant = errors.New("not all rules pass")

func drawScan(w io.Writer, s *verdict.Scan) {
	for _, severity := range slices.Backward(xccdf.Severities) {
		for i := range s.Rules {
			r := &s.Rules[i]
			if r.Severity != severity || r.Outcome == xccdf.Pass || r.Outcome == xccdf.Fixed {
				continue
			}
			fmt.Fprintf(w, "%s (%s): %s\n  %s\n", r.Outcome, r.Severity, r.ID, r.Title)
			if r.Fix != "" {
				fmt.Fprintf(w, "  remedy: %s\n", r.Fix)
			}
		}
	}
	fmt.Fprintf(w, "%s; oscap %s, content sha256:%s\n", s.Summary(), s.Tool, s.Content)
}
