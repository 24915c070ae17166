package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/tpm/device"
)

// collection says what `evidence collect` reads.
type collection struct {
	address, root, nonce, node, out string
	banks                           []string
	pcrs                            []int
}

// quotedByDefault are the PCRs that anything is measured into on a PC: 0 to 14.
var quotedByDefault = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}

func (a *App) collectCmd() *cobra.Command {
	var c collection
	cmd := &cobra.Command{
		Use:   "collect",
		Short: "Make an Evidence document of this machine, with its TPM",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := c.collect(cmd.Context(), a)
			if err != nil {
				return unreadable(err)
			}
			return a.writeEvidence(doc, c.out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.address, "tpm", "/dev/tpmrm0", "TPM `DEVICE`, or unix:PATH for a software TPM")
	f.StringVar(&c.root, "host-root", "/", "`FOLDER` under which sys and proc are read")
	f.StringVar(&c.nonce, "nonce", "", "qualifying data, `HEX` (default: random)")
	f.StringVar(&c.node, "node", "", "`NAME` of the worker (default: the host name)")
	f.StringSliceVar(&c.banks, "bank", nil, "PCR banks to quote (default: all active ones but sha1)")
	f.IntSliceVar(&c.pcrs, "pcr", quotedByDefault, "PCRs to quote")
	f.StringVarP(&c.out, "out", "o", "-", "where to write the document, `FILE` or - for standard output")
	return cmd
}

// collect quotes first and reads the logs after, so that the IMA list reaches at least as far as the quote.
func (c *collection) collect(ctx context.Context, a *App) (*evidence.Document, error) {
	doc := &evidence.Document{Version: evidence.Version, Node: c.node}
	var err error
	if doc.Nonce, err = c.qualifying(); err != nil {
		return nil, err
	}
	if doc.Node == "" {
		if doc.Node, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("read the host name: %w: give --node", err)
		}
	}
	if err := c.ask(ctx, doc); err != nil {
		return nil, err
	}
	logs, err := evidence.ReadHost(c.root)
	if err != nil {
		return nil, err
	}
	doc.EventLog, doc.IMA, doc.Facts = logs.EventLog, logs.IMA, logs.Facts
	if a.Progress {
		for _, m := range logs.Absent {
			fmt.Fprintf(a.Err, "absent: %s (%s): %s\n", m.Name, m.Path, m.Reason)
		}
	}
	return doc, nil
}

func (c *collection) qualifying() ([]byte, error) {
	if c.nonce == "" {
		nonce := make([]byte, 32)
		_, err := rand.Read(nonce)
		return nonce, err
	}
	nonce, err := hex.DecodeString(strings.TrimPrefix(c.nonce, "0x"))
	if err != nil || len(nonce) == 0 || len(nonce) > 64 {
		return nil, errors.New("--nonce: want 1 to 64 bytes as hexadecimal digits")
	}
	return nonce, nil
}

// ask takes from the TPM what it says: key, certificates, quotes.
func (c *collection) ask(ctx context.Context, doc *evidence.Document) error {
	t, err := device.Open(c.address)
	if err != nil {
		return err
	}
	defer t.Close() //nolint:errcheck // read only
	ek, err := t.EndorsementKey(ctx)
	if err != nil {
		return err
	}
	ak, err := t.AttestationKey("ecc")
	if err != nil {
		return err
	}
	selections, err := c.selections(t)
	if err != nil {
		return err
	}
	doc.EKCerts, doc.AK = ek.Certs, ak.Public()
	doc.Quotes, err = t.Quote(ak, doc.Nonce, selections)
	return err
}

func (c *collection) selections(t *device.TPM) ([]tpm.Selection, error) {
	var banks []tpm.Alg
	for _, name := range c.banks {
		alg, err := tpm.ParseHashAlg(name)
		if err != nil {
			return nil, err
		}
		banks = append(banks, alg)
	}
	if len(banks) == 0 {
		active, err := t.Banks()
		if err != nil {
			return nil, err
		}
		for _, alg := range active {
			if alg != tpm.AlgSHA1 || len(active) == 1 {
				banks = append(banks, alg)
			}
		}
	}
	var out []tpm.Selection
	for _, alg := range banks[:min(len(banks), evidence.MaxQuotes)] {
		out = append(out, tpm.Selection{Alg: alg, PCRs: tpm.PCRs(c.pcrs...)})
	}
	if len(out) == 0 {
		return nil, errors.New("the TPM has no active PCR bank: enable one in the firmware setup")
	}
	return out, nil
}
