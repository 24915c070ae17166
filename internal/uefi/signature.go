package uefi

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"touchstone.dev/touchstone/internal/tpm"
)

// checkSignature verifies a raw signature over message. SHA-1 is accepted, as firmware does: old images carry it.
func checkSignature(cert *x509.Certificate, alg tpm.Alg, message, signature []byte) error {
	h := alg.Hash()
	w := h.New()
	w.Write(message)
	digest := w.Sum(nil)
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if err := rsa.VerifyPKCS1v15(key, h, digest, signature); err != nil {
			return fmt.Errorf("%w: %w", ErrBadSignature, err)
		}
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(key, digest, signature) {
			return ErrBadSignature
		}
	default:
		return fmt.Errorf("%w: key of type %T", ErrBadSignature, key)
	}
	return nil
}
