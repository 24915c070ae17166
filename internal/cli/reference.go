package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/reference"
)

func (a *App) referenceCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "reference", Aliases: []string{"references"}, Short: "Reference Values: what a genuine worker may show"}
	cmd.AddCommand(a.importCmd(), a.captureCmd(), a.unpackCmd(), a.referenceListCmd())
	return cmd
}

// defaultReferences is the folder that is used when --references is not given.
const defaultReferences = "references"

func referencesFlag(cmd *cobra.Command, to *string) {
	cmd.PersistentFlags().StringVar(to, "references", defaultReferences, "reference `FOLDER` to write to")
}

func (a *App) captureCmd() *cobra.Command {
	var folder, name, note string
	var what []string
	cmd := &cobra.Command{
		Use:   "capture EVIDENCE|NODE",
		Short: "Take firmware and Secure Boot keys of a worker that you declare good",
		Long: `Take firmware and Secure Boot keys of a worker that you declare good as reference values for all workers.
Only what the quotes of its TPM prove is taken. The argument is an Evidence document, or the name of a node: then the last Evidence
that AIAS judged is asked for.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, file, err := a.evidenceOf(cmd, args[0])
			if err != nil {
				return unreadable(err)
			}
			src, err := a.capture(data, name, what)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(data)
			src.File, src.SHA256, src.Note = file, hex.EncodeToString(sum[:]), note
			return a.keep(folder, []reference.Source{src})
		},
	}
	referencesFlag(cmd, &folder)
	cmd.Flags().StringSliceVar(&what, "what", []string{"firmware", "keys"}, "what to take: firmware, keys")
	cmd.Flags().StringVar(&name, "name", "", "`NAME` of the source (default: the node)")
	cmd.Flags().StringVar(&note, "note", "", "who declares it good, and why")
	return cmd
}

// evidenceOf reads a file, or asks AIAS for the last Evidence of a node.
func (a *App) evidenceOf(cmd *cobra.Command, arg string) (data []byte, file string, err error) {
	if info, err := os.Stat(arg); err == nil && !info.IsDir() || strings.ContainsRune(arg, filepath.Separator) || arg == "-" {
		data, err := a.readFile(arg, evidence.MaxDocument)
		return data, filepath.Base(arg), err
	}
	if a.operatorFile == "" && os.Getenv(operator.EnvBundle) == "" {
		return nil, "", fmt.Errorf("%q is no file; to take it as the name of a node, give --operator FILE or set $%s", arg, operator.EnvBundle)
	}
	err = a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
		data, err = c.Evidence(ctx, arg, operator.Last)
		return err
	})
	return data, "node " + arg, err
}

func (a *App) capture(data []byte, name string, what []string) (reference.Source, error) {
	doc, err := evidence.Decode(data)
	if err != nil {
		return reference.Source{}, unreadable(err)
	}
	if name == "" && doc.Node != "" {
		name = "node " + doc.Node
	}
	if name == "" {
		return reference.Source{}, unreadable(errors.New("the Evidence names no node: give --name"))
	}
	v, err := a.verifier("", "")
	if err != nil {
		return reference.Source{}, err
	}
	return v.Capture(doc, name, a.Now(), what...)
}

// kept is what the JSON output says of a source that was written.
type kept struct {
	protocol.Reference
	File    string `json:"file"`
	Written string `json:"written"` // path
	Images  int    `json:"images"`
	Files   int    `json:"files"`
	Modules int    `json:"modules"`
}

// keep writes sources into the folder and says what they hold.
func (a *App) keep(folder string, sources []reference.Source) error {
	if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // references are no secret
		return unreadable(fmt.Errorf("make the reference folder: %w", err))
	}
	out := make([]kept, len(sources))
	for i, s := range sources {
		path, err := reference.WriteSource(folder, s)
		if err != nil {
			return unreadable(err)
		}
		out[i] = kept{
			Reference: protocol.Reference{Kind: s.Kind, Name: s.Name, Version: s.Version, SHA256: s.SHA256, Imported: s.Imported, Note: s.Note},
			File:      s.File, Written: path, Images: len(s.Images), Files: len(s.Files), Modules: len(s.Modules),
		}
	}
	return a.show(out, func(w io.Writer) {
		for i := range out {
			k, s := &out[i], &sources[i]
			fmt.Fprintf(w, "%s %s %s\n", a.Style.Bold(render.Clean(k.Name)), render.Clean(k.Version), a.Style.Dim(contents(s)))
			fmt.Fprintf(w, "  %s   %s\n", a.Style.Dim("written"), k.Written) // whole, to be copied
		}
		fmt.Fprintln(w, a.Style.Dim("AIAS judges by what is in its own reference folder, after `touchstone reload`"))
	})
}

func (a *App) unpackCmd() *cobra.Command {
	var folder string
	cmd := &cobra.Command{
		Use:     "unpack",
		Short:   "Add the sources of another reference folder, which comes as a tar archive on standard input",
		Example: `  tar -C references -c . | kubectl --namespace touchstone exec -i aias-0 -- touchstone reference unpack`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			sources, err := reference.Unpack(a.In)
			if err != nil {
				return unreadable(err)
			}
			return a.keep(folder, sources)
		},
	}
	referencesFlag(cmd, &folder)
	return cmd
}

// contents says in a line what a source holds.
func contents(s *reference.Source) string {
	var parts []string
	for _, c := range []struct {
		n    int
		what string
	}{
		{len(s.Images), "boot image"}, {len(s.Files), "file"}, {len(s.Modules), "kernel module"}, {len(s.ModuleKeys), "module key"},
		{len(s.VendorKeys), "shim key"}, {len(s.Revoked), "revocation"}, {len(s.CAs), "CA certificate"},
	} {
		if c.n > 0 {
			parts = append(parts, render.Count(c.n, c.what))
		}
	}
	if len(s.Firmware) > 0 {
		parts = append(parts, "firmware")
	}
	if s.Keys != nil {
		parts = append(parts, "Secure Boot keys")
	}
	if s.SBAT != "" {
		parts = append(parts, "an SBAT level")
	}
	return strings.Join(parts, ", ")
}

func (a *App) referenceListCmd() *cobra.Command {
	var folder string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the references of a folder, or those that AIAS judges by",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if folder == "" {
				return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
					l, err := c.References(ctx)
					if err != nil {
						return err
					}
					return a.show(l, func(w io.Writer) { a.Style.References(w, l.References) })
				})
			}
			set, err := reference.Load(folder)
			if err != nil {
				return unreadable(err)
			}
			return a.show(set.Sources(), func(w io.Writer) { a.Style.References(w, shortReferences(set.Sources())) })
		},
	}
	cmd.Flags().StringVar(&folder, "references", "", "reference `FOLDER` (default: ask AIAS)")
	return cmd
}

func shortReferences(in []reference.Summary) []protocol.Reference {
	out := make([]protocol.Reference, len(in))
	for i, s := range in {
		out[i] = protocol.Reference{Kind: s.Kind, Name: s.Name, Version: s.Version, SHA256: s.SHA256, Imported: s.Imported, Note: s.Note}
	}
	return out
}
