package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

// maxPassphrase bounds what is read as a passphrase; AIAS says what it takes.
const maxPassphrase = 64 << 10

func (a *App) diskEscrowCmd() *cobra.Command {
	var file string
	var remove bool
	cmd := &cobra.Command{
		Use:   "escrow NODE VOLUME",
		Short: "Have AIAS keep the recovery passphrase of a worker's volume (name it by its LUKS UUID); it takes two operators to get it back",
		Example: "  # on the worker: a passphrase that nobody has seen, in a slot of its own\n" +
			"  head -c 30 /dev/urandom | base64 -w 0 >recovery && cryptsetup luksAddKey DEVICE recovery\n" +
			"  # where the operator bundle is\n  touchstone disk escrow worker-1 3f0c8a52-4d36-4c0e-9d2b-0d6f2f3a1b77 --file recovery",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if remove {
				return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
					if err := c.RemoveEscrow(ctx, args[0], args[1]); err != nil {
						return err
					}
					return a.show(map[string]string{"removed": args[1]}, func(w io.Writer) { fmt.Fprintln(w, "the passphrase is forgotten") })
				})
			}
			pass, err := a.readPassphrase(file)
			if err != nil {
				return unreadable(err)
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				e, err := c.Deposit(ctx, args[0], args[1], pass)
				if err != nil {
					return err
				}
				return a.show(e, func(w io.Writer) { a.Style.Escrows(w, []protocol.Escrow{*e}, a.Now()) })
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "-", "`FILE` with the passphrase, byte by byte but for one line end; - for standard input")
	cmd.Flags().BoolVar(&remove, "remove", false, "forget the passphrase, instead")
	return cmd
}

// readPassphrase reads a passphrase. A line end that an editor or echo put there is not part of it.
func (a *App) readPassphrase(file string) ([]byte, error) {
	in := a.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxPassphrase))
	if err != nil {
		return nil, err
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return nil, errors.New("the passphrase is empty")
	}
	return b, nil
}

func (a *App) diskRecoverCmd() *cobra.Command {
	var reason string
	var confirm, take, cancel bool
	cmd := &cobra.Command{
		Use:   "recover [NODE VOLUME]",
		Short: "Get a recovery passphrase out of escrow: one operator asks with a reason, another confirms, the first one takes it; without arguments: list",
		Example: "  touchstone disk recover worker-1 VOLUME --reason \"mainboard is dead, data needed\"   # ann\n" +
			"  touchstone disk recover worker-1 VOLUME --confirm                                     # bob\n" +
			"  touchstone disk recover worker-1 VOLUME --take                                        # ann",
		Args: cobra.MatchAll(cobra.MaximumNArgs(2), func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return errors.New("want NODE and VOLUME, or neither")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			step, chosen := protocol.EscrowAsk, 0
			for _, s := range []struct {
				flag bool
				step string
			}{{reason != "", protocol.EscrowAsk}, {confirm, protocol.EscrowConfirm}, {take, protocol.EscrowTake}, {cancel, protocol.EscrowCancel}} {
				if s.flag {
					step = s.step
					chosen++
				}
			}
			switch {
			case len(args) == 0 && chosen == 0:
				return a.listEscrows(cmd)
			case len(args) == 0 || chosen != 1:
				return usage(cmd, errors.New("want NODE and VOLUME, and one of --reason, --confirm, --take and --cancel"))
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				e, err := c.Escrow(ctx, args[0], args[1], step, reason)
				if err != nil {
					return err
				}
				return a.show(e, func(w io.Writer) {
					if step == protocol.EscrowTake {
						_, _ = w.Write(e.Passphrase) // and nothing else, so that it can be piped
						return
					}
					a.Style.Escrows(w, []protocol.Escrow{*e}, a.Now())
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&reason, "reason", "", "ask for it, and say what for")
	f.BoolVar(&confirm, "confirm", false, "confirm what another operator asked for")
	f.BoolVar(&take, "take", false, "print the passphrase, once")
	f.BoolVar(&cancel, "cancel", false, "drop a request")
	return cmd
}

func (a *App) listEscrows(cmd *cobra.Command) error {
	return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
		all, err := c.Escrows(ctx)
		if err != nil {
			return err
		}
		return a.show(all, func(w io.Writer) { a.Style.Escrows(w, all, a.Now()) })
	})
}
