package device

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/tpm"
)

// TestForgedQuoteByRealKey has a TPM's own restricted attestation key sign made-up quotes with TPM2_Hash and TPM2_Sign, as root on a worker can. The
// TPM signs one without its magic, with a valid signature, and it is the parser that refuses it; with the magic the TPM itself refuses.
func TestForgedQuoteByRealKey(t *testing.T) {
	dev := open(t)
	ak := mustAK(t, dev, "ecc")
	quotes, err := dev.Quote(ak, []byte("nonce"), []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0, 10)}})
	if err != nil {
		t.Fatal(err)
	}
	message := quotes[0].Message
	sign := func() ([]byte, error) {
		var out []byte
		err := dev.do("forge", func() error {
			hash, err := tpm2.Hash{Data: tpm2.TPM2BMaxBuffer{Buffer: message}, HashAlg: tpm2.TPMAlgSHA256, Hierarchy: tpm2.TPMRHEndorsement}.Execute(dev.link)
			if err != nil {
				return err
			}
			return dev.with(ak, func(handle tpm2.NamedHandle) error {
				rsp, err := tpm2.Sign{
					KeyHandle: tpm2.AuthHandle{Handle: handle.Handle, Name: handle.Name, Auth: tpm2.PasswordAuth(nil)},
					Digest:    hash.OutHash, InScheme: ak.scheme(), Validation: hash.Validation,
				}.Execute(dev.link)
				if err == nil {
					out = tpm2.Marshal(rsp.Signature)
				}
				return err
			})
		})
		return out, err
	}
	if sig, err := sign(); err == nil {
		t.Errorf("TPM2_Sign over data with the magic: got signature %x, want the TPM to refuse", sig)
	}
	binary.BigEndian.PutUint32(message, 0)
	sig, err := sign()
	if err != nil {
		t.Fatalf("TPM2_Sign over data without the magic: %v", err)
	}
	checkSigned(t, ak, message, sig) // the signature is good: nothing else than the magic tells
	if _, err := tpm.ParseQuote(message); !errors.Is(err, tpm.ErrMagic) {
		t.Errorf("ParseQuote(forged): got %v, want %v", err, tpm.ErrMagic)
	}
}
