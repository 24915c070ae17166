// Package tpm is the verifying side of the TPM: it decodes and checks what a TPM signed, without talking to one.
//
// It reads TPMS_ATTEST, TPMT_SIGNATURE and TPMT_PUBLIC (TPM 2.0 Library, part 2), recomputes Names, checks the attributes of
// an attestation key, verifies quotes (RSASSA, RSAPSS, ECDSA) and EK certificate chains (TCG EK Credential Profile), and makes
// credentials for activation in software. All input is taken as hostile: every length is bounded, trailing bytes are refused,
// nothing panics. The package opens no device; that is package device below it.
package tpm
