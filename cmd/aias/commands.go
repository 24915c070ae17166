package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/authority"
	"touchstone.dev/touchstone/internal/protocol"
)

func initCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "init", Short: "Make the data folder: CA, keys, and the first operator's bundle", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := o.openQuiet(cmd.Context())
			if err != nil {
				return err
			}
			defer s.close()
			made, err := s.authority.WriteFirst()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			bundle := filepath.Join(s.config.Data, authority.OperatorFile)
			if !made {
				fmt.Fprintf(out, "%s was set up already; nothing changed\n", s.config.Data)
			}
			fmt.Fprintf(out, "operator bundle   %s  (keep it private; export TOUCHSTONE_OPERATOR=%s)\n", bundle, bundle)
			fmt.Fprintf(out, "root certificate  %s\n", filepath.Join(s.config.Data, authority.CAFile))
			fmt.Fprintf(out, "references        %s\n", s.config.References)
			fmt.Fprintf(out, "for agents        --server https://%s --ca-hash %s\n", s.config.Address, s.authority.CAHash())
			if local(s.config.Address) {
				fmt.Fprintf(out, "\nOnly this machine reaches https://%s. For workers elsewhere set address in the configuration, for init and for serve;\n"+
					"`aias operator add` makes a bundle with the new address.\n", s.config.Address)
			}
			return nil
		},
	}
}

// local tells whether an address is one of this machine only.
func local(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func serveCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "serve", Short: "Run the service; a new data folder is set up first", Args: cobra.NoArgs,
		Long: "Run the service. SIGHUP reads policy and references again; SIGTERM and SIGINT let requests finish and end it.",
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), o) },
	}
}

func serve(ctx context.Context, o *options) error {
	unlock, err := o.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	a, log := s.authority, s.log
	if made, err := a.WriteFirst(); err != nil {
		return err
	} else if made {
		log.Info("new data folder set up", "data", s.config.Data, "operator", filepath.Join(s.config.Data, authority.OperatorFile), "caHash", a.CAHash())
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.config.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-reload:
				if _, err := a.Reload(ctx); err != nil {
					log.Error("reload: the old policy and references stay in force", "err", err)
				}
			}
		}
	}()
	log.Info("listening", "on", l.Addr().String(), "address", s.config.Address, "caHash", a.CAHash())
	return a.Serve(ctx, l)
}

func tokenCommand(o *options) *cobra.Command {
	var req protocol.TokenRequest
	var life time.Duration
	create := &cobra.Command{
		Use: "create", Short: "Make a join token, also while the service runs", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.load()
			if err != nil {
				return err
			}
			done, err := alone(cmd.Context(), c.Data)
			if err != nil {
				return err
			}
			defer done()
			st, err := openStore(cmd.Context(), c, nil)
			if err != nil {
				return err
			}
			defer func() { _ = st.Close() }()
			req.Seconds = int64(life / time.Second)
			t, err := authority.PutToken(cmd.Context(), st, time.Now(), "local", req)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), t.Secret)
			return nil
		},
	}
	f := create.Flags()
	f.StringVar(&req.Node, "node", "", "only for this node `NAME`")
	f.StringVar(&req.EKSHA256, "ek", "", "only for the TPM with this EK (`SHA256` of its public key)")
	f.IntVar(&req.Uses, "uses", 1, "how often it works")
	f.DurationVar(&life, "for", time.Hour, "how long it works")
	f.StringVar(&req.Note, "note", "", "what it is for")
	cmd := &cobra.Command{Use: "token", Short: "Join tokens (touchstone token does more)"}
	cmd.AddCommand(create)
	return cmd
}

// clientRole is a kind of client that aias makes bundles for.
type clientRole struct {
	command, name, short string
	make                 func(*authority.Authority, string) (*protocol.OperatorBundle, error)
}

var clientRoles = []clientRole{
	{"operator", "operator", "Certificates of operators, who may do everything", (*authority.Authority).Operator},
	{"relying-party", "Relying Party", "Certificates of Relying Parties, which may read results and nodes", (*authority.Authority).RelyingParty},
	{"controller", "trust-controller", "Certificates of trust-controllers outside the cluster, which may also put policy and tags", (*authority.Authority).Controller},
}

// clientCommand makes bundles for a role.
func clientCommand(o *options, role clientRole) *cobra.Command {
	var out string
	add := &cobra.Command{
		Use: "add NAME", Short: "Make the bundle of another " + role.name, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := o.openQuiet(cmd.Context())
			if err != nil {
				return err
			}
			defer s.close()
			b, err := role.make(s.authority, args[0])
			if err != nil {
				return err
			}
			if out == "-" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(b)
			}
			if err := authority.WriteBundle(b, out); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s bundle of %s for https://%s: %s  (it holds a private key)\n", role.command, args[0], s.config.Address, out)
			return nil
		},
	}
	add.Flags().StringVar(&out, "out", role.command+".json", "`FILE` to write, - for standard output")
	cmd := &cobra.Command{Use: role.command, Short: role.short}
	cmd.AddCommand(add)
	return cmd
}
