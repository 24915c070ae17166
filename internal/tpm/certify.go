package tpm

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
)

// ErrNotCertified says that nothing proves a key to live in the TPM of an attestation key.
var ErrNotCertified = errors.New("key is not proven to live in the TPM")

// VerifyCertified checks that ak certified key over nonce (TPM2_Certify): message is a TPMS_ATTEST and signature a TPMT_SIGNATURE.
// Then key is a signing key that was born in the TPM of ak and cannot leave it. ak must be an attestation key that is trusted
// already, by activation. An empty nonce is refused.
func VerifyCertified(ak, key *Public, nonce, message, signature []byte) error {
	return verifyCertified(ak, key, (*Public).CheckResidentKey, nonce, message, signature)
}

// VerifyDecryptionKey is VerifyCertified for a decryption key, which must have the policy: then it decrypts in the TPM of ak only, and only
// while that policy is met (PCRPolicy).
func VerifyDecryptionKey(ak, key *Public, policy, nonce, message, signature []byte) error {
	if err := verifyCertified(ak, key, (*Public).CheckDecryptionKey, nonce, message, signature); err != nil {
		return err
	}
	if len(policy) == 0 || subtle.ConstantTimeCompare(key.AuthPolicy, policy) != 1 {
		return fmt.Errorf("%w: the key is bound to another state than the one that was quoted", ErrNotCertified)
	}
	return nil
}

func verifyCertified(ak, key *Public, check func(*Public) error, nonce, message, signature []byte) error {
	if ak == nil || key == nil || len(nonce) == 0 {
		return fmt.Errorf("%w: attestation key, key or nonce is missing", ErrNotCertified)
	}
	if err := ak.CheckAttestationKey(); err != nil {
		return fmt.Errorf("%w: attestation key: %w", ErrNotCertified, err)
	}
	if err := check(key); err != nil {
		return fmt.Errorf("%w: %w", ErrNotCertified, err)
	}
	s, err := ParseSignature(signature)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotCertified, err)
	}
	if err := ak.Verify(message, s); err != nil {
		return fmt.Errorf("%w: %w", ErrNotCertified, err)
	}
	c, err := ParseCertify(message)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotCertified, err)
	}
	if subtle.ConstantTimeCompare(c.ExtraData, nonce) != 1 {
		return fmt.Errorf("%w: certified over another nonce", ErrNotCertified)
	}
	if !bytes.Equal(c.Name, key.Name()) {
		return fmt.Errorf("%w: another key is certified: got Name %x, want %x", ErrNotCertified, c.Name, key.Name())
	}
	return nil
}
