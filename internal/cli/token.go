package cli

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

func (a *App) tokenCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Aliases: []string{"tokens"}, Short: "Join tokens: the right to enrol a worker"}
	cmd.AddCommand(a.tokenCreateCmd(), a.tokenListCmd(), a.tokenRevokeCmd())
	return cmd
}

func (a *App) tokenCreateCmd() *cobra.Command {
	var req protocol.TokenRequest
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a join token and print the command that uses it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ttl < time.Second || req.Uses < 1 {
				return usage(cmd, errors.New("--ttl must be a second at least, and --uses 1 at least"))
			}
			req.Seconds = int64(ttl / time.Second)
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				t, err := c.CreateToken(ctx, req)
				if err != nil {
					return err
				}
				hash, err := a.caHash()
				if err != nil {
					return err
				}
				out := struct {
					*protocol.NewToken
					Server string `json:"server"`
					CAHash string `json:"caHash"`
				}{t, c.Server(), hash}
				return a.show(out, func(w io.Writer) {
					fmt.Fprintf(w, "%s\n\n", t.Secret)
					fmt.Fprintln(w, a.Style.Dim("on the worker (the token is shown this once only):"))
					fmt.Fprintf(w, "  trust-agent enrol --server %s \\\n    --ca-hash %s \\\n    --token %s\n",
						c.Server(), hash, t.Secret)
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Node, "node", "", "only for the worker with this `NAME`")
	f.StringVar(&req.EKSHA256, "ek", "", "only for the TPM whose endorsement key has this `SHA256`")
	f.IntVar(&req.Uses, "uses", 1, "how many workers may enrol with it")
	f.DurationVar(&ttl, "ttl", time.Hour, "how long it is valid")
	f.StringVar(&req.Note, "note", "", "a note for the list")
	return cmd
}

// caHash is the pin that an agent needs: the hash of the last self-signed certificate of the bundle's CA.
func (a *App) caHash() (string, error) {
	path := a.operatorFile
	if path == "" {
		path = os.Getenv(operator.EnvBundle)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the operator bundle: %w", err)
	}
	var b protocol.OperatorBundle
	if err := json.Unmarshal(data, &b); err != nil {
		return "", fmt.Errorf("operator bundle %s: %w", path, err)
	}
	return CAHash(b.CA)
}

// CAHash returns the pin of the root in a PEM text, as `trust-agent enrol --ca-hash` takes it.
func CAHash(text string) (string, error) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return "", errors.New("no root certificate in the operator bundle: make a new one with `aias init`")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err == nil && c.CheckSignatureFrom(c) == nil {
			sum := sha256.Sum256(c.Raw)
			return "sha256:" + hex.EncodeToString(sum[:]), nil
		}
	}
}

func (a *App) tokenListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List join tokens, without their secrets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				tokens, err := c.Tokens(ctx)
				if err != nil {
					return err
				}
				return a.show(protocol.TokenList{Tokens: tokens}, func(w io.Writer) { a.Style.Tokens(w, tokens, a.Now()) })
			})
		},
	}
}

func (a *App) tokenRevokeCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Make a join token useless; workers that enrolled with it stay",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				if err := c.RevokeToken(ctx, args[0]); err != nil {
					return err
				}
				return a.show(map[string]string{"revoked": args[0]}, func(w io.Writer) {
					fmt.Fprintf(w, "token %s is revoked\n", render.Clean(args[0]))
				})
			})
		},
	}
}
