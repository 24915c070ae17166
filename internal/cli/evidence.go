package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/evidence"
)

func (a *App) evidenceCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "evidence", Short: "Evidence documents: make one, look into one"}
	cmd.AddCommand(a.packCmd(), a.collectCmd(), a.showCmd(), a.downloadCmd())
	return cmd
}

func (a *App) packCmd() *cobra.Command {
	var o evidence.PackOptions
	var out string
	cmd := &cobra.Command{
		Use:   "pack",
		Short: "Make an Evidence document of files that tpm2-tools and the kernel wrote",
		Example: `  tpm2_quote -c ak.ctx -l sha256:0,1,2,3,4,5,6,7,8,9,10,14 -q $NONCE -m quote.msg -s quote.sig -o quote.pcrs
  touchstone evidence pack --quote-msg quote.msg --quote-sig quote.sig --pcrs quote.pcrs --ak-pub ak.pub --nonce $NONCE \
    --eventlog /sys/kernel/security/tpm0/binary_bios_measurements \
    --ima /sys/kernel/security/ima/binary_runtime_measurements -o worker.evidence`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(o.QuoteMsg) == 0 || len(o.QuoteSig) == 0 {
				return usage(cmd, errors.New("a quote is needed: --quote-msg and --quote-sig"))
			}
			doc, err := evidence.Pack(o)
			if err != nil {
				return unreadable(err)
			}
			return a.writeEvidence(doc, out)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.QuoteMsg, "quote-msg", nil, "what the TPM signed (TPMS_ATTEST) `FILE`; give it once for each quote")
	f.StringArrayVar(&o.QuoteSig, "quote-sig", nil, "signature `FILE`, in the same order")
	f.StringArrayVar(&o.PCRs, "pcrs", nil, "PCR values `FILE`: of tpm2_quote or tpm2_pcrread, binary, YAML or JSON")
	f.StringVar(&o.AKPub, "ak-pub", "", "attestation key `FILE`: TPM2B_PUBLIC, TPMT_PUBLIC or PEM")
	f.StringVar(&o.Nonce, "nonce", "", "qualifying data of the quote, `HEX`")
	f.StringVar(&o.EventLog, "eventlog", "", "firmware log `FILE` (binary_bios_measurements)")
	f.StringVar(&o.IMA, "ima", "", "IMA list `FILE` (binary_runtime_measurements)")
	f.StringArrayVar(&o.EKCert, "ek-cert", nil, "EK certificate `FILE`, then intermediates; DER or PEM")
	f.StringVar(&o.Facts, "facts", "", "`FOLDER` of what the kernel says of itself, or a JSON object of strings")
	f.StringVar(&o.Node, "node", "", "`NAME` of the worker")
	f.StringVarP(&out, "out", "o", "-", "where to write the document, `FILE` or - for standard output")
	return cmd
}

// writeEvidence writes a document to a file, or to standard output unless that is a terminal.
func (a *App) writeEvidence(doc *evidence.Document, out string) error {
	data, err := doc.Encode()
	if err != nil {
		return unreadable(err)
	}
	return a.writeDocument(data, out)
}

func (a *App) writeDocument(data []byte, out string) error {
	if out != "-" {
		if err := os.WriteFile(out, data, 0o600); err != nil {
			return unreadable(fmt.Errorf("write the Evidence: %w", err))
		}
		return nil
	}
	if a.Style.Color {
		return unreadable(errors.New("the document is binary: give a file with -o, or a pipe"))
	}
	_, err := a.Out.Write(data)
	return err
}

func (a *App) showCmd() *cobra.Command {
	var events, list bool
	cmd := &cobra.Command{
		Use:   "show EVIDENCE",
		Short: "Show what an Evidence document says; nothing in it is verified by this",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			doc, err := a.readEvidence(args[0])
			if err != nil {
				return unreadable(err)
			}
			v := doc.View()
			return a.show(v, func(w io.Writer) { a.Style.Evidence(w, filepath.Base(args[0]), &v, events, list) })
		},
	}
	cmd.Flags().BoolVar(&events, "events", false, "list the events of the firmware log")
	cmd.Flags().BoolVar(&list, "ima", false, "list the entries of the IMA list")
	return cmd
}
