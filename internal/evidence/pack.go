package evidence

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"touchstone.dev/touchstone/internal/tpm"
)

// PackOptions names the files that Pack makes a document of. Several quotes are given in the same order in QuoteMsg, QuoteSig and
// PCRs; one PCR file may serve all quotes.
type PackOptions struct {
	QuoteMsg []string // TPMS_ATTEST (tpm2_quote --message), or TPM2B_ATTEST
	QuoteSig []string // TPMT_SIGNATURE (tpm2_quote --signature), or plain: DER of an ECDSA signature, raw RSA bytes
	PCRs     []string // tpm2_quote --pcr, tpm2_pcrread --output, what tpm2_pcrread prints, or JSON
	AKPub    string   // TPM2B_PUBLIC, TPMT_PUBLIC or PEM; empty: the Verifier knows the key
	Nonce    string   // hexadecimal; empty: what the first quote carries
	EventLog string   // binary_bios_measurements
	IMA      string   // binary_runtime_measurements, whole
	EKCert   []string // EK certificate first, then intermediates; DER or PEM (one or more in a file)
	Facts    string   // folder of files named as facts, or a JSON object of strings
	Node     string   // node name that the document claims
}

// Pack makes a document of what tpm2-tools and the kernel write. It checks that each file is what it is said to be; it does not
// judge. Errors name the file.
func Pack(o PackOptions) (*Document, error) {
	d := &Document{Version: Version, Node: o.Node}
	steps := []func() error{
		func() error { return d.packAK(o.AKPub) },
		func() error { return d.packQuotes(o) },
		func() error { return d.packNonce(o.Nonce) },
		func() (err error) { d.EventLog, err = readFile(o.EventLog, MaxEventLog); return err },
		func() (err error) { d.IMA, err = readFile(o.IMA, MaxIMA); return err },
		func() error { return d.packCerts(o.EKCert) },
		func() (err error) { d.Facts, err = readFacts(o.Facts); return err },
		d.check,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// readFile reads a whole file of at most limit bytes; an empty name gives nothing.
func readFile(name string, limit int) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("read %s: %w: more than %d bytes", name, ErrLimit, limit)
	}
	return b, nil
}

func (d *Document) packAK(name string) error {
	b, err := readFile(name, MaxStructure)
	if err != nil || name == "" {
		return err
	}
	if _, err := x509.ParsePKIXPublicKey(b); err == nil { // DER, as tpm2_readpublic -f der writes it
		b = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b})
	}
	if _, err := tpm.ParsePublic(b); err != nil {
		return fmt.Errorf("attestation key %s: want TPM2B_PUBLIC, TPMT_PUBLIC or a PEM public key: %w", name, err)
	}
	d.AK = b
	return nil
}

func (d *Document) packQuotes(o PackOptions) error {
	if len(o.QuoteMsg) == 0 {
		return errors.New("no quote given: name the message that tpm2_quote wrote, and its signature")
	}
	if len(o.QuoteSig) != len(o.QuoteMsg) {
		return fmt.Errorf("%d quote messages and %d signatures: each quote needs both", len(o.QuoteMsg), len(o.QuoteSig))
	}
	if n := len(o.PCRs); n != len(o.QuoteMsg) && n != 1 {
		return fmt.Errorf("%d quotes and %d files of PCR values: give one file, or one for each quote", len(o.QuoteMsg), n)
	}
	for i := range o.QuoteMsg {
		pcrs := o.PCRs[0]
		if len(o.PCRs) > 1 {
			pcrs = o.PCRs[i]
		}
		q, err := packQuote(o.QuoteMsg[i], o.QuoteSig[i], pcrs, d.AK)
		if err != nil {
			return err
		}
		d.Quotes = append(d.Quotes, *q)
	}
	return nil
}

func packQuote(message, signature, pcrs string, ak []byte) (*Quote, error) {
	var q Quote
	b, err := readFile(message, MaxStructure)
	if err != nil {
		return nil, err
	}
	q.Message = unsized(b)
	parsed, err := tpm.ParseQuote(q.Message)
	// A forged message, without the magic or of another type, is packed: to refuse it, with the reason, is the Verifier's part.
	if err != nil && !errors.Is(err, tpm.ErrMagic) && !errors.Is(err, tpm.ErrNotQuote) {
		return nil, fmt.Errorf("quote message %s: want TPMS_ATTEST as tpm2_quote --message writes it: %w", message, err)
	}
	if b, err = readFile(signature, MaxStructure); err != nil {
		return nil, err
	}
	if q.Signature, err = packSignature(b, ak, q.Message, parsed); err != nil {
		return nil, fmt.Errorf("quote signature %s: %w", signature, err)
	}
	if b, err = readFile(pcrs, maxPCRFile); err != nil {
		return nil, err
	}
	var selections []tpm.Selection
	if parsed != nil {
		selections = parsed.Selections
	}
	q.PCRs, err = ParsePCRs(b, selections)
	if errors.Is(err, errNoValues) && parsed != nil && selectsNone(selections) {
		err = nil // a quote over no PCR, as of a TPM without the bank that was asked for: it says nothing, which is for the Verifier to say
	}
	if err != nil {
		return nil, fmt.Errorf("PCR values %s: %w", pcrs, err)
	}
	return &q, nil
}

func selectsNone(selections []tpm.Selection) bool {
	for _, s := range selections {
		if s.PCRs != 0 {
			return false
		}
	}
	return true
}

// unsized takes the size off a TPM2B_ATTEST. A TPMS_ATTEST begins with 0xff, which no size of a quote does.
func unsized(b []byte) []byte {
	if len(b) > 2 && int(b[0])<<8|int(b[1]) == len(b)-2 {
		return b[2:]
	}
	return b
}

// packNonce takes the nonce of the challenge. Without one it is what the first quote carries: then nothing says that the quote is
// fresh, which is for the Verifier to know.
func (d *Document) packNonce(nonce string) error {
	if nonce == "" {
		if q, err := tpm.ParseQuote(d.Quotes[0].Message); err == nil {
			d.Nonce = bytes.Clone(q.ExtraData)
		}
		return nil
	}
	b, err := hex.DecodeString(strings.TrimSpace(strings.TrimPrefix(nonce, "0x")))
	if err != nil {
		return fmt.Errorf("nonce: want hexadecimal digits: %w", err)
	}
	d.Nonce = b
	return nil
}

func (d *Document) packCerts(names []string) error {
	for _, name := range names {
		b, err := readFile(name, MaxCerts*MaxCert)
		if err != nil {
			return err
		}
		if !bytes.Contains(b, []byte("-----BEGIN")) {
			d.EKCerts = append(d.EKCerts, b)
			continue
		}
		for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "CERTIFICATE" {
				d.EKCerts = append(d.EKCerts, block.Bytes)
			}
		}
	}
	return nil
}
