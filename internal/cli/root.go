// Package cli is the command line of Touchstone: what `touchstone` and `kubectl trust` do.
//
// Commands fetch and decide; package render draws. Every command that prints data takes -o json. Errors are one line that
// says what to do. Exit codes are part of the contract: 0 is success (or trusted), 1 a failure (or not trusted), 2 bad usage or
// Evidence that cannot be read.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/version"
)

// Exit codes.
const (
	ExitOK         = 0
	ExitNotTrusted = 1 // the verdict is "not trusted", or a command failed
	ExitUnreadable = 2 // Evidence cannot be read, or the command was used wrongly
)

// App is one run of the command line.
type App struct {
	Out, Err io.Writer
	In       io.Reader
	Style    render.Style
	Progress bool // Err is a terminal: draw progress there
	Now      func() time.Time

	operatorFile string
	output       string
}

// exitError carries an exit code. Its err may be nil: then nothing is printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// unreadable marks err as one that ends with ExitUnreadable.
func unreadable(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: ExitUnreadable, err: err}
}

// Main runs the command line of a process and returns its exit code.
func Main(ctx context.Context, args []string) int {
	app := &App{
		Out: os.Stdout, Err: os.Stderr, In: os.Stdin, Now: time.Now,
		Style:    render.StyleFor(os.Stdout, os.Getenv),
		Progress: render.StyleFor(os.Stderr, os.Getenv).Color,
	}
	return app.Run(ctx, args)
}

// Run runs one command line; args[0] is the name of the program.
func (a *App) Run(ctx context.Context, args []string) int {
	root := a.root(programName(args[0])) //nolint:contextcheck // commands get the context from cobra
	root.SetArgs(args[1:])
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetIn(a.In)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{code: ExitNotTrusted, err: err}
	}
	if exit.err != nil {
		fmt.Fprintf(a.Err, "%s: %s\n", programName(args[0]), render.Clean(oneLine(exit.err.Error())))
	}
	return exit.code
}

// programName is "touchstone", or "kubectl trust" for the plugin kubectl-trust.
func programName(arg0 string) string {
	if strings.HasPrefix(filepath.Base(arg0), "kubectl-trust") {
		return "kubectl trust"
	}
	return "touchstone"
}

// oneLine joins the lines of a joined error.
func oneLine(text string) string {
	return strings.Join(strings.Split(strings.TrimSpace(text), "\n"), "; ")
}

func (a *App) root(name string) *cobra.Command {
	root := &cobra.Command{
		Use:   name,
		Short: "Tell trustworthy workers from compromised ones, and show why",
		Long: `Touchstone tells trustworthy workers from compromised ones, and shows why, on five levels:
1 firmware, 2 secure-boot, 3 boot-loader, 4 kernel, 5 runtime.

Commands that ask AIAS need an operator bundle: --operator FILE or $` + operator.EnvBundle + `.`,
		Version:           version.String(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return usage(cmd, a.checkOutput(cmd)) },
		// Without this cobra answers an unknown command with the help and exit code 0.
		Args: func(cmd *cobra.Command, args []string) error { return unknownCommand(cmd, args) },
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	if strings.Contains(name, " ") {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: name}
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })
	root.PersistentFlags().StringVar(&a.operatorFile, "operator", "", "operator bundle `FILE` (default $"+operator.EnvBundle+")")
	root.AddCommand(
		a.demoCmd(), a.nodesCmd(), a.nodeCmd(), a.whyCmd(), a.historyCmd(), a.appraiseCmd(), a.evidenceCmd(), a.referenceCmd(), a.policyCmd(),
		a.tokenCmd(), a.tagCmd(), a.complianceCmd(), a.auditCmd(), a.ledgerCmd(), a.keysCmd(), a.diskCmd(), a.ekCmd(), a.reloadCmd(), a.benchCmd(), a.netpolCmd(), a.explainCmd(), a.imageCmd(), a.classCmd(),
	)
	a.finish(root)
	return root
}

// finish gives every command what all have: complaints about arguments that end with ExitUnreadable and say where help is, and
// -o, unless the command uses that letter for a file.
func (a *App) finish(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		check := c.Args
		switch {
		case check == nil && c.HasSubCommands():
			c.Args = func(cmd *cobra.Command, args []string) error { return unknownCommand(cmd, args) }
			c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		case check != nil:
			c.Args = func(cmd *cobra.Command, args []string) error { return usage(cmd, check(cmd, args)) }
		}
		if f := c.Flags(); c.Runnable() && f.ShorthandLookup("o") == nil {
			formats := "text or json"
			if extra := c.Annotations[moreFormats]; extra != "" {
				formats = "text, json or " + extra
			}
			f.StringVarP(&a.output, "output", "o", "text", "output `FORMAT`: "+formats)
		}
		a.finish(c)
	}
}

// moreFormats is the annotation of a command that knows formats besides text and json.
const moreFormats = "formats"

func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usage(cmd, fmt.Errorf("unknown command %q", args[0]))
}

// usage marks err as wrong usage of cmd.
func usage(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return unreadable(fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath()))
}

// checkOutput refuses a format that the command does not know; "table" is another word for text.
func (a *App) checkOutput(cmd *cobra.Command) error {
	switch a.output {
	case "", "text", "table", "json", cmd.Annotations[moreFormats]:
		return nil
	}
	return fmt.Errorf("output format %q is not known", a.output)
}

// asJSON tells whether the person wants JSON.
func (a *App) asJSON() bool { return a.output == "json" }

// printJSON writes v, indented.
func (a *App) printJSON(v any) error {
	e := json.NewEncoder(a.Out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// show writes v as JSON when that is wanted, else it draws.
func (a *App) show(v any, draw func(w io.Writer)) error {
	if a.asJSON() {
		return a.printJSON(v)
	}
	draw(a.Out)
	return nil
}

// online opens the operator API.
func (a *App) online() (*operator.Client, error) { return operator.Open(a.operatorFile) }

// requestTimeout bounds one question to AIAS.
const requestTimeout = 60 * time.Second

// ask opens the operator API and runs fn with a bounded context.
func (a *App) ask(cmd *cobra.Command, fn func(ctx context.Context, c *operator.Client) error) error {
	c, err := a.online()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), requestTimeout)
	defer cancel()
	err = fn(ctx, c)
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return fmt.Errorf("%s cannot be reached (%w): does `aias serve` run, and is that its address? It comes from the operator bundle; "+
			"`aias operator add` makes one with another address", c.Server(), dial)
	}
	return err
}
