package cli

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

func (a *App) ekCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "ek", Short: "Endorsement keys that are accepted without a manufacturer's certificate"}
	cmd.AddCommand(a.ekAllowCmd(), a.ekListCmd(), a.ekDisallowCmd())
	return cmd
}

func (a *App) ekAllowCmd() *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use:   "allow SHA256|FILE",
		Short: "Accept a TPM by its endorsement key: the SHA-256 of its public key, or a PEM or DER file of the key or its certificate",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			hash, err := ekHash(args[0])
			if err != nil {
				return unreadable(err)
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				ek := protocol.EK{SHA256: hash, Note: note}
				if err := c.AllowEK(ctx, ek); err != nil {
					return err
				}
				return a.show(ek, func(w io.Writer) { fmt.Fprintf(w, "endorsement key %s is allowed\n", hash) })
			})
		},
	}
	cmd.Flags().StringVar(&note, "note", "", "a note for the list, such as the machine's serial number")
	return cmd
}

func (a *App) ekListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the allowed endorsement keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				eks, err := c.EKs(ctx)
				if err != nil {
					return err
				}
				return a.show(protocol.EKList{EKs: eks}, func(w io.Writer) { a.Style.EKs(w, eks) })
			})
		},
	}
}

func (a *App) ekDisallowCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "disallow SHA256",
		Short: "Take an endorsement key off the list; workers that enrolled with it stay",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				if err := c.DisallowEK(ctx, args[0]); err != nil {
					return err
				}
				return a.show(map[string]string{"disallowed": args[0]}, func(w io.Writer) { fmt.Fprintln(w, "taken off the list") })
			})
		},
	}
}

// ekHash reads a hash, or a file and takes the hash of the public key in it.
func ekHash(arg string) (string, error) {
	if b, err := hex.DecodeString(arg); err == nil && len(b) == sha256.Size {
		return hex.EncodeToString(b), nil
	}
	data, err := os.ReadFile(arg)
	if err != nil {
		return "", fmt.Errorf("%q is neither 64 hexadecimal digits nor a file that can be read: %w", arg, err)
	}
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	spki := data
	if cert, err := x509.ParseCertificate(data); err == nil {
		spki = cert.RawSubjectPublicKeyInfo
	} else if _, err := x509.ParsePKIXPublicKey(data); err != nil {
		return "", errors.New(arg + " holds neither a certificate nor a public key")
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:]), nil
}
