package cli

import (
	"bytes"
	"compress/gzip"
	"context"
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

func (a *App) complianceReportCmd() *cobra.Command {
	var arf, html string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "report NODE",
		Short: "Write the whole results (ARF) or the report (HTML) of a worker's scan, which AIAS keeps when the scan was asked for with --documents",
		Long: `Write the whole results (ARF) or the report for people (HTML) of the newest scan of a worker that was asked for with --documents. With --wait such a scan is
asked for first. The documents are as the worker's oscap wrote them; what counts is what AIAS read itself (touchstone compliance show). For images: touchstone
image scan --arf FILE --html FILE.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if arf == "" && html == "" || wait < 0 {
				return usage(cmd, errors.New("give --arf FILE, --html FILE, or both, and no negative --wait"))
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				if wait > 0 {
					if _, err := c.AskScan(ctx, args[0], true); err != nil {
						return err
					}
					n, err := a.scanned(ctx, c, args[0], wait)
					if err != nil {
						return err
					}
					if n.Error != "" {
						return fmt.Errorf("the scan came to no result: %s", render.Clean(n.Error))
					}
				}
				for _, d := range []struct{ kind, file string }{{protocol.DocumentARF, arf}, {protocol.DocumentHTML, html}} {
					if d.file == "" {
						continue
					}
					b, err := c.ScanDocument(ctx, args[0], d.kind)
					if err == nil {
						err = unpackTo(d.file, b)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&arf, "arf", "", "write the whole results to `FILE`")
	cmd.Flags().StringVar(&html, "html", "", "write the report to `FILE`")
	cmd.Flags().DurationVar(&wait, "wait", 0, "ask for a scan first, and wait so long for it")
	return cmd
}

// unpackTo writes what a node compressed to a file, as long as it may be.
func unpackTo(file string, b []byte) (err error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("the document that the worker sent cannot be opened: %w", err)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.Copy(f, io.LimitReader(z, protocol.MaxScanDocumentOpen+1))
	if err == nil && n > protocol.MaxScanDocumentOpen {
		err = fmt.Errorf("more than %d bytes", protocol.MaxScanDocumentOpen)
	}
	if err != nil {
		return fmt.Errorf("the document that the worker sent cannot be opened: %w", err)
	}
	return nil
}
