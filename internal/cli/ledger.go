package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/ledger"
)

// ledgerOptions say which ledger is read: that of AIAS, or a copy of its folder.
type ledgerOptions struct{ dir, key string }

func (o *ledgerOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.dir, "dir", "", "read a copy of the ledger's folder in `DIR`, without AIAS")
	cmd.Flags().StringVar(&o.key, "key", "", "verify by this public `KEY`, or the file that holds it (ledger.pub of AIAS); without it AIAS is asked")
}

func (a *App) ledgerCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "ledger", Short: "The ledger: verdicts, acts of operators, every key released or refused; nobody changes it unseen"}
	cmd.AddCommand(a.ledgerShowCmd(), a.ledgerVerifyCmd(), a.ledgerProveCmd())
	return cmd
}

// readLedger runs fn with a reader of the ledger and its newest checkpoint.
func (a *App) readLedger(cmd *cobra.Command, o *ledgerOptions, fn func(ctx context.Context, r *ledger.Reader, cp *ledger.Checkpoint) error) error {
	ctx := cmd.Context()
	key, err := readKey(o.key)
	if err != nil {
		return unreadable(err)
	}
	var source ledger.Source
	if o.dir != "" {
		if key == "" {
			return usage(cmd, errors.New("a copy is verified by a key that did not come with it: --key"))
		}
		source = ledger.Folder(o.dir)
	} else {
		c, err := a.online()
		if err != nil {
			return err
		}
		defer c.Close()
		l := c.Ledger()
		if key == "" {
			if key, err = l.Key(ctx); err != nil {
				return err
			}
		}
		source = l
	}
	r, err := ledger.NewReader(source, key)
	if err != nil {
		return unreadable(err)
	}
	cp, err := r.Checkpoint(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return unreadable(err)
	}
	if err != nil {
		return err
	}
	return fn(ctx, r, cp)
}

// readKey returns a key that was given, or that is in the file that was given.
func readKey(key string) (string, error) {
	if _, err := ledger.NewReader(nil, key); key == "" || err == nil {
		return key, nil
	}
	b, err := os.ReadFile(key)
	return strings.TrimSpace(string(b)), err
}

func (a *App) ledgerShowCmd() *cobra.Command {
	var o ledgerOptions
	var node, kind string
	var last int
	cmd := &cobra.Command{
		Use: "show", Short: "Show the newest entries; verify and prove tell whether they are genuine", Args: cobra.NoArgs,
		Example: "  touchstone ledger show --kind key-released --node worker-1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if last < 1 {
				return usage(cmd, errors.New("--last must be 1 at least"))
			}
			return a.readLedger(cmd, &o, func(ctx context.Context, r *ledger.Reader, cp *ledger.Checkpoint) error {
				found, err := newestEntries(ctx, r, cp, last, func(e *ledger.Entry) bool {
					return (node == "" || e.Node == node) && (kind == "" || string(e.Kind) == kind)
				})
				if err != nil {
					return err
				}
				return a.show(found, func(w io.Writer) { a.Style.Ledger(w, found) })
			})
		},
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&node, "node", "", "only those of this worker, by `NAME`")
	f.StringVar(&kind, "kind", "", "only those of this `KIND`: verdict, act, enrolment, tag, audit-head, key-created, key-released, key-refused, key-rotated, key-revoked, service")
	f.IntVar(&last, "last", 20, "how many")
	return cmd
}

// newestEntries returns at most so many entries, newest first. It reads the ledger backwards, page by page.
func newestEntries(ctx context.Context, r *ledger.Reader, cp *ledger.Checkpoint, most int, want func(*ledger.Entry) bool) ([]ledger.Numbered, error) {
	const page = 256
	out := []ledger.Numbered{}
	for end := cp.Size; end > 0 && len(out) < most; {
		start := (end - 1) / page * page
		var found []ledger.Numbered
		for e, err := range r.Entries(ctx, cp, start) {
			if err != nil {
				return nil, err
			}
			if e.Index >= end {
				break
			}
			if want(&e.Entry) {
				found = append(found, e)
			}
		}
		for i := len(found) - 1; i >= 0 && len(out) < most; i-- {
			out = append(out, found[i])
		}
		end = start
	}
	return out, nil
}

// verified is what `touchstone ledger verify` found.
type verified struct {
	Entries   uint64 `json:"entries"`
	Root      string `json:"root"`
	Continues uint64 `json:"continues,omitempty"` // entries of the checkpoint from before
}

