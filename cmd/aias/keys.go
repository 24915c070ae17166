package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/protocol"
)

func keysCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "The key-encryption keys, under which all secrets of AIAS are sealed"}
	cmd.AddCommand(keysListCommand(o), keysRotateCommand(o))
	return cmd
}

func keysListCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the key-encryption keys, and how many secrets each has sealed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := o.openQuiet(cmd.Context())
			if err != nil {
				return err
			}
			defer s.close()
			l, err := s.authority.ListKeys(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(l)
			}
			return printKeys(cmd.OutOrStdout(), l)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printKeys(w io.Writer, l *protocol.KeyList) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tKIND\tCREATED\tSECRETS\tSTATE")
	for _, k := range l.Keys {
		state := "older"
		switch {
		case k.Current:
			state = "current"
		case k.Missing:
			state = "missing: its secrets cannot be opened"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", k.ID, k.Kind, k.Created.Format(time.RFC3339), k.Secrets, state)
	}
	if l.Moving {
		fmt.Fprintln(t, "the configuration names another place for the key: rotate to move there")
	}
	return t.Flush()
}

func keysRotateCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "rotate", Short: "Make a new key-encryption key and seal all secrets anew, while no service runs", Args: cobra.NoArgs,
		Long: "Make a new key-encryption key, in the place that keys names in the configuration, seal all secrets under it, and destroy the older ones. " +
			"It can be stopped at any point, also by kill -9: run it again, and it goes on.\n\nA service that runs does it itself: touchstone keys rotate.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			unlock, err := o.lock()
			if err != nil {
				return fmt.Errorf("%w; a service that runs rotates its keys itself: touchstone keys rotate", err)
			}
			defer unlock()
			s, err := o.openQuiet(cmd.Context())
			if err != nil {
				return err
			}
			defer s.close()
			r, err := s.authority.RotateKeys(cmd.Context(), "local", func(n int) { fmt.Fprintf(cmd.ErrOrStderr(), "\r%d secrets sealed anew", n) })
			if r != nil && r.Resealed > 0 {
				fmt.Fprintln(cmd.ErrOrStderr())
			}
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if r.Resumed {
				fmt.Fprintln(out, "a rotation that was stopped before is at its end now; no new key was made")
			}
			fmt.Fprintf(out, "%d secrets are sealed under %s\n", r.Resealed, r.To)
			for _, id := range r.From {
				fmt.Fprintf(out, "%s is not needed any more\n", id)
			}
			return nil
		},
	}
}