func (a *App) ledgerVerifyCmd() *cobra.Command {
	var o ledgerOptions
	var file, proof string
	cmd := &cobra.Command{
		Use: "verify", Short: "Verify every entry against the signed checkpoint, and that the ledger continues what it was", Args: cobra.NoArgs,
		Long: "Verify every entry against the signed checkpoint. With --checkpoint, verify also that the ledger continues the checkpoint in that file, and keep the\n" +
			"newest one there: who runs it from time to time, on another machine, finds out when AIAS, or who took it over, writes another history.\n\n" +
			"With --proof, verify the proof of one entry, which needs nothing but the key.",
		Example: "  touchstone ledger verify --checkpoint ~/aias.checkpoint\n  touchstone ledger verify --dir copy/ledger --key ledger.pub",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if proof != "" {
				return a.checkProof(cmd, o.key, proof)
			}
			return a.readLedger(cmd, &o, func(ctx context.Context, r *ledger.Reader, cp *ledger.Checkpoint) error {
				out := verified{Entries: cp.Size, Root: fmt.Sprintf("%x", cp.Root)}
				if err := continues(ctx, r, cp, file, &out); err != nil {
					return err
				}
				if err := r.Verify(ctx, cp, a.hashed(cp.Size)); err != nil {
					return err
				}
				if file != "" {
					if err := os.WriteFile(file, []byte(cp.Text), 0o600); err != nil {
						return fmt.Errorf("keep the checkpoint: %w", err)
					}
				}
				return a.show(out, func(w io.Writer) {
					fmt.Fprintf(w, "entries: %d, each as the signed checkpoint commits to\n", out.Entries)
					if out.Continues > 0 {
						fmt.Fprintf(w, "they continue the %d entries of the checkpoint in %s\n", out.Continues, file)
					}
				})
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&file, "checkpoint", "", "`FILE` with a checkpoint from before; the newest is kept there")
	cmd.Flags().StringVar(&proof, "proof", "", "verify only the proof in `FILE` (touchstone ledger prove)")
	return cmd
}

// continues checks the ledger against the checkpoint in a file, when there is one.
func continues(ctx context.Context, r *ledger.Reader, cp *ledger.Checkpoint, file string, out *verified) error {
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the first time
	}
	if err != nil {
		return unreadable(err)
	}
	older, err := r.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	out.Continues = older.Size
	return r.Continues(ctx, older, cp)
}

// hashed shows progress on a terminal.
func (a *App) hashed(of uint64) func(uint64) {
	if of < 10000 || a.asJSON() {
		return nil
	}
	return func(n uint64) {
		if n%10000 == 0 || n == of {
			fmt.Fprintf(a.Err, "\r%d of %d entries", n, of)
		}
		if n == of {
			fmt.Fprintln(a.Err)
		}
	}
}

func (a *App) checkProof(cmd *cobra.Command, keyFlag, file string) error {
	key, err := readKey(keyFlag)
	if err == nil && key == "" {
		return usage(cmd, errors.New("a proof is verified by a key that did not come with it: --key"))
	}
	if err != nil {
		return unreadable(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return unreadable(err)
	}
	p, err := ledger.ParseProof(data)
	if err != nil {
		return unreadable(err)
	}
	r, err := ledger.NewReader(nil, key)
	if err != nil {
		return unreadable(err)
	}
	e, err := r.CheckProof(p)
	if err != nil {
		return err
	}
	found := []ledger.Numbered{{Index: p.Index, Entry: e}}
	return a.show(found, func(w io.Writer) {
		a.Style.Ledger(w, found)
		fmt.Fprintln(w, "this entry is in the ledger")
	})
}

func (a *App) ledgerProveCmd() *cobra.Command {
	var o ledgerOptions
	cmd := &cobra.Command{
		Use: "prove NUMBER", Short: "Print the proof that an entry is in the ledger; anybody with the public key can verify it", Args: cobra.ExactArgs(1),
		Example: "  touchstone ledger prove 4711 >release.proof\n  touchstone ledger verify --proof release.proof --key ledger.pub",
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.ParseUint(args[0], 10, 63)
			if err != nil {
				return usage(cmd, fmt.Errorf("%q is no number of an entry", args[0]))
			}
			return a.readLedger(cmd, &o, func(ctx context.Context, r *ledger.Reader, cp *ledger.Checkpoint) error {
				p, err := r.Prove(ctx, cp, n)
				if err != nil {
					return err
				}
				return a.printJSON(p)
			})
		},
	}
	o.flags(cmd)
	return cmd
}
